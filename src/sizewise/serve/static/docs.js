// The OpenAPI document, for people.
const token = sessionStorage.getItem("token");
const response = await fetch("/openapi.json", { headers: token ? { Authorization: `Bearer ${token}` } : {} });
const description = await response.json();

function made(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function resolved(schema) {
  const name = schema?.$ref?.split("/").pop();
  return name ? { name, schema: description.components.schemas[name] } : { name: "", schema };
}

function content(body) {
  return Object.entries(body?.content ?? {}).map(([type, { schema }]) => {
    const { name, schema: shape } = resolved(schema);
    const details = made("details", {}, made("summary", { textContent: `${type} ${name}` }));
    details.append(made("pre", { textContent: JSON.stringify(shape, null, 2) }));
    return details;
  });
}

function operation(path, verb, described) {
  const rows = Object.entries(described.responses).map(([status, answer]) =>
    made("tr", {}, made("th", { textContent: status }), made("td", {}, made("div", { textContent: answer.description }), ...content(answer))));
  const heading = made("h2", {}, made("code", { className: "verb", textContent: verb }), " ", made("code", { textContent: path }));
  return made("section", {}, heading, made("p", { textContent: described.summary }), ...content(described.requestBody), made("table", {}, ...rows));
}

if (response.ok) {
  const operations = Object.entries(description.paths).flatMap(([path, verbs]) =>
    Object.entries(verbs).map(([verb, described]) => operation(path, verb, described)));
  document.getElementById("operations").append(...operations);
} else {
  Object.assign(document.getElementById("problem"), { hidden: false, textContent: description.error });
}

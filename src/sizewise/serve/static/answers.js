// What a model answered, in the form that its problem has.

const MOST = 10;

export function showAnswer(place, about, outputs, input) {
  const tensors = Object.fromEntries(outputs.map((output) => [output.name, output]));
  place.replaceChildren(...parts(about, tensors, input));
}

function parts(about, tensors, input) {
  const problem = about.signature.problem;
  if (problem === "classification") return [words(tensors.label.data[0]), bars(tensors.logits.data, about.classes)];
  if (["transcription", "translation", "dictation"].includes(problem)) return [words(tensors.text.data[0] || "(nothing)")];
  if (problem === "detection") return boxes(about, tensors.boxes.data, input);
  if (problem === "language modelling") return [words("what comes next"), bars(lastRow(tensors.logits), about.classes)];
  if (problem === "tagging") return [words(tensors.tags.data[0])];
  return [table(tensors.values.data.map((value, i) => [named(about.classes, i) || `number ${i + 1}`, value]))];
}

function made(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function words(text) {
  return made("p", { className: "words", id: "words", textContent: text });
}

function named(classes, i) {
  return classes[i] ?? String(i);
}

function rows(tensor) {
  const width = tensor.shape[tensor.shape.length - 1];
  return Array.from({ length: tensor.data.length / width }, (_, i) => tensor.data.slice(i * width, (i + 1) * width));
}

function lastRow(tensor) {
  return rows(tensor).pop();
}

function bars(logits, classes) {
  const top = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp(logit - top));
  const total = weights.reduce((a, b) => a + b, 0);
  const ranked = weights.map((weight, i) => [weight / total, i]).sort((a, b) => b[0] - a[0]).slice(0, MOST);
  const cells = ranked.flatMap(([share, i], place) => {
    const bar = made("div", { className: "bar" });
    bar.style.width = `${100 * share}%`;
    return [made("span", { className: place ? "" : "first", textContent: named(classes, i) }), made("div", {}, bar),
      made("span", { textContent: `${(100 * share).toFixed(1)} %` })];
  });
  return made("div", { className: "bars" }, ...cells);
}

function table(cells) {
  return made("table", {}, ...cells.map(([name, value]) => made("tr", {}, made("th", { textContent: name }), made("td", { textContent: value }))));
}

// Boxes are rows of class from 1, score, left, top, right and bottom in pixels of the model's own picture.
function boxes(about, data, input) {
  const found = Array.from({ length: data.length / 6 }, (_, i) => data.slice(6 * i, 6 * i + 6)).filter((box) => box[0] > 0);
  const { canvas, size } = input;
  const picture = made("canvas", { width: canvas.width, height: canvas.height });
  const pen = picture.getContext("2d");
  pen.drawImage(canvas, 0, 0);
  const [x, y] = [canvas.width / size[0], canvas.height / size[1]];
  Object.assign(pen, { strokeStyle: "#ff5a36", lineWidth: 2 });
  const sure = found.filter((box) => box[1] >= 0.3);
  for (const [, , left, top, right, bottom] of sure) pen.strokeRect(left * x, top * y, (right - left) * x, (bottom - top) * y);
  const listed = sure.map(([kind, score]) => [named(about.classes, kind - 1), `${(100 * score).toFixed(1)} %`]);
  return [picture, listed.length ? table(listed) : words("nothing was found")];
}

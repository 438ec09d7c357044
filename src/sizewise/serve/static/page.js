// The page: which model, what was asked, what it answered and how long that took.
import { inputFor } from "/static/inputs.js";
import { showAnswer } from "/static/answers.js";

const find = (id) => document.getElementById(id);
let about = null;
let input = null;

async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) {
    find("login").hidden = false;
    find("main").hidden = true;
    throw new Error(token ? "The token is not the right one." : "");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error || `${response.status} ${response.statusText}`);
  return { answer, timing: response.headers.get("Server-Timing") || "" };
}

function complain(error) {
  find("problem").hidden = !error.message;
  find("problem").textContent = error.message;
}

async function guarded(work) {
  complain({ message: "" });
  try {
    await work();
  } catch (error) {
    complain(error);
  }
}

async function open() {
  const { answer } = await ask("/v2/repository/index", { method: "POST" });
  const names = [...new Set(answer.map((model) => model.name))];
  find("model").replaceChildren(...names.map((name) => new Option(name, name)));
  find("login").hidden = true;
  find("main").hidden = false;
  await choose();
}

// While another model is fetched, the old one's input is not to be used.
async function choose() {
  find("main").dataset.model = "";
  find("ask").disabled = true;
  const { answer } = await ask(`/about/${encodeURIComponent(find("model").value)}`);
  about = answer;
  input = inputFor(about);
  find("input").replaceChildren(input.element);
  find("answer").replaceChildren();
  find("latency").textContent = "";
  find("card").textContent = about.card || "The folder has no model card.";
  const facts = {
    version: about.version,
    model: `${about.family} of width ${about.width}, ${about.precision} in ${about.runtime}`,
    problem: about.signature.problem,
    input: `${about.layout} ${about.signature.input_shape.join(" × ")}${about.signature.dynamic ? " at most" : ""}`,
    classes: about.classes.length ? `${about.classes.length}: ${about.classes.slice(0, 12).join(", ")}` : "none",
  };
  find("ask").disabled = false;
  find("main").dataset.model = about.name;
  find("facts").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [made("dt", name), made("dd", value)]));
}

function made(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

async function infer() {
  const tensor = await input.tensor();
  const began = performance.now();
  const path = `/v2/models/${encodeURIComponent(about.name)}/infer`;
  const { answer, timing } = await ask(path, { method: "POST", body: JSON.stringify({ inputs: [tensor] }) });
  const took = performance.now() - began;
  showAnswer(find("answer"), about, answer.outputs, input);
  const inside = /inference;dur=([\d.]+)/.exec(timing);
  find("latency").textContent = `${took.toFixed(1)} ms from here and back`
    + (inside ? `, ${Number(inside[1]).toFixed(2)} ms of them in the model` : "");
}

find("model").addEventListener("change", () => guarded(choose));
find("ask").addEventListener("click", () => guarded(infer));
find("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", find("token").value);
  guarded(open);
});
guarded(open);

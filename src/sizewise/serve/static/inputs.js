// What a visitor gives: a drawing, a picture, a text, a sound or numbers. Each input has an element and makes a tensor.

const SIDE = 280;

export function inputFor(about) {
  if (about.takes_sound) return soundInput();
  if (about.takes_text) return textInput(about);
  if (about.layout === "image") return imageInput(about);
  return numbersInput(about);
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function textInput(about) {
  const area = element("textarea", { id: "text", placeholder: "Type a sentence" });
  area.setAttribute("aria-label", "text");
  const tensor = () => {
    if (!area.value.trim()) throw new Error("Type something first.");
    return { name: "text", datatype: "BYTES", shape: [1], data: [area.value] };
  };
  const longest = `At most ${about.signature.input_shape[0]} tokens are read.`;
  return { element: element("div", {}, area, element("p", { className: "quiet", textContent: longest })), tensor };
}

function soundInput() {
  const file = element("input", { type: "file", id: "sound", accept: "audio/*,.wav,.flac,.ogg" });
  file.setAttribute("aria-label", "sound");
  const player = element("audio", { controls: true, hidden: true });
  file.addEventListener("change", () => {
    if (file.files[0]) Object.assign(player, { src: URL.createObjectURL(file.files[0]), hidden: false });
  });
  const tensor = async () => {
    if (!file.files[0]) throw new Error("Pick a sound first.");
    return { name: "sound", datatype: "BYTES", shape: [1], data: [await base64(file.files[0])] };
  };
  const kinds = element("p", { className: "quiet", textContent: "WAV, FLAC or OGG." });
  return { element: element("div", {}, file, kinds, player), tensor };
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

function numbersInput(about) {
  const area = element("textarea", { id: "numbers", placeholder: "1, 2.5, 3" });
  area.setAttribute("aria-label", "numbers");
  const shape = about.signature.input_shape;
  const row = shape.slice(1).reduce((a, b) => a * b, 1);
  const note = `${shape.join(" × ")} numbers${about.signature.dynamic ? ", or fewer rows of " + row : ""}, with commas, spaces or lines between them.`;
  const tensor = () => {
    const data = area.value.split(/[\s,;]+/).filter(Boolean).map(Number);
    if (!data.length || data.some(Number.isNaN)) throw new Error("Give numbers only.");
    const rows = about.signature.dynamic ? data.length / row : shape[0];
    return {
      name: about.layout,
      datatype: about.layout === "tokens" ? "INT64" : "FP32",
      shape: [1, rows, ...shape.slice(1)],
      data,
    };
  };
  return { element: element("div", {}, area, element("p", { className: "quiet", textContent: note })), tensor };
}

function imageInput(about) {
  const [channels, height, width] = about.signature.input_shape;
  const small = element("canvas", { width, height, className: "small" });
  const large = element("canvas", { width: SIDE, height: Math.round((SIDE * height) / width), className: "draw", id: "canvas" });
  const brush = large.getContext("2d", { willReadFrequently: true });
  const range = element("select", { id: "range" }, ...[1, 16, 255].map((top) => new Option(`0 to ${top}`, top)));
  range.value = String(likelyRange(about));
  const centre = element("input", { type: "checkbox", checked: channels === 1, id: "centre" });
  const file = element("input", { type: "file", accept: "image/*", id: "picture" });
  file.setAttribute("aria-label", "picture");
  let drawn = true;
  const clear = () => {
    brush.fillStyle = "#000";
    brush.fillRect(0, 0, large.width, large.height);
    drawn = true;
  };
  const button = element("button", { type: "button", textContent: "Clear", id: "clear" });
  button.addEventListener("click", clear);
  file.addEventListener("change", async () => {
    if (!file.files[0]) return;
    const picture = await createImageBitmap(file.files[0]);
    brush.drawImage(picture, 0, 0, large.width, large.height);
    drawn = false;
  });
  if (channels === 1) penOn(large, brush);
  clear();
  const tensor = () => {
    const source = drawn && centre.checked ? centred(large, height) : large;
    const pixels = shrunk(source, small);
    return { name: "image", datatype: "FP32", shape: [1, channels, height, width], data: planes(pixels, channels, Number(range.value)) };
  };
  const say = channels === 1 ? "Draw here, or pick a picture:" : "Pick a picture:";
  const rows = [
    element("p", { className: "quiet", textContent: say }),
    large,
    element("div", { className: "row" }, button, file),
    element("div", { className: "row" }, element("label", {}, "values ", range), ...(channels === 1 ? [element("label", {}, centre, " centre the drawing")] : [])),
    element("div", { className: "row quiet" }, "what the model sees: ", small),
  ];
  return { element: element("div", {}, ...rows), tensor, canvas: large, size: [width, height] };
}

// Raw values were 0 to 1, 0 to 16 or 0 to 255; which of them, the training data's mean and spread tell.
function likelyRange(about) {
  const typical = Math.max(...about.mean.map((mean, i) => mean + about.std[i]));
  return [1, 16, 255].find((top) => typical <= top) || 255;
}

function penOn(canvas, brush) {
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
  };
  let last = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = at(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    Object.assign(brush, { lineWidth: canvas.width / 12, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
    const next = at(event);
    brush.beginPath();
    brush.moveTo(...last);
    brush.lineTo(...next);
    brush.stroke();
    last = next;
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { last = null; });
}

// Handwritten digits were cut out, brought to one size and centred by mass, with a margin in MNIST (LeCun et al. 1998)
// and without one in pictures of a few pixels: so is a drawing.
function centred(canvas, rows) {
  const { width, height } = canvas;
  const fill = rows < 20 ? 0.95 : 20 / 28;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  let [left, right, top, bottom, mass, x, y] = [width, -1, height, -1, 0, 0, 0];
  for (let i = 0; i < width * height; i += 1) {
    const ink = data[4 * i];
    if (!ink) continue;
    const [column, row] = [i % width, Math.floor(i / width)];
    [left, right] = [Math.min(left, column), Math.max(right, column)];
    [top, bottom] = [Math.min(top, row), Math.max(bottom, row)];
    [mass, x, y] = [mass + ink, x + ink * column, y + ink * row];
  }
  if (!mass) throw new Error("Draw something first.");
  const scale = (fill * height) / Math.max(right - left + 1, bottom - top + 1);
  const out = element("canvas", { width, height });
  const pen = out.getContext("2d");
  pen.fillRect(0, 0, width, height);
  pen.translate(width / 2, height / 2);
  pen.scale(scale, scale);
  pen.drawImage(canvas, -x / mass, -y / mass);
  return out;
}

// Each small pixel is the mean of the large ones that it covers: what browsers do in one step skips over most of them.
function shrunk(canvas, small) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const pen = small.getContext("2d");
  const image = pen.createImageData(small.width, small.height);
  const [x, y] = [canvas.width / small.width, canvas.height / small.height];
  for (let row = 0; row < small.height; row += 1) {
    for (let column = 0; column < small.width; column += 1) {
      const box = [column * x, (column + 1) * x, row * y, (row + 1) * y].map(Math.round);
      image.data.set([...mean(data, canvas.width, ...box), 255], 4 * (row * small.width + column));
    }
  }
  pen.putImageData(image, 0, 0);
  return image.data;
}

function mean(data, width, left, right, top, bottom) {
  const sums = [0, 0, 0];
  const end = [Math.max(right, left + 1), Math.max(bottom, top + 1)];
  for (let row = top; row < end[1]; row += 1) {
    for (let column = left; column < end[0]; column += 1) {
      for (let channel = 0; channel < 3; channel += 1) sums[channel] += data[4 * (row * width + column) + channel];
    }
  }
  return sums.map((sum) => sum / ((end[0] - left) * (end[1] - top)));
}

function planes(pixels, channels, top) {
  const values = [];
  for (let channel = 0; channel < channels; channel += 1) {
    for (let i = 0; i < pixels.length; i += 4) {
      const grey = 0.299 * pixels[i] + 0.587 * pixels[i + 1] + 0.114 * pixels[i + 2];
      values.push(((channels === 1 ? grey : pixels[i + channel]) * top) / 255);
    }
  }
  return values;
}

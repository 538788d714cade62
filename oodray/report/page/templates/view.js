// The large view of one image.

const dialog = document.getElementById("view");
const canvas = document.getElementById("canvas");
const state = { index: null, image: null, layer: "mask", opacity: 0.6, score: "ratio", threshold: 0 };
const waiting = new Map();

window.oodrayImage = (index, view) => {
  waiting.get(index)?.(view);
  waiting.delete(index);
};

// What the view of an image is drawn from: inside of the page, or in a script beside it.
function viewOf(index) {
  const inside = document.getElementById(`image-${index}`);
  if (inside) return Promise.resolve(JSON.parse(inside.textContent));
  return new Promise((resolve, reject) => {
    waiting.set(index, resolve);
    const script = document.createElement("script");
    const name = String(index).padStart(6, "0");
    script.src = `${encodeURIComponent(facts.folder)}/${String(Math.floor(index / 1000)).padStart(3, "0")}/${name}.js`;
    script.onload = () => script.remove();
    script.onerror = () => reject(new Error(`${script.src} is not there: the page belongs beside its folder`));
    document.head.append(script);
  });
}

function numberOf(index) {
  return facts.images.find((image) => image.index === index);
}

async function openImage(index, layer) {
  state.index = index;
  if (layer) state.layer = layer;
  const image = numberOf(index);
  document.getElementById("view-name").textContent = image.image_id;
  document.getElementById("view-place").textContent = order.includes(index) ? `${order.indexOf(index) + 1} / ${order.length}` : "";
  document.getElementById("loading").hidden = false;
  document.getElementById("loading").textContent = "loading …";
  if (!dialog.open) dialog.showModal();
  history.replaceState(null, "", `#image=${encodeURIComponent(image.image_id)}`);
  try {
    const loaded = await decoded(await viewOf(index));
    if (state.index !== index) return; // another one was asked for meanwhile
    state.image = loaded;
  } catch (error) {
    document.getElementById("loading").textContent = error.message;
    return;
  }
  document.getElementById("loading").hidden = true;
  if (!LAYERS[state.layer].has(state.image)) state.layer = "photo";
  if (!scoreNames(state.image).includes(state.score)) state.score = scoreNames(state.image)[0];
  describe(image);
  chooseScore(state.score);
  chooseLayer(state.layer);
}

function openNamed(name, layer) {
  const image = facts.images.find((one) => one.image_id === name);
  if (image) openImage(image.index, layer);
}

function openFromAddress() {
  const found = /^#image=(.*)$/.exec(location.hash);
  if (found) openNamed(decodeURIComponent(found[1]));
}

function step(by) {
  if (!order.length) return;
  const at = order.indexOf(state.index);
  openImage(order[(at + by + order.length) % order.length]);
}

function chooseLayer(name) {
  state.layer = name;
  const buttons = document.getElementById("layers");
  const focused = buttons.contains(document.activeElement);
  const known = Object.entries(LAYERS).filter(([, layer]) => layer.has(state.image));
  buttons.replaceChildren(...known.map(([key, layer], place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = layer.title;
    button.title = `${layer.title} (${place + 1})`;
    button.setAttribute("aria-pressed", String(key === name));
    button.addEventListener("click", () => chooseLayer(key));
    return button;
  }));
  if (focused) buttons.querySelector('[aria-pressed="true"]').focus();
  const layer = LAYERS[name];
  document.getElementById("opacity-label").hidden = !layer.opacity;
  for (const part of ["score-label", "threshold-label", "above"]) document.getElementById(part).hidden = !layer.threshold;
  legend(layer);
  draw();
}

function chooseScore(name) {
  state.score = name;
  const select = document.getElementById("score");
  select.replaceChildren(...scoreNames(state.image).map((one) => new Option(one, one, false, one === name)));
  if (!name) return;
  const score = scoreOf(state.image, name);
  const known = name === "ratio" ? facts.rule.T : facts.thresholds[name];
  const middle = known ?? numberOf(state.index).scores[name] ?? (score.low + score.high) / 2;
  setThreshold(Math.min(score.high, Math.max(score.low, middle)));
}

function setThreshold(value) {
  const score = scoreOf(state.image, state.score);
  state.threshold = value;
  const slider = document.getElementById("threshold");
  slider.value = Math.round((1000 * (value - score.low)) / (score.high - score.low || 1));
  document.getElementById("threshold-value").value = value.toFixed(3);
}

// How much lies above the threshold, and what that is worth where there is a label.
function judge() {
  const chosen = above(state.image, state);
  let [total, found, missed, false_] = [0, 0, 0, 0];
  const label = state.image.label && sampler(state.image.label, state.image.width, state.image.height);
  for (let y = 0, at = 0; y < state.image.height; y++) {
    for (let x = 0; x < state.image.width; x++, at++) {
      total += chosen[at];
      const is = label ? label(x, y) : IGNORE;
      if (is === 1) chosen[at] ? found++ : missed++;
      else if (is === 0 && chosen[at]) false_++;
    }
  }
  let text = `${((100 * total) / chosen.length).toFixed(1)} % of the image is ${state.score === "ratio" ? "above" : "at or above"} ${state.threshold.toFixed(3)}`;
  if (found + missed) {
    const precision = found + false_ ? `${((100 * found) / (found + false_)).toFixed(1)} %` : "–";
    text += `: precision ${precision}, recall ${((100 * found) / (found + missed)).toFixed(1)} %`;
  }
  document.getElementById("above").textContent = `${text}.`;
}

function draw() {
  const { image } = state;
  canvas.width = image.width;
  canvas.height = image.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (image.photo) context.drawImage(image.photo, 0, 0);
  else {
    context.fillStyle = "#8a8f96";
    context.fillRect(0, 0, image.width, image.height);
  }
  const layer = LAYERS[state.layer];
  const drawn = context.getImageData(0, 0, image.width, image.height);
  layer.paint(image, drawn.data, state);
  context.putImageData(drawn, 0, 0);
  layer.write?.(context, image);
  const facts_ = numberOf(state.index);
  canvas.setAttribute("aria-label", `${facts_.image_id}, ${layer.title}`);
  if (layer.threshold) judge();
}

function legend(layer) {
  const entries = layer.legend?.(state.image) ?? [];
  document.getElementById("view-legend").replaceChildren(...entries.map(([look, text]) => {
    const item = document.createElement("li");
    const swatch = document.createElement("i");
    if (Array.isArray(look)) swatch.style.background = `rgb(${look.join(" ")})`;
    else swatch.className = look;
    item.append(swatch, text);
    return item;
  }));
}

function percent(share, digits = 1) {
  return share === null || Number.isNaN(share) ? "–" : `${(100 * share).toFixed(digits)} %`;
}

function describe(image) {
  const rows = [["size", `${image.width} × ${image.height}`]];
  if (image.ood_fraction !== null) rows.push(["found area", percent(image.ood_fraction)], ["image score", image.image_score.toFixed(3)]);
  if (image.found + image.missed) {
    rows.push(
      ["precision", percent(image.found / (image.found + image.false))],
      ["recall", percent(image.found / (image.found + image.missed))],
      ["IoU", percent(image.found / (image.found + image.missed + image.false))],
    );
  } else if (image.labelled) rows.push(["label", "nothing is OoD"], ["false alarms", percent(image.false / image.labelled)]);
  for (const [name, value] of Object.entries(image.scores)) rows.push([name, value.toFixed(3)]);
  if (image.warning) rows.push(["warning", image.warning]);
  if (state.image.view.note) rows.push(["note", state.image.view.note]);
  document.getElementById("view-facts").replaceChildren(...rows.flatMap(([name, value]) => {
    const [term, text] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    text.textContent = value;
    return [term, text];
  }));
  describeClusters(state.image.view.clusters?.known ?? []);
}

function describeClusters(known) {
  const place = document.getElementById("view-clusters");
  if (!known.length) return place.replaceChildren();
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const name of ["cluster", "area", "ratio", "OoD"]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = name;
    head.append(cell);
  }
  const body = table.createTBody();
  for (const cluster of [...known].sort((a, b) => b.ratio - a.ratio)) {
    const row = body.insertRow();
    const swatch = document.createElement("i");
    swatch.className = "swatch";
    swatch.style.background = `rgb(${facts.colours[cluster.id].join(" ")})`;
    row.insertCell().append(swatch, String(cluster.id));
    row.insertCell().textContent = percent(cluster.share, 0);
    row.insertCell().textContent = cluster.ratio.toFixed(3);
    row.insertCell().textContent = cluster.ood ? "yes" : "";
  }
  place.replaceChildren(table);
}

document.getElementById("previous").addEventListener("click", () => step(-1));
document.getElementById("next").addEventListener("click", () => step(1));
document.getElementById("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  const closed = gallery.querySelector(`[data-index="${state.index}"] button`);
  state.index = null;
  history.replaceState(null, "", location.pathname + location.search);
  if (closed && !closed.closest("li").hidden) closed.focus({ preventScroll: false });
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});
document.getElementById("opacity").addEventListener("input", (event) => {
  state.opacity = event.target.value / 100;
  draw();
});
document.getElementById("score").addEventListener("change", (event) => {
  chooseScore(event.target.value);
  draw();
});
document.getElementById("threshold").addEventListener("input", (event) => {
  const score = scoreOf(state.image, state.score);
  state.threshold = score.low + (event.target.value / 1000) * (score.high - score.low);
  document.getElementById("threshold-value").value = state.threshold.toFixed(3);
  draw();
});
document.addEventListener("keydown", (event) => {
  if (!dialog.open || !state.image || event.ctrlKey || event.metaKey || event.altKey) return;
  const inControl = event.target.matches("input, select");
  const threshold = document.getElementById("threshold");
  if (event.key === "ArrowLeft" && !inControl) step(-1);
  else if (event.key === "ArrowRight" && !inControl) step(1);
  else if (/^[1-7]$/.test(event.key)) document.getElementById("layers").children[event.key - 1]?.click();
  else if ((event.key === "[" || event.key === "]") && LAYERS[state.layer].threshold) {
    threshold.value = Number(threshold.value) + (event.key === "[" ? -20 : 20);
    threshold.dispatchEvent(new Event("input"));
  } else return;
  event.preventDefault();
});

// The gallery: sorting, filters, and opening an image.

const PAGE = matchMedia("(max-width: 480px)").matches ? 24 : 48;
const gallery = document.getElementById("gallery");
const items = new Map([...gallery.children].map((item) => [Number(item.dataset.index), item]));
let listed = PAGE;
let order = [];

function control(name) {
  return document.getElementById(name)?.value ?? "";
}

function sortValue(image, key) {
  if (key.startsWith("score:")) return image.scores[key.slice(6)];
  if (key === "iou") {
    const union = image.found + image.missed + image.false;
    return union ? image.found / union : null;
  }
  return image[key];
}

function passes(image) {
  const area = control("area");
  if (area) {
    const [low, high] = area.split(":");
    const share = image.ood_fraction;
    if (area === "0:0" ? share > 0 : share <= parseFloat(low) || share > Number(high)) return false;
  }
  const errors = control("errors");
  if (errors === "missed" && !image.missed) return false;
  if (errors === "false" && !image.false) return false;
  if (errors === "none" && (image.found || image.missed)) return false;
  const status = control("status");
  if (status && (status === "warning") !== (image.warning !== null)) return false;
  if (control("size") && control("size") !== `${image.width}x${image.height}`) return false;
  if (control("dataset") && control("dataset") !== image.dataset) return false;
  return image.image_id.toLowerCase().includes(control("search").trim().toLowerCase());
}

function compare(key, sign) {
  return (a, b) => {
    const [x, y] = [sortValue(a, key), sortValue(b, key)];
    if (x === y) return a.index - b.index;
    if (x === null || x === undefined) return 1; // what has no value is last either way
    if (y === null || y === undefined) return -1;
    return (x < y ? -1 : 1) * sign;
  };
}

function arrange() {
  const sign = control("order") === "up" ? 1 : -1;
  const chosen = facts.images.filter(passes).sort(compare(control("sort"), sign));
  order = chosen.map((image) => image.index);
  const shown = new Set(order.slice(0, listed));
  for (const index of order) gallery.append(items.get(index));
  for (const [index, item] of items) item.hidden = !shown.has(index);
  document.getElementById("count").value = `${order.length} of ${facts.images.length}`;
  document.getElementById("nothing").hidden = order.length > 0;
  const more = document.getElementById("more");
  more.hidden = order.length <= listed;
  more.textContent = `Show ${Math.min(PAGE, order.length - listed)} more`;
}

const controls = document.getElementById("controls");
controls.addEventListener("submit", (event) => event.preventDefault());
function onControl(event) {
  if (event.target.id === "sort") {
    document.getElementById("order").value = event.target.value === "image_id" || event.target.value === "iou" ? "up" : "down";
  }
  listed = PAGE;
  arrange();
}
// A choice is `change` everywhere, typing is `input`.
for (const kind of ["input", "change"]) controls.addEventListener(kind, onControl);
document.getElementById("more").addEventListener("click", () => {
  listed += PAGE;
  arrange();
});
gallery.addEventListener("click", (event) => {
  const item = event.target.closest("li");
  if (item) openImage(Number(item.dataset.index));
});
for (const button of document.querySelectorAll(".region")) {
  button.addEventListener("click", () => openNamed(button.dataset.image, "errors"));
}

arrange();
openFromAddress();
window.addEventListener("hashchange", openFromAddress);

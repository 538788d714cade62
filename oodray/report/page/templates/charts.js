// Curves that are hidden one by one, logarithmic axes, and the theme.

for (const box of document.querySelectorAll("[data-curve]")) {
  box.addEventListener("change", () => {
    for (const line of document.querySelectorAll(`#curves [id$="--curve-${Number(box.dataset.curve)}"]`)) {
      line.style.display = box.checked ? "" : "none";
    }
  });
}

for (const box of document.querySelectorAll("[data-log]")) {
  box.addEventListener("change", () => {
    for (const chart of document.querySelectorAll(`${box.dataset.log} .chart`)) {
      const log = chart.querySelector('[data-form="logarithmic"]');
      if (log) {
        log.hidden = !box.checked;
        chart.querySelector('[data-form="linear"]').hidden = box.checked;
      }
    }
  });
}

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

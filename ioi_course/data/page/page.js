// What scrolls sideways can be reached and scrolled by keyboard, and the canvases of an attention plot bear its name.
const mark = (box) => {
  if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  else box.removeAttribute("tabindex");
};
const resized = new ResizeObserver((entries) => entries.forEach((entry) => mark(entry.target)));
for (const box of document.querySelectorAll(".input, .output, .wide, .prose pre, details > div")) {
  mark(box);
  resized.observe(box);
}

for (const figure of document.querySelectorAll("figure.ioi-plot")) {
  const name = figure.querySelector("img")?.alt;
  new MutationObserver(() => {
    for (const canvas of figure.querySelectorAll("canvas:not([aria-label])")) canvas.setAttribute("aria-label", name);
  }).observe(figure, { childList: true, subtree: true });
}

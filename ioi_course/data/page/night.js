// Heatmaps on dark pages: each colour of a plot's scale has one for the night in NIGHT, which ioi_course.publish.figures
// puts before this. The site says by a class of <body> which it is, and has a switch; elsewhere the system says it.
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => document.body.matches(".quarto-dark") || (system.matches && !document.body.matches(".quarto-light"));
const byDay = new WeakMap(); // the scale that a plot came with

const paint = (plot) => {
  const scale = plot.layout?.coloraxis?.colorscale;
  if (!scale) return;
  if (!byDay.has(plot)) byDay.set(plot, scale);
  const day = byDay.get(plot);
  const wanted = isDark() ? day.map(([at, colour]) => [at, NIGHT[colour] ?? colour]) : day;
  if (String(wanted) !== String(scale)) Plotly.relayout(plot, { "coloraxis.colorscale": wanted });
};

const paintAll = () => document.querySelectorAll(".ioi-plot > .js-plotly-plot[role=img]").forEach(paint);
system.addEventListener("change", paintAll);
new MutationObserver(paintAll).observe(document.body, { attributeFilter: ["class"] });
// A plot gets its role when it is drawn, and is painted before anyone sees it.
for (const figure of document.querySelectorAll("figure.ioi-plot")) {
  new MutationObserver(() => figure.querySelectorAll(".js-plotly-plot[role=img]").forEach(paint))
    .observe(figure, { subtree: true, attributeFilter: ["role"] });
}
paintAll();

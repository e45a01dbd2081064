// Draws each plot of the page that still shows its static picture. Every plot carries this script, so that it works
// alone in a sandboxed frame; on a page of many plots each library is loaded once.
(() => {
  const page = (window.ioiCourse ??= {});
  page.loading ??= {};

  const script = (src, name) => new Promise((resolve, reject) => {
    const tag = Object.assign(document.createElement("script"), { src });
    tag.onload = () => (window[name] ? resolve(window[name]) : reject(new Error(`${src} does not define ${name}`)));
    tag.onerror = () => reject(new Error(`cannot load ${src}`));
    document.head.append(tag);
  });

  // Where to look: what the page provides, what the Jupyter server provides, the network.
  const load = (name, cdn) => (page.loading[name] ??= (async () => {
    if (window[name]) return window[name];
    const jupyter = document.getElementById("jupyter-config-data");
    const served = jupyter && `${JSON.parse(jupyter.textContent).baseUrl}static/ioi_course/${name}.js`;
    for (const src of [page.assets && `${page.assets}${name}.js`, served, cdn].filter(Boolean)) {
      try { return await script(src, name); } catch (error) { console.info(`ioi_course: ${error.message}`); }
    }
    throw new Error(`${name} is not to be had`);
  })());

  // What a width has room for: the heading in as many lines as it needs, every so many-th label, the legend below.
  const fit = ({ width, ...layout }, room, data) => {
    const margin = { ...layout.margin }, title = { ...layout.title };
    const before = title.text.split("<br>").length, most = Math.max(12, Math.floor((room - margin.l) / 8.6));
    const lines = [];
    for (const word of title.text.replaceAll("<br>", " ").split(" ")) {
      const longer = `${lines.at(-1)} ${word}`;
      if (lines.length && longer.length <= most) lines[lines.length - 1] = longer; else lines.push(word);
    }
    title.text = lines.join("<br>");
    if (lines.length > 1) title.pad = { ...title.pad, t: 16 };
    const legend = layout.showlegend && room < 600;
    const rows = legend ? 26 * data.length : 0;
    const more = 18 * (lines.length - before);
    if (legend) margin.r = 30;
    const result = { ...layout, margin: { ...margin, t: margin.t + more, b: margin.b + rows }, title,
      height: layout.height + more + rows };
    if (legend) result.legend = { orientation: "v", xref: "paper", x: 0, xanchor: "left", yref: "container", y: 0,
      yanchor: "bottom" };
    const less = (width - layout.margin.l - layout.margin.r) / Math.max(room - margin.l - margin.r, 50);
    for (const [name, axis] of Object.entries(less > 1 ? layout : {})) {
      if (!name.startsWith("xaxis")) continue;
      const every = Math.ceil(less), keep = (_, i) => i % every === 0;
      if (axis.dtick) result[name] = { ...axis, dtick: axis.dtick * every };
      else if (axis.tickvals) {
        result[name] = { ...axis, tickvals: axis.tickvals.filter(keep), ticktext: axis.ticktext.filter(keep) };
      }
    }
    return result;
  };

  const draw = {
    Plotly: (Plotly, host, { data, layout, config }) => {
      host.style.maxWidth = `${Math.max(layout.width, 900)}px`;
      if (data.some((trace) => trace.texttemplate) && host.clientWidth < layout.width) {
        host.style.overflowX = "auto";  // words in cells keep their size, and the plot scrolls in its own box
        return Plotly.newPlot(host, data, layout, { ...config, responsive: false });
      }
      return Plotly.newPlot(host, data, fit({ ...layout, autosize: true }, host.clientWidth, data), config);
    },
    CircuitsVis: (CircuitsVis, host, { element, props, heading }) => {
      const inner = document.createElement("div");
      page.count = (page.count ?? 0) + 1;
      inner.id = `ioi-circuitsvis-${page.count}`;
      host.style.cssText = "max-width:640px; padding:6px 12px; border-radius:6px; background:#fff; color:#222";  // its words are dark
      host.append(Object.assign(document.createElement("p"), { textContent: heading }), inner);
      CircuitsVis.render(inner.id, CircuitsVis[element], props);
    },
  };

  // Words take the page's own colour, and keep it when the page turns dark. Circuitsvis sizes its small patterns by the
  // window; they get a size at which their names fit.
  const style = `
    .ioi-plot .main-svg :is(.infolayer, .textpoint, [class$='tick']) text { fill: currentColor !important; }
    .ioi-plot [id^='ioi-circuitsvis'] div:has(> div > div > h4) { min-width: 100px; }
    .ioi-plot [id^='ioi-circuitsvis'] h4 { font-size: 13px; }`;
  if (!document.getElementById("ioi-plot-style")) {
    document.head.append(Object.assign(document.createElement("style"), { id: "ioi-plot-style", textContent: style }));
  }

  for (const plot of document.querySelectorAll("figure.ioi-plot:not([data-drawn])")) {
    const source = plot.querySelector("script[type='application/json']");
    if (!source) continue;
    plot.dataset.drawn = "";
    const { library, cdn, spec } = JSON.parse(source.textContent);
    load(library, cdn).then(async (module) => {
      const still = plot.querySelector("img");
      const host = document.createElement("div");
      still.before(host);
      try {
        await draw[library](module, host, spec);
        host.setAttribute("role", "img");
        host.setAttribute("aria-label", still.alt);
        still.hidden = true;
      } catch (error) {
        host.remove();
        throw error;
      }
    }).catch((error) => console.info(`ioi_course: the static picture stays: ${error.message}`));
  }
})();

"use strict";
// Unpacks plotly.js, draws each plot when it comes near the window, and again when the look changes or it is printed.
(async () => {
  const packed = document.getElementById("plotly-packed").textContent.trim();
  const plots = new Map(JSON.parse(document.getElementById("plot-data").textContent).map((plot) => [plot.key, plot]));
  if (!packed || !plots.size) return performance.mark("plots-ready");
  if (!("DecompressionStream" in window)) {
    document.getElementById("no-plots").hidden = false;
    return;
  }
  const bytes = "fromBase64" in Uint8Array ? Uint8Array.fromBase64(packed) : decoded(atob(packed));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text(); // its hash stands in the page's policy
  document.head.append(script);

  function decoded(binary) {
    const bytes = new Uint8Array(binary.length);
    for (let index = 0; index < binary.length; index += 1) bytes[index] = binary.charCodeAt(index);
    return bytes;
  }
  const style = () => getComputedStyle(document.documentElement);
  // Figures name colours as CSS variables; plotly wants the colours themselves.
  const coloured = (value, colours) => {
    if (typeof value === "string" && value.startsWith("var(--")) return colours.getPropertyValue(value.slice(4, -1)).trim();
    if (Array.isArray(value)) return typeof value[0] === "number" && value.length > 2 ? value : value.map((item) => coloured(item, colours));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, colours)]));
  };
  const settings = { displayModeBar: false, responsive: true, showTips: false };
  const drawn = new Set();

  function draw(key, width) {
    const plot = plots.get(key);
    const colours = style();
    const data = coloured(plot.data, colours);
    const mask = plot.views[plot.view || 0];
    if (mask) data.forEach((trace, index) => { trace.visible = mask[index]; });
    const layout = coloured(plot.layout, colours);
    // On a touch screen a drag scrolls the page; with a mouse it zooms, and a double click goes back.
    layout.dragmode = matchMedia("(pointer: fine)").matches ? "zoom" : false;
    if (width) Object.assign(layout, { width, autosize: false });
    const box = document.getElementById(key);
    Plotly.react(box, data, layout, settings);
    if (!drawn.has(key)) {
      drawn.add(key);
      if (data.some((trace) => "meta" in trace)) highlight(box);
    }
  }

  // The curves of the run under the pointer stand out.
  function highlight(box) {
    const lines = (event) => {
      const run = event.points[0].data.meta;
      return box.data.flatMap((trace, index) => (trace.meta === run ? [index] : []));
    };
    box.on("plotly_hover", (event) => Plotly.restyle(box, { "line.width": 3.2, opacity: 1 }, lines(event)));
    box.on("plotly_unhover", (event) => {
      const touched = lines(event);
      const data = plots.get(box.id).data;
      Plotly.restyle(box, {
        "line.width": touched.map((index) => data[index].line.width),
        opacity: touched.map((index) => data[index].opacity),
      }, touched);
    });
  }

  for (const select of document.querySelectorAll("select[data-views]")) {
    const keys = select.dataset.views.split(" ");
    const change = () => keys.forEach((key) => {
      plots.get(key).view = Number(select.value);
      if (drawn.has(key)) draw(key);
    });
    if (select.value !== "0") change(); // the browser may remember a choice over a reload
    select.addEventListener("change", change);
  }
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      near.unobserve(entry.target);
      if (!drawn.has(entry.target.id)) draw(entry.target.id);
    }
  }, { rootMargin: "400px" });
  for (const key of plots.keys()) near.observe(document.getElementById(key));

  const redraw = () => drawn.forEach((key) => draw(key));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  // On paper: every plot, in the light look, as wide as the paper lets it be.
  addEventListener("beforeprint", () => {
    document.documentElement.classList.add("paper");
    for (const key of plots.keys()) {
      const box = document.getElementById(key);
      draw(key, box.closest(".pair, .grid") ? 320 : 660);
    }
  });
  addEventListener("afterprint", () => {
    document.documentElement.classList.remove("paper");
    redraw();
  });
  performance.mark("plots-ready");
})();

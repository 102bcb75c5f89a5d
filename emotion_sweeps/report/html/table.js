"use strict";
// Sorts, filters and pages the ranking. A number's key stands in data-key; what is missing sorts last either way.
(() => {
  const table = document.getElementById("board");
  if (!table) return;
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const [filter, status, sort, count, more, all] =
    ["filter", "status", "sort", "count", "more", "all"].map((id) => document.getElementById(id));
  let order = [...body.rows];
  let limit = Number(table.dataset.page);
  const texts = new Map();
  const textOf = (row) => {
    if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase());
    return texts.get(row);
  };
  const matching = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = status ? status.value : "";
    return order.filter((row) =>
      (!wanted || row.dataset.status === wanted) && words.every((word) => textOf(row).includes(word)));
  };

  const keyOf = (cell, numeric) => {
    if (numeric) return cell.dataset.key;
    return cell.textContent === "–" || !cell.textContent ? undefined : cell.textContent.toLowerCase();
  };

  function show() {
    const rows = matching();
    for (const row of order) row.className = row.className.replace(/ ?\b(later|filtered)\b/g, "");
    const kept = new Set(rows);
    for (const row of order) if (!kept.has(row)) row.className += " filtered";
    for (const row of rows.slice(limit)) row.className += " later";
    const shown = Math.min(limit, rows.length);
    const of = rows.length === order.length ? "" : ` (of ${order.length.toLocaleString("en")})`;
    count.textContent = rows.length ? `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")}${of}`
      : "nothing matches";
    more.hidden = all.hidden = shown === rows.length;
  }

  function sortBy(column, direction) {
    const numeric = heads[column].classList.contains("num");
    const sign = direction === "descending" ? -1 : 1;
    const keyed = order.map((row) => [keyOf(row.cells[column], numeric), row]);
    keyed.sort(([a], [b]) => {
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
      return sign * (numeric ? Number(a) - Number(b) : a < b ? -1 : a > b ? 1 : 0);
    });
    order = keyed.map(([, row]) => row);
    body.append(...order);
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", direction);
    sort.value = String(column);
    show();
  }

  // A first click on a score brings its best to the top: losses and costs ascend, scores descend.
  const firstDirection = (head) =>
    head.classList.contains("num") && !/rank|loss|trainable|minutes|invalid/.test(head.textContent)
      ? "descending" : "ascending";
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const now = head.getAttribute("aria-sort");
    sortBy(column, now ? (now === "ascending" ? "descending" : "ascending") : firstDirection(head));
  }));
  sort.addEventListener("change", () => sortBy(Number(sort.value), firstDirection(heads[Number(sort.value)])));
  filter.addEventListener("input", show);
  if (status) status.addEventListener("change", show);
  more.addEventListener("click", () => { limit += 100; show(); });
  all.addEventListener("click", () => { limit = Infinity; show(); });
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  show();
  performance.mark("table-ready");
})();

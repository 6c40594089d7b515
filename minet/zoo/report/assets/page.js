// The page's own script: sorting and filtering of the table, and the data that the charts show.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const table = document.getElementById("table");
const body = table.tBodies[0];
const lines = [...body.rows];
const views = {};
const part = (id) => document.getElementById(id);

const ticked = (line) => line.querySelector("input").checked;

// numbers before words, empty cells last whatever the direction
function ordered(column, sign) {
  const value = (line) => column ? line.cells[column].dataset.value : Number(!ticked(line));
  const numbers = lines.every((line) => value(line) === "" || isFinite(value(line)));
  const compare = numbers ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en");
  return [...lines].sort((first, second) => {
    const [a, b] = [value(first), value(second)];
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * compare(a, b);
  });
}

function sort(header) {
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) {
    if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
  }
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  body.append(...ordered(header.cellIndex, ascending ? 1 : -1));
}

function filter() {
  const words = part("words").value.toLowerCase().split(/\s+/).filter(Boolean);
  const report = part("report").value;
  const shown = new Set();
  for (const line of lines) {
    line.hidden = (report !== "" && line.dataset.report !== report) ||
      !words.every((word) => line.dataset.words.includes(word));
    if (!line.hidden) shown.add(line.dataset.row);
  }
  part("nothing").hidden = shown.size > 0;
  part("count").textContent = `${shown.size} of ${lines.length} rows`;
  const rows = data.rows.filter((row) => shown.has(row.row));
  for (const name of ["macs", "parameters"]) show(name, "rows", rows);
}

function show(chart, name, values) {
  return views[chart].data(name, values).resize().runAsync();
}

function tickedRows() {
  return lines.filter(ticked).map((line) => line.dataset.row);
}

function curvesOf(chosen) {
  return chosen.flatMap((row) => data.curves[row]);
}

let turn = 0; // of drawing: a choice that is made while curves are drawn comes after them

async function curves() {
  const chosen = tickedRows(), own = ++turn;
  table.tHead.rows[0].cells[0].setAttribute("aria-sort", "none"); // what is ticked has changed
  for (const place of part("curves").querySelectorAll(".chart")) place.hidden = chosen.length === 0;
  part("unchosen").hidden = chosen.length > 0;
  if (chosen.length === 0) return part("chosen").replaceChildren();
  dispatchEvent(new Event("resize")); // charts that were hidden have missed how wide the page is
  for (const name of ["loss", "accuracy", "lr"]) await show(name, "curves", curvesOf(chosen));
  if (own !== turn) return;
  const colour = views.loss.scale("color");
  const before = {}; // lines that lie upon one another look like one
  part("chosen").replaceChildren(...chosen.map((row) => {
    const item = document.createElement("li");
    const drawn = JSON.stringify(data.curves[row].map((point) => ({ ...point, row: "" })));
    item.textContent = drawn in before ? `${row}, upon ${before[drawn]}: the same figures` : row;
    before[drawn] ??= row;
    item.style.setProperty("--colour", colour(row));
    return item;
  }));
}

function tick(names) {
  for (const line of lines) line.querySelector("input").checked = names.includes(line.dataset.row);
  return curves();
}

// every pair of classes, those that do not occur as a share of nothing
function confusionOf(name) {
  const { classes, counts } = data.confusion[name];
  const sums = classes.map((_, label) =>
    counts.reduce((sum, [of, , count]) => sum + (of === label ? count : 0), 0));
  const found = new Map(counts.map(([label, predicted, count]) => [`${label} ${predicted}`, count]));
  return classes.flatMap((truth, label) => classes.map((other, predicted) => {
    const images = found.get(`${label} ${predicted}`) || 0;
    return { true: truth, predicted: other, images, share: sums[label] ? images / sums[label] : 0 };
  }));
}

function one(name) {
  part("one").value = name;
  for (const article of document.querySelectorAll("article")) article.hidden = article.id !== `row-${name}`;
  show("confusion", "confusion", confusionOf(name));
}

function follow() {
  const name = decodeURIComponent(location.hash.replace(/^#row-/, ""));
  if (name in data.confusion && location.hash.startsWith("#row-")) {
    one(name);
    part("detail").scrollIntoView();
  }
}

async function start() {
  const first = lines[0].dataset.row;
  const datasets = { rows: data.rows, curves: curvesOf([first]), confusion: confusionOf(first) };
  const options = { actions: { export: true, source: false, compiled: false, editor: false }, renderer: "svg" };
  await Promise.all([...document.querySelectorAll(".chart")].map(async (place) => {
    const spec = { ...data.charts[place.dataset.chart], datasets };
    views[place.dataset.chart] = (await vegaEmbed(place, spec, options)).view;
  }));
  for (const header of table.tHead.querySelectorAll("[aria-sort]")) {
    header.firstElementChild.addEventListener("click", () => sort(header));
  }
  part("filter").addEventListener("submit", (event) => event.preventDefault());
  part("words").addEventListener("input", filter);
  part("report").addEventListener("change", filter);
  body.addEventListener("change", () => { part("family").value = ""; curves(); });
  part("family").addEventListener("change", (event) => {
    if (event.target.value) tick(event.target.value.split(" "));
  });
  part("none").addEventListener("click", () => { part("family").value = ""; tick([]); });
  part("one").addEventListener("change", (event) => { location.hash = `row-${event.target.value}`; });
  addEventListener("hashchange", follow);
  addEventListener("click", (event) => { // a link to the row where one is changes no hash
    const link = event.target.closest("a[href^='#row-']");
    if (link && link.hash === location.hash) { event.preventDefault(); follow(); }
  });
  const [, family] = part("family").options;
  if (family) family.selected = true;
  await tick(family ? family.value.split(" ") : [first]);
  one(first);
  follow();
  document.documentElement.dataset.ready = "yes";
}

start();

// Sorting and filtering of the table, and the data of the charts.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const table = document.getElementById("table");
const body = table.tBodies[0];
const lines = [...body.rows];
const views = {};
const byId = (id) => document.getElementById(id);

const isSelected = (line) => line.querySelector("input").checked;

// numerically if all cells are numbers; empty cells are last in both directions
function ordered(column, sign) {
  const value = (line) => column ? line.cells[column].dataset.value : Number(!isSelected(line));
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
  const words = byId("words").value.toLowerCase().split(/\s+/).filter(Boolean);
  const report = byId("report").value;
  const shown = new Set();
  for (const line of lines) {
    line.hidden = (report !== "" && line.dataset.report !== report) ||
      !words.every((word) => line.dataset.words.includes(word));
    if (!line.hidden) shown.add(line.dataset.row);
  }
  byId("nothing").hidden = shown.size > 0;
  byId("count").textContent = `${shown.size} of ${lines.length} rows`;
  const rows = data.rows.filter((row) => shown.has(row.row));
  for (const name of ["macs", "parameters"]) setData(name, "rows", rows);
}

function setData(chart, name, values) {
  return views[chart].data(name, values).resize().runAsync();
}

function selectedRows() {
  return lines.filter(isSelected).map((line) => line.dataset.row);
}

function curvesOf(names) {
  return names.flatMap((row) => data.curves[row]);
}

let lastDrawing = 0; // a selection that changes while curves are drawn is drawn after them

async function drawCurves() {
  const names = selectedRows(), drawing = ++lastDrawing;
  table.tHead.rows[0].cells[0].setAttribute("aria-sort", "none"); // the selection has changed
  for (const chart of byId("curves").querySelectorAll(".chart")) chart.hidden = names.length === 0;
  byId("unchosen").hidden = names.length > 0;
  if (names.length === 0) return byId("chosen").replaceChildren();
  dispatchEvent(new Event("resize")); // hidden charts have missed changes of the page's width
  for (const name of ["loss", "accuracy", "lr"]) await setData(name, "curves", curvesOf(names));
  if (drawing !== lastDrawing) return;
  const colour = views.loss.scale("color");
  const firstWith = {}; // identical curves cover each other: the legend says so
  byId("chosen").replaceChildren(...names.map((row) => {
    const item = document.createElement("li");
    const points = JSON.stringify(data.curves[row].map((point) => ({ ...point, row: "" })));
    item.textContent = points in firstWith ? `${row}, identical to ${firstWith[points]}` : row;
    firstWith[points] ??= row;
    item.style.setProperty("--colour", colour(row));
    return item;
  }));
}

function select(names) {
  for (const line of lines) line.querySelector("input").checked = names.includes(line.dataset.row);
  return drawCurves();
}

// every pair of classes, also those that do not occur
function confusionOf(name) {
  const { classes, counts } = data.confusion[name];
  const sums = classes.map((_, label) =>
    counts.reduce((sum, [other, , count]) => sum + (other === label ? count : 0), 0));
  const byPair = new Map(counts.map(([label, predicted, count]) => [`${label} ${predicted}`, count]));
  return classes.flatMap((truth, label) => classes.map((other, predicted) => {
    const images = byPair.get(`${label} ${predicted}`) || 0;
    return { true: truth, predicted: other, images, fraction: sums[label] ? images / sums[label] : 0 };
  }));
}

function showDetails(name) {
  byId("one").value = name;
  for (const article of document.querySelectorAll("article")) article.hidden = article.id !== `row-${name}`;
  setData("confusion", "confusion", confusionOf(name));
}

function followHash() {
  const name = decodeURIComponent(location.hash.replace(/^#row-/, ""));
  if (name in data.confusion && location.hash.startsWith("#row-")) {
    showDetails(name);
    byId("detail").scrollIntoView();
  }
}

async function start() {
  const first = lines[0].dataset.row;
  const datasets = { rows: data.rows, curves: curvesOf([first]), confusion: confusionOf(first) };
  const options = { actions: { export: true, source: false, compiled: false, editor: false }, renderer: "svg" };
  await Promise.all([...document.querySelectorAll(".chart")].map(async (element) => {
    const spec = { ...data.charts[element.dataset.chart], datasets };
    views[element.dataset.chart] = (await vegaEmbed(element, spec, options)).view;
  }));
  for (const header of table.tHead.querySelectorAll("[aria-sort]")) {
    header.firstElementChild.addEventListener("click", () => sort(header));
  }
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  byId("words").addEventListener("input", filter);
  byId("report").addEventListener("change", filter);
  body.addEventListener("change", () => { byId("family").value = ""; drawCurves(); });
  byId("family").addEventListener("change", (event) => {
    if (event.target.value) select(event.target.value.split(" "));
  });
  byId("none").addEventListener("click", () => { byId("family").value = ""; select([]); });
  byId("one").addEventListener("change", (event) => { location.hash = `row-${event.target.value}`; });
  addEventListener("hashchange", followHash);
  addEventListener("click", (event) => { // a link to the current hash fires no hashchange
    const link = event.target.closest("a[href^='#row-']");
    if (link && link.hash === location.hash) { event.preventDefault(); followHash(); }
  });
  const [, family] = byId("family").options;
  if (family) family.selected = true;
  await select(family ? family.value.split(" ") : [first]);
  showDetails(first);
  followHash();
  document.documentElement.dataset.ready = "yes";
}

start();

"use strict";
document.documentElement.classList.add("js");

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const graph = document.querySelector(".graph");
const svg = graph.querySelector("svg");
const tables = data.tables.map((_, i) => byId("t" + i));
const columns = data.columns.map((_, i) => byId("c" + i));
const rowOf = (column) => columns[column].parentElement;
const tableOf = (column) => data.columns[column][0];
const nameOf = (column) => data.tables[tableOf(column)] + "." + data.columns[column][1];

const sources = new Map(), results = new Map(), rowSources = new Map(), rowResults = new Map();
const push = (map, key, value) => map.has(key) ? map.get(key).push(value) : map.set(key, [value]);
const joined = new Map();
const join = (from, to) => joined.set(from + ">" + to, [from, to]);
for (const [from, to] of data.values) {
  push(sources, to, from);
  push(results, from, to);
  join(tableOf(from), tableOf(to));
}
for (const [from, table] of data.rows) {
  push(rowSources, table, from);
  push(rowResults, from, table);
  join(tableOf(from), table);
}

const madeOf = new Map();
for (const [from, to] of joined.values()) if (from !== to) push(madeOf, from, to);

let chosen = null;
let lines = [];

/** All columns that lie in one direction of a column, with the steps that lead there. */
function reach(start, next) {
  const found = new Set([start]), steps = [];
  for (const column of found) {
    for (const other of next.get(column) || []) {
      steps.push([column, other]);
      found.add(other);
    }
  }
  found.delete(start);
  return { found, steps };
}

function unlight() {
  document.body.classList.remove("lit-graph");
  graph.classList.remove("lit");
  for (const table of tables) table.classList.remove("some", "rows");
  for (const column of columns) {
    column.parentElement.classList.remove("lit", "up", "down", "chosen", "hit");
    column.removeAttribute("aria-current");
  }
  for (const more of graph.querySelectorAll(".more")) more.textContent = "";
  lines = [];
}

function light(column, kind) {
  rowOf(column).classList.add("lit", kind);
  tables[tableOf(column)].classList.add("some");
}

function countHidden() {
  for (const table of tables) {
    if (!table.classList.contains("some")) continue;
    const all = table.querySelectorAll("li").length, lit = table.querySelectorAll("li.lit").length;
    table.querySelector(".more").textContent = lit && lit < all ? "of " + all + " columns" : "";
  }
}

function choose(column, scroll) {
  unlight();
  chosen = column;
  byId("answer").hidden = column === null;
  if (column === null) {
    history.replaceState(null, "", location.pathname + location.search);
    draw();
    return;
  }
  byId("search").value = "";
  byId("found").textContent = "";
  document.body.classList.add("lit-graph");
  graph.classList.add("lit");
  const up = reach(column, sources), down = reach(column, results);
  for (const each of up.found) light(each, "up");
  for (const each of down.found) light(each, "down");
  light(column, "chosen");
  columns[column].setAttribute("aria-current", "true");
  const made = new Set([column, ...down.found]);
  const touched = new Map();
  for (const each of made) for (const table of rowResults.get(each) || []) if (!touched.has(table)) touched.set(table, columns[each]);
  const filtered = new Set(touched.keys());
  // Without a table, those that are made of it cannot be built: the map grows while it is walked.
  for (const [table] of touched) {
    for (const next of madeOf.get(table) || []) if (!touched.has(next)) touched.set(next, tables[table].querySelector(".head"));
  }
  for (const [table, by] of touched) {
    if (!tables[table].classList.contains("some")) tables[table].classList.add("rows");
    tables[table].classList.add("some");
    lines.push({ from: by, to: tables[table].querySelector(".head"), kind: "down rows" });
  }
  const own = (rowSources.get(tableOf(column)) || []).filter((each) => !up.found.has(each));
  lines.push(...up.steps.map(([to, from]) => ({ from: columns[from], to: columns[to], kind: "up" })));
  lines.push(...down.steps.map(([from, to]) => ({ from: columns[from], to: columns[to], kind: "down" })));
  countHidden();
  tell(column, up.found, down.found, touched, filtered, own);
  history.replaceState(null, "", "#" + encodeURIComponent(nameOf(column)));
  draw();
  if (scroll) rowOf(column).scrollIntoView({ block: "center", inline: "center" });
}

function counted(count, one) {
  return count.toLocaleString("en") + " " + one + (count === 1 ? "" : "s");
}

function tell(column, up, down, touched, filtered, own) {
  const [, , type, about] = data.columns[column];
  byId("chosen").textContent = nameOf(column);
  byId("note").textContent = [type, about, data.made[column]].filter(Boolean).join(" · ");
  const sum = (found) => counted(found.size, "column") + " of " + counted(new Set([...found].map(tableOf)).size, "table");
  byId("up-title").textContent = up.size ? "Comes from " + sum(up) : data.made[column] ? "Made here" : "Comes from outside";
  byId("down-title").textContent = down.size || touched.size ? "Breaks if it goes: " + sum(down) : "Nothing is made of it";
  list(byId("up"), up, own.length ? [["its rows depend on", own]] : []);
  const rest = [...touched.keys()].filter((table) => ![...down].some((each) => tableOf(each) === table));
  const why = (table) => filtered.has(table) ? "filters, joins or orders by it" : "made of a table that breaks";
  list(byId("down"), down, [], rest.map((table) => [table, why(table)]));
}

function list(place, found, more, bare = []) {
  const groups = new Map();
  for (const column of [...found].sort((a, b) => a - b)) push(groups, data.tables[tableOf(column)], column);
  place.replaceChildren();
  const body = document.createElement("dl");
  for (const [name, members] of [...groups, ...more]) {
    const head = document.createElement("dt"), cell = document.createElement("dd");
    head.textContent = name;
    for (const column of members) {
      const link = document.createElement("button");
      link.type = "button";
      link.textContent = more.some((each) => each[1] === members) ? nameOf(column) : data.columns[column][1];
      link.addEventListener("click", () => choose(column, true));
      cell.append(link);
    }
    body.append(head, cell);
  }
  for (const [table, why] of bare) {
    const head = document.createElement("dt"), cell = document.createElement("dd");
    head.textContent = data.tables[table];
    cell.textContent = why;
    body.append(head, cell);
  }
  if (body.children.length) place.append(body);
}

/** Lines between tables; and between columns where one is chosen. */
function draw() {
  const area = graph.getBoundingClientRect();
  const line = (from, to, kind) => {
    const a = from.getBoundingClientRect(), b = to.getBoundingClientRect();
    if (!a.height || !b.height) return;
    const x1 = a.right - area.left, y1 = a.top + a.height / 2 - area.top;
    const x2 = b.left - area.left, y2 = b.top + b.height / 2 - area.top;
    const bend = Math.max(18, Math.min(90, (x2 - x1) / 2));
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`);
    if (kind) path.setAttribute("class", kind);
    svg.append(path);
  };
  svg.replaceChildren();
  if (chosen === null) {
    for (const [from, to] of joined.values()) line(tables[from].querySelector(".head"), tables[to].querySelector(".head"), "");
  }
  for (const each of lines) line(each.from, each.to, each.kind);
}

function search() {
  const words = byId("search").value.trim().toLowerCase().split(/[\s.]+/).filter(Boolean);
  if (chosen !== null) choose(null);
  unlight();
  const hits = [];
  if (words.length) {
    document.body.classList.add("lit-graph");
    data.columns.forEach(([table, name], i) => {
      const text = (data.tables[table] + "." + name).toLowerCase();
      if (words.every((word) => text.includes(word)) && name.toLowerCase().includes(words[words.length - 1])) hits.push(i);
    });
    for (const hit of hits) light(hit, "hit");
    data.tables.forEach((name, i) => {
      if (words.every((word) => name.toLowerCase().includes(word))) tables[i].classList.add("some");
    });
    countHidden();
  }
  const named = graph.querySelectorAll("article.some").length;
  byId("found").textContent = words.length ? counted(hits.length, "column") + ", " + counted(named, "table") : "";
  draw();
  return hits;
}

function age(time) {
  const seconds = Math.max(0, (Date.now() - Date.parse(time)) / 1000);
  for (const [length, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= length) return Math.floor(seconds / length).toLocaleString("en") + " " + unit + " ago";
  }
  return "just now";
}

for (const time of document.querySelectorAll("time")) {
  time.title = "materialized " + time.textContent + " UTC";
  time.textContent = age(time.dateTime);
}
tables.forEach((table) => {
  const head = table.querySelector(".head");
  head.setAttribute("aria-expanded", "false");
  head.addEventListener("click", () => {
    head.setAttribute("aria-expanded", String(table.classList.toggle("open")));
    draw();
  });
});
columns.forEach((column, i) => column.addEventListener("click", () => choose(i === chosen ? null : i)));
byId("all").addEventListener("click", () => {
  const open = byId("all").getAttribute("aria-pressed") !== "true";
  byId("all").setAttribute("aria-pressed", String(open));
  for (const table of tables) {
    table.classList.toggle("open", open);
    table.querySelector(".head").setAttribute("aria-expanded", String(open));
  }
  draw();
});
byId("clear").addEventListener("click", () => choose(null));
byId("search").addEventListener("input", search);
byId("search").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault(); // else the button that gets the focus is pressed as well
  const [first] = search();
  if (first !== undefined) {
    choose(first, true);
    columns[first].focus({ preventScroll: true });
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== byId("search")) {
    event.preventDefault();
    byId("search").focus();
  } else if (event.key === "Escape") {
    byId("search").value = "";
    search();
    if (chosen !== null) choose(null);
  }
});
addEventListener("resize", draw);
let linked = location.hash.slice(1);
try {
  linked = decodeURIComponent(linked);
} catch {
  // cut off, as by a mail: it names no column, and the page opens without one
}
const first = linked ? data.columns.findIndex((_, i) => nameOf(i) === linked) : data.chosen ?? -1;
if (first >= 0) choose(first, true);
else draw();

"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const count = data.x.length;
const canvas = document.querySelector("canvas");
const chart = canvas.parentElement;
const readout = document.querySelector(".readout");
const search = document.querySelector("input");
const told = document.querySelector("output");
const buttons = [...document.querySelectorAll(".list button")];
const dark = matchMedia("(prefers-color-scheme: dark)");
const NAMED = 12, NEAR = 12, RIM = 30, MOST_ZOOM = 200;

/** Of data to pixels: x * scale + left, and the same downwards. */
let view = null;
let colours = [];
let shown = new Uint8Array(count).fill(1);
let hovered = -1;

const members = data.clusters.map(() => []);
data.cluster.forEach((place, n) => members[place].push(n));

/** The middle of a cluster, which strays do not move. */
const middles = members.map((of) => {
  const middle = (values) => of.map((n) => values[n]).sort((a, b) => a - b)[of.length >> 1];
  return [middle(data.x), middle(data.y)];
});

function paint() {
  const style = getComputedStyle(document.documentElement);
  const light = style.getPropertyValue("--light"), none = style.getPropertyValue("--none");
  // Ids that follow each other are far apart on the wheel.
  colours = data.clusters.map(([id]) => id < 0 ? none : `hsl(${(id * 137.508) % 360} 62% ${light})`);
  buttons.forEach((button, n) => { button.firstElementChild.style.background = colours[n]; });
}

function size() {
  return [chart.clientWidth, chart.clientHeight];
}

function whole() {
  const [width, height] = size();
  let left = Infinity, right = -Infinity, top = Infinity, bottom = -Infinity;
  for (let n = 0; n < count; n++) {
    left = Math.min(left, data.x[n]); right = Math.max(right, data.x[n]);
    top = Math.min(top, data.y[n]); bottom = Math.max(bottom, data.y[n]);
  }
  if (!count) left = right = top = bottom = 0;
  const fits = Math.min((width - 2 * RIM) / (right - left || 1), (height - 2 * RIM) / (bottom - top || 1));
  const scale = Math.max(fits, 1e-6);
  view = { scale, least: scale, x: (width - scale * (left + right)) / 2, y: (height - scale * (top + bottom)) / 2 };
}

const at = (n) => [data.x[n] * view.scale + view.x, data.y[n] * view.scale + view.y];

function draw() {
  const [width, height] = size(), dense = devicePixelRatio || 1;
  canvas.width = width * dense;
  canvas.height = height * dense;
  const pen = canvas.getContext("2d");
  pen.scale(dense, dense);
  const radius = Math.max(1.5, Math.min(5, 90 / Math.sqrt(count || 1))) * Math.min(2, Math.sqrt(view.scale / view.least));
  for (const visible of [0, 1]) {
    pen.globalAlpha = visible ? 0.85 : 0.12;
    members.forEach((of, place) => {
      pen.fillStyle = colours[place];
      for (const n of of) {
        if (shown[n] !== visible) continue;
        const [x, y] = at(n);
        if (x < -radius || y < -radius || x > width + radius || y > height + radius) continue;
        pen.beginPath();
        pen.arc(x, y, radius, 0, 2 * Math.PI);
        pen.fill();
      }
    });
  }
  pen.globalAlpha = 1;
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink");
  if (hovered >= 0) {
    pen.strokeStyle = ink;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(...at(hovered), radius + 3, 0, 2 * Math.PI);
    pen.stroke();
  }
  name(pen, width, height, ink, style.getPropertyValue("--card"));
}

/** Write the names of the largest clusters of those that are seen, where there is room. */
function name(pen, width, height, ink, card) {
  pen.font = "600 12px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.lineJoin = "round";
  const taken = [];
  for (let place = 0; place < members.length && taken.length < NAMED; place++) {
    const [id, label] = data.clusters[place];
    if (id < 0 || !members[place].some((n) => shown[n])) continue;
    const half = pen.measureText(label).width / 2 + 4;
    const middle = middles[place][0] * view.scale + view.x, y = middles[place][1] * view.scale + view.y - 14;
    if (middle < 0 || middle > width || y < 16 || y > height) continue;
    const x = Math.max(half, Math.min(middle, width - half));
    if (taken.some(([a, b, c]) => Math.abs(a - x) < half + c && Math.abs(b - y) < 16)) continue;
    taken.push([x, y, half]);
    pen.strokeStyle = card;
    pen.lineWidth = 4;
    pen.strokeText(label, x, y);
    pen.fillStyle = ink;
    pen.fillText(label, x, y);
  }
}

function filter() {
  const chosen = new Set(buttons.filter((b) => b.ariaPressed === "true").map((b) => Number(b.dataset.place)));
  const words = search.value.trim().toLowerCase();
  let seen = 0;
  for (let n = 0; n < count; n++) {
    const holds = !words || data.title[n].toLowerCase().includes(words) || data.id[n].toLowerCase().includes(words);
    shown[n] = holds && (!chosen.size || chosen.has(data.cluster[n])) ? 1 : 0;
    seen += shown[n];
  }
  told.textContent = chosen.size || words ? `${seen.toLocaleString("en")} of ${count.toLocaleString("en")}` : "";
  hover(-1);
  draw();
}

function nearest(x, y) {
  let best = -1, least = NEAR * NEAR;
  for (let n = 0; n < count; n++) {
    if (!shown[n]) continue;
    const [a, b] = at(n), apart = (a - x) ** 2 + (b - y) ** 2;
    if (apart < least) { least = apart; best = n; }
  }
  return best;
}

function hover(n) {
  const changed = n !== hovered;
  hovered = n;
  canvas.classList.toggle("near", n >= 0);
  readout.hidden = n < 0;
  if (n < 0) return changed;
  const title = document.createElement("b"), lines = [title];
  title.textContent = data.title[n];
  // What has one text has one place, too.
  const same = members[data.cluster[n]].filter((m) => data.x[m] === data.x[n] && data.y[m] === data.y[n]).length - 1;
  const said = [data.title[n] === data.id[n] ? "" : data.id[n], data.clusters[data.cluster[n]][1], same ? `and ${same} more here` : ""];
  for (const line of said.filter(Boolean)) {
    const span = document.createElement("span");
    span.textContent = line;
    lines.push(span);
  }
  readout.replaceChildren(...lines);
  const [width, height] = size(), [x, y] = at(n);
  readout.style.left = `${Math.max(0, Math.min(x + 14, width - readout.offsetWidth))}px`;
  readout.style.top = `${y + 14 + readout.offsetHeight > height ? Math.max(0, y - 14 - readout.offsetHeight) : y + 14}px`;
  return changed;
}

const inside = (event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

let drag = null;
canvas.addEventListener("pointerdown", (event) => {
  drag = inside(event);
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  const [x, y] = inside(event);
  if (drag) {
    view.x += x - drag[0];
    view.y += y - drag[1];
    drag = [x, y];
    hover(-1);
    draw();
  } else if (hover(nearest(x, y))) draw();
});
for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { drag = null; });
canvas.addEventListener("pointerleave", () => { if (hover(-1)) draw(); });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const [x, y] = inside(event), wanted = view.scale * Math.exp(-event.deltaY / 400);
  const scale = Math.max(view.least / 2, Math.min(view.least * MOST_ZOOM, wanted)), times = scale / view.scale;
  view.x = x - (x - view.x) * times;
  view.y = y - (y - view.y) * times;
  view.scale = scale;
  hover(-1);
  draw();
}, { passive: false });
canvas.addEventListener("dblclick", () => { whole(); draw(); });

for (const button of buttons) {
  button.addEventListener("click", () => {
    button.ariaPressed = button.ariaPressed === "true" ? "false" : "true";
    filter();
  });
}
search.addEventListener("input", filter);
document.getElementById("all").addEventListener("click", () => {
  for (const button of buttons) button.ariaPressed = "false";
  search.value = "";
  whole();
  filter();
});
dark.addEventListener("change", () => { paint(); draw(); });
new ResizeObserver(() => { whole(); draw(); }).observe(chart);

paint();
whole();
filter();

"use strict";
// The page works without this: here are sorting and filtering of tables, curves with a readout, parallel coordinates.
document.documentElement.classList.add("js");
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const chosen = new Set(data.runs.map((_, i) => i)); // by the brushes
const redraws = [];

function element(parent, name, attributes = {}, text) {
  const made = parent.namespaceURI === SVG || name === "svg" ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return value.toLocaleString("en");
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

function short(text, most) {
  return text.length > most ? text.slice(0, most - 1) + "…" : text;
}

// Tables

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const first = head.dataset.first || "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = now === first ? other : first;
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      sort(table, place, order === "ascending" ? 1 : -1);
    });
  });
}

function sort(table, place, sign) {
  const key = (row) => {
    const cell = row.cells[place];
    if (cell.classList.contains("none")) return null;
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };
  const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null); // what is not known comes last, either way
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b), "en", { numeric: true });
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

const words = document.getElementById("words");
function sift() {
  const wanted = (words ? words.value : "").toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of document.querySelectorAll("#runs tbody tr")) {
    const text = row.textContent.toLowerCase();
    const out = !chosen.has(Number(row.dataset.run)) || !wanted.every((word) => text.includes(word));
    row.classList.toggle("out", out);
    shown += !out;
  }
  const told = document.getElementById("shown");
  if (told) told.textContent = `${shown.toLocaleString("en")} of ${data.runs.length.toLocaleString("en")} runs shown`;
}
if (words) words.addEventListener("input", sift);

// Colours: one a run where there are few, from worst to best where there are many

const few = data.runs.length <= 8;
function colours() {
  const style = getComputedStyle(document.documentElement);
  const named = (name) => style.getPropertyValue(name).trim();
  if (few) return data.runs.map((_, i) => named(`--c${i}`));
  const stops = [0, 1, 2, 3, 4].map((i) => named(`--s${i}`).match(/\w\w/g).map((part) => parseInt(part, 16)));
  return data.runs.map((run) => {
    if (run.rank === null) return named("--muted");
    const at = run.rank * 4;
    const i = Math.min(3, Math.floor(at));
    const mixed = stops[i].map((from, k) => Math.round(from + (stops[i + 1][k] - from) * (at - i)));
    return `rgb(${mixed.join(" ")})`;
  });
}

// Scales

function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((each) => each >= rough) || power * 10;
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9; at++) found.push(Number((at * step).toPrecision(12)));
  return found;
}

function scale(low, high, log) {
  if (!(high > low)) {
    // One value alone: in the middle of the axis.
    const reach = Math.abs(low) * 0.1 || 1;
    [low, high] = log ? [low / 2, high * 2] : [low - reach, high + reach];
  }
  const f = log ? Math.log10 : (value) => value;
  const [a, b] = [f(low), f(high)];
  const to = (value) => (f(value) - a) / (b - a);
  to.back = (share) => (log ? 10 ** (a + share * (b - a)) : a + share * (b - a));
  to.ticks = (count) => {
    if (!log) return ticks(low, high, count);
    const whole = [];
    for (let power = Math.ceil(a - 1e-9); power <= b + 1e-9; power++) whole.push(10 ** power);
    if (whole.length >= 2) return whole.filter((_, i) => i % Math.ceil(whole.length / count) === 0);
    return ticks(low, high, count);
  };
  return to;
}

const wide = (low, high) => low > 0 && high / low >= 50;

// Learning curves

function curves() {
  const box = document.getElementById("curves");
  if (!box) return;
  const keys = [...new Set(data.curves.map((curve) => curve.key))];
  const bar = document.getElementById("curve-bar");
  const state = { key: keys[0], log: null };
  const chart = element(box, "div", { class: "chart" });
  const legend = element(box, "div", { class: "legend" });
  const buttons = keys.map((key) => {
    const button = element(bar, "button", { type: "button" }, key);
    button.addEventListener("click", () => {
      state.key = key;
      state.log = null;
      draw();
    });
    return button;
  });
  const log = element(bar, "button", { type: "button", class: "push" }, "logarithmic");
  log.addEventListener("click", () => {
    state.log = log.getAttribute("aria-pressed") !== "true";
    draw();
  });

  function draw() {
    const paint = colours();
    const shown = data.curves.filter((curve) => curve.key === state.key);
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", keys[i] === state.key));
    const [width, height, left, right, top, bottom] = [chart.clientWidth || 900, 360, 58, 12, 10, 34];
    const xs = shown.flatMap((curve) => curve.x);
    const ys = shown.flatMap((curve) => curve.y).filter((y) => y !== null);
    const bound = (values, better) => values.reduce((a, b) => (better(b, a) ? b : a), values[0]);
    const less = (a, b) => a < b, more = (a, b) => a > b;
    const [x0, x1] = [bound(xs, less), bound(xs, more)];
    const [y0, y1] = ys.length ? [bound(ys, less), bound(ys, more)] : [0, 1];
    const can = y0 > 0;
    const logged = can && (state.log === null ? wide(y0, y1) : state.log);
    log.hidden = !can;
    log.setAttribute("aria-pressed", logged);
    const pad = logged ? 0 : (y1 - y0) * 0.04;
    const sx = scale(x0, x1, false), sy = scale(y0 - pad, y1 + pad, logged);
    const px = (x) => left + sx(x) * (width - left - right);
    const py = (y) => height - bottom - sy(y) * (height - top - bottom);
    chart.replaceChildren();
    const svg = element(chart, "svg", {
      viewBox: `0 0 ${width} ${height}`, height, tabindex: 0, role: "img", "aria-label": `Learning curves: ${state.key} by step`,
    });
    for (const at of sy.ticks(5)) {
      element(svg, "line", { class: "grid", x1: left, x2: width - right, y1: py(at), y2: py(at) });
      element(svg, "text", { x: left - 8, y: py(at) + 4, "text-anchor": "end" }, number(at));
    }
    for (const at of sx.ticks(8)) {
      element(svg, "text", { x: px(at), y: height - bottom + 17, "text-anchor": "middle" }, number(at));
    }
    element(svg, "line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom });
    element(svg, "text", { x: width - right, y: height - 2, "text-anchor": "end" }, "step");
    const paths = shown.map((curve) => {
      let path = "", pen = "M";
      const lost = [];
      curve.x.forEach((x, i) => {
        if (curve.y[i] === null) {
          pen = "M";
          lost.push(x);
          return;
        }
        path += `${pen}${px(x).toFixed(1)},${py(curve.y[i]).toFixed(1)}`;
        pen = "L";
      });
      const line = element(svg, "path", { class: "line", d: path, "data-run": curve.run });
      line.style.stroke = paint[curve.run];
      line.classList.toggle("dim", !chosen.has(curve.run));
      for (const x of lost) {
        const mark = element(svg, "text", { class: "lost", x: px(x), y: height - bottom - 3, "text-anchor": "middle" }, "×");
        mark.style.fill = paint[curve.run];
      }
      return line;
    });
    const guide = element(svg, "line", { class: "guide", y1: top, y2: height - bottom, visibility: "hidden" });
    const readout = element(chart, "div", { class: "readout", hidden: "" });
    const higher = data.higher[state.key];

    function point(x, y) {
      const rows = [];
      shown.forEach((curve, i) => {
        if (!chosen.has(curve.run)) return;
        const at = nearest(curve.x, x);
        // A curve that ended before, or starts later, has no value here.
        const reach = (x1 - x0) / 100;
        if (x < curve.x[0] - reach || x > curve.x[curve.x.length - 1] + reach) return;
        rows.push({ i, run: curve.run, value: curve.y[at], x: curve.x[at] });
      });
      if (!rows.length) return leave();
      const near = y === null ? null : rows.reduce((a, b) => (gap(b) < gap(a) ? b : a));
      function gap(row) {
        return row.value === null ? Infinity : Math.abs(py(row.value) - y);
      }
      rows.sort((a, b) => (a.value === null) - (b.value === null) || (higher ? b.value - a.value : a.value - b.value));
      paths.forEach((path, i) => path.classList.toggle("strong", near !== null && near.i === i));
      const place = px(x);
      guide.setAttribute("x1", place);
      guide.setAttribute("x2", place);
      guide.setAttribute("visibility", "visible");
      readout.replaceChildren();
      element(readout, "b", {}, `step ${number(Math.round(x))}`);
      const most = 14;
      const listed = rows.slice(0, most);
      if (near && !listed.includes(near)) listed[most - 1] = near;
      for (const row of listed) {
        const line = element(readout, "div", near === row ? { class: "near" } : {});
        element(line, "i").style.background = paint[row.run];
        element(line, "span", {}, short(data.runs[row.run].label, 40));
        element(line, "em", {}, row.value === null ? "not finite" : number(row.value)).style.fontStyle = "normal";
      }
      if (rows.length > most) element(readout, "div", {}, `and ${rows.length - most} more`);
      readout.hidden = false;
      const share = place / width;
      readout.style.left = share > 0.55 ? "auto" : `${share * 100 + 1.5}%`;
      readout.style.right = share > 0.55 ? `${(1 - share) * 100 + 1.5}%` : "auto";
    }

    function leave() {
      guide.setAttribute("visibility", "hidden");
      readout.hidden = true;
      for (const path of paths) path.classList.remove("strong");
    }

    const steps = [...new Set(xs)].sort((a, b) => a - b);
    svg.addEventListener("pointermove", (event) => {
      const area = svg.getBoundingClientRect();
      const share = ((event.clientX - area.left) * (width / area.width) - left) / (width - left - right);
      if (share < -0.01 || share > 1.01) return leave();
      point(steps[nearest(steps, sx.back(Math.min(1, Math.max(0, share))))], (event.clientY - area.top) * (height / area.height));
    });
    svg.addEventListener("pointerleave", leave);
    let place = -1;
    svg.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      event.preventDefault();
      place = Math.min(steps.length - 1, Math.max(0, place + move));
      point(steps[place], null);
    });
    svg.addEventListener("blur", leave);

    legend.replaceChildren();
    if (few) {
      for (const run of new Set(shown.map((curve) => curve.run))) {
        const line = element(legend, "span", { title: data.runs[run].label });
        element(line, "i").style.background = paint[run];
        line.append(short(data.runs[run].label, 40));
      }
    } else ramp(legend);
  }
  redraws.push(draw);
  draw();
  onResize(chart, draw);
}

function nearest(sorted, x) {
  let [low, high] = [0, sorted.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= x) low = middle;
    else high = middle;
  }
  return Math.abs(sorted[low] - x) <= Math.abs(sorted[high] - x) ? low : high;
}

function ramp(legend) {
  if (!data.metric) return;
  const line = element(legend, "span");
  line.append(`${short(data.metric, 40)}: worst`);
  element(line, "i", { class: "ramp" });
  line.append("best");
}

function onResize(box, draw) {
  let width = box.clientWidth;
  new ResizeObserver(() => {
    if (box.clientWidth === width) return;
    width = box.clientWidth;
    draw();
  }).observe(box);
}

// Parallel coordinates

function parallel() {
  const box = document.getElementById("parallel");
  if (!box) return;
  const chart = element(box, "div", { class: "chart" });
  const legend = element(box, "div", { class: "legend" });
  const brushes = new Map(); // by axis: [from, to], shares of the height from below
  const clear = document.getElementById("clear");
  clear.addEventListener("click", () => {
    brushes.clear();
    choose();
    draw();
  });
  const axes = data.axes.map((axis) => {
    const known = axis.values.filter((value) => value !== null);
    const distinct = new Set(known).size;
    if (axis.numeric && distinct > 6) {
      const low = known.reduce((a, b) => Math.min(a, b)), high = known.reduce((a, b) => Math.max(a, b));
      const log = wide(low, high);
      const to = scale(low, high, log);
      return { ...axis, log, at: to, ticks: () => to.ticks(5) };
    }
    // Words, and numbers of which there are few: at equal distances.
    const inOrder = (a, b) => (axis.numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
    const names = [...new Set(known)].sort(inOrder);
    const place = new Map(names.map((name, i) => [name, names.length > 1 ? i / (names.length - 1) : 0.5]));
    const every = Math.ceil(names.length / 12);
    return { ...axis, at: (value) => place.get(value), ticks: () => names.filter((_, i) => i % every === 0) };
  });

  const share = (axis, run) => (axis.values[run] === null ? -0.09 : axis.at(axis.values[run]));

  function choose() {
    chosen.clear();
    data.runs.forEach((_, run) => {
      const inside = [...brushes].every(([i, [from, to]]) => share(axes[i], run) >= from && share(axes[i], run) <= to);
      if (inside) chosen.add(run);
    });
    clear.hidden = !brushes.size;
    document.getElementById("brushed").textContent = brushes.size
      ? `${chosen.size.toLocaleString("en")} of ${data.runs.length.toLocaleString("en")} runs chosen`
      : "Drag along an axis to choose runs";
    sift();
    for (const redraw of redraws) redraw();
  }

  let lines = [];
  function draw() {
    const paint = colours();
    const [width, height, side, top, bottom] = [chart.clientWidth || 900, 340, 56, 40, 40];
    const x = (i) => (axes.length > 1 ? side + (i * (width - 2 * side)) / (axes.length - 1) : width / 2);
    const y = (part) => height - bottom - part * (height - top - bottom);
    chart.replaceChildren();
    const svg = element(chart, "svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": "Parallel coordinates" });
    const dense = Math.max(0.25, Math.min(0.9, 40 / data.runs.length));
    // The better ones on top.
    const order = data.runs.map((_, i) => i).sort((a, b) => (data.runs[a].rank ?? -1) - (data.runs[b].rank ?? -1));
    lines = order.map((run) => {
      const path = axes.map((axis, i) => `${i ? "L" : "M"}${x(i).toFixed(1)},${y(share(axis, run)).toFixed(1)}`).join("");
      const line = element(svg, "path", { class: "line", d: path });
      line.style.stroke = paint[run];
      element(line, "title", {}, data.runs[run].label);
      return [run, line];
    });
    const tint = () => {
      for (const [run, line] of lines) {
        line.style.opacity = chosen.has(run) ? dense : 0.05;
        line.style.strokeWidth = run === best ? 3 : 1.5;
      }
    };
    const best = data.runs.findIndex((run) => run.rank === 1);
    tint();
    axes.forEach((axis, i) => {
      element(svg, "line", { class: "axis", x1: x(i), x2: x(i), y1: y(0), y2: y(1) });
      const room = axes.length > 1 ? Math.max(6, Math.floor((width - 2 * side) / (axes.length - 1) / 7)) : 60;
      const title = element(svg, "text", { class: "title", x: x(i), y: 16, "text-anchor": "middle" }, short(axis.key, room));
      element(title, "title", {}, axis.key);
      if (axis.log) element(svg, "text", { x: x(i), y: 30, "text-anchor": "middle" }, "log");
      const last = i === axes.length - 1 && axes.length > 1;
      for (const value of axis.ticks()) {
        const text = axis.numeric ? number(value) : short(value, 14);
        const place = { x: x(i) + (last ? -6 : 6), y: y(axis.at(value)) + 4, "text-anchor": last ? "end" : "start" };
        const label = element(svg, "text", place, text);
        label.style.paintOrder = "stroke";
        label.style.stroke = "var(--card)";
        label.style.strokeWidth = "3px";
      }
      if (axis.values.some((value) => value === null)) {
        element(svg, "text", { x: x(i), y: y(-0.09) + 14, "text-anchor": "middle" }, "none");
      }
      const brush = brushes.get(i);
      const mark = element(svg, "rect", { class: "brush", x: x(i) - 8, width: 16, visibility: brush ? "visible" : "hidden" });
      const hit = element(svg, "rect", { class: "hit", x: x(i) - 16, y: y(1) - 8, width: 32, height: y(-0.12) - y(1) + 12, "data-axis": i });
      const put = ([from, to]) => {
        mark.setAttribute("y", y(to));
        mark.setAttribute("height", Math.max(2, y(from) - y(to)));
        mark.setAttribute("visibility", "visible");
      };
      if (brush) put(brush);
      let start = null, moved = false;
      const at = (event) => {
        const area = svg.getBoundingClientRect();
        return (height - bottom - (event.clientY - area.top) * (height / area.height)) / (height - top - bottom);
      };
      hit.addEventListener("pointerdown", (event) => {
        start = at(event);
        moved = false;
        hit.setPointerCapture(event.pointerId);
      });
      hit.addEventListener("pointermove", (event) => {
        if (start === null || (!moved && Math.abs(at(event) - start) < 0.01)) return;
        moved = true;
        const range = [Math.min(start, at(event)), Math.max(start, at(event))];
        brushes.set(i, range);
        put(range);
      });
      hit.addEventListener("pointerup", () => {
        start = null;
        if (!moved) {
          brushes.delete(i);
          mark.setAttribute("visibility", "hidden");
        }
        choose();
        tint();
      });
    });
    legend.replaceChildren();
    if (few) {
      data.runs.forEach((run, i) => {
        const line = element(legend, "span", { title: run.label });
        element(line, "i").style.background = paint[i];
        line.append(short(run.label, 40));
      });
    } else ramp(legend);
  }
  draw();
  onResize(chart, draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

curves();
parallel();
sift();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraws.forEach((redraw) => redraw()));

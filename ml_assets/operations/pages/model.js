"use strict";
// The page works without this: it reads out the day below the pointer, or the one that the arrow keys choose.
document.documentElement.classList.add("js");
const data = JSON.parse(document.getElementById("data").textContent);

function element(parent, name, attributes = {}, text) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

// The newest days are on the right, where a narrow page would hide them.
for (const map of document.querySelectorAll(".scroll.map")) map.scrollLeft = map.scrollWidth;

for (const chart of data.charts) {
  const plot = document.getElementById(chart.name);
  if (!plot) continue;
  const guide = element(plot, "div", { class: "guide", hidden: "" });
  const readout = element(plot, "div", { class: "readout", role: "status", hidden: "" });
  const count = chart.days.length;
  let place = -1;

  function show(day) {
    place = Math.min(count - 1, Math.max(0, day));
    const share = (place + 0.5) / count;
    guide.style.left = `${share * 100}%`;
    readout.replaceChildren();
    element(readout, "b", {}, chart.days[place]);
    let known = 0;
    for (const row of chart.rows) {
      if (row.values[place] === null) continue;
      known++;
      const line = element(readout, "div");
      element(line, "i", { class: row.style });
      element(line, "span", {}, row.name);
      line.append(row.values[place]);
    }
    if (!known) element(readout, "em", {}, "nothing measured");
    for (const note of chart.notes[place]) element(readout, "span", { class: "said" }, note);
    guide.hidden = readout.hidden = false;
    // On the other side of the line from where there is less room.
    const width = plot.clientWidth, own = readout.offsetWidth, at = share * width;
    readout.style.left = `${Math.max(0, Math.min(width - own, share > 0.5 ? at - own - 12 : at + 12))}px`;
  }

  function leave() {
    guide.hidden = readout.hidden = true;
    place = -1;
  }

  plot.addEventListener("pointermove", (event) => {
    const area = plot.getBoundingClientRect();
    show(Math.floor(((event.clientX - area.left) / area.width) * count));
  });
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("blur", leave);
  plot.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return leave();
    const to = { ArrowLeft: place < 0 ? count - 1 : place - 1, ArrowRight: place + 1, Home: 0, End: count - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(to);
  });
}

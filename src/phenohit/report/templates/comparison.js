"use strict";
// Which assays each method predicts: other methods in the two charts, and the assays of a part that is chosen.
// The charts are drawn as in upset.py: change both together.

const UPSET = { wide: 640, top: 18, base: 162, first: 186, step: 25, name: 168, bar: 178, barWide: 56, x0: 268, x1: 636, broadest: 40, columns: 20 };
const VENN = {
  wide: 420, high: 348,
  circles: { 1: [[210, 168, 112]], 2: [[150, 168, 106], [270, 168, 106]], 3: [[155, 130, 92], [265, 130, 92], [210, 216, 92]] },
  regions: {
    1: { 1: [210, 168] },
    2: { 1: [98, 168], 2: [322, 168], 3: [210, 168] },
    3: { 1: [118, 112], 2: [302, 112], 4: [210, 262], 3: [210, 92], 5: [153, 190], 6: [267, 190], 7: [210, 158] },
  },
  names: { 1: [[210, 40, "middle"]], 2: [[4, 34, "start"], [416, 34, "end"]], 3: [[4, 16, "start"], [416, 16, "end"], [210, 322, "middle"]] },
};
const PLURAL = { assay: "assays", task: "tasks" };
const LISTED = 300; // assays of a part that are listed; assays.csv has all
const whole = (value) => value.toLocaleString("en");

/* As in upset.py: counts are tenths of a unit at most. */
function svgText(x, y, words, anchor = "middle", more = {}) {
  const made = drawn("text", { ...more, x: x.toFixed(1), y: y.toFixed(1), "text-anchor": anchor });
  made.textContent = words;
  return made;
}
const svgRect = (name, x, y, wide, high) => drawn("rect", { class: name, x: x.toFixed(1), y: y.toFixed(1), width: wide.toFixed(1), height: Math.max(high, 0).toFixed(1) });

function marksUpTo(most) {
  const raw = most / 4, size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((f) => f * size).find((f) => f >= raw * 0.999);
  const found = [];
  for (let k = 0; k <= Math.ceil(most / step - 1e-9); k += 1) found.push(Number((k * step).toPrecision(10)));
  return found.filter((value) => Number.isInteger(value));
}

function exactly(labels, nMethods, n, unit) {
  const who = labels.length > 1 ? `${labels.slice(0, -1).join(", ")} and ${labels.at(-1)}` : labels[0];
  return `${who}${labels.length === nMethods ? "" : ", no other of these"}: ${whole(n)} ${n === 1 ? unit : PLURAL[unit]}`;
}

/* Items by the exact combination of the given methods: largest first, then fewest methods, then their order. */
function combined(facts, unit, level, methods) {
  const held = new Map();
  methods.forEach((method, k) => {
    for (const item of facts.units[unit].above[level][method]) held.set(item, (held.get(item) || 0) | (1 << k));
  });
  const parts = new Map();
  for (const [item, mask] of held) parts.set(mask, [...(parts.get(mask) || []), item]);
  const found = [...parts].map(([mask, items]) => ({ mask, sets: methods.map((_, k) => k).filter((k) => mask & (1 << k)), items: items.sort((a, b) => a - b) }));
  const later = (a, b) => a.findIndex((value, i) => value !== b[i]);
  return found.sort((a, b) => b.items.length - a.items.length || a.sets.length - b.sets.length || a.sets[later(a.sets, b.sets)] - b.sets[later(a.sets, b.sets)]);
}

function kindOf(methods) {
  return new Set(methods.map((method) => method.kind)).size === 1 ? methods[0].kind : "mixed";
}

function drawUpset(svg, facts, unit, level, chosen) {
  const methods = chosen.map((i) => facts.methods[i]), parts = combined(facts, unit, level, chosen), columns = parts.slice(0, UPSET.columns);
  const high = UPSET.first + UPSET.step * methods.length + 18;
  const marks = marksUpTo(Math.max(1, ...columns.map((part) => part.items.length)));
  const up = (n) => UPSET.base - (UPSET.base - UPSET.top) * n / marks.at(-1);
  svg.setAttribute("viewBox", `0 0 ${UPSET.wide} ${high}`);
  svg.replaceChildren();
  for (const mark of marks) {
    svg.append(drawn("path", { class: "grid", d: `M${UPSET.x0.toFixed(1)} ${up(mark).toFixed(1)}H${UPSET.x1.toFixed(1)}` }), svgText(UPSET.x0 - 7, up(mark) + 4, whole(mark), "end"));
  }
  const [x, y] = [UPSET.x0 - 44, (UPSET.top + UPSET.base) / 2];
  svg.append(svgText(x, y, PLURAL[unit], "middle", { transform: `rotate(-90 ${x.toFixed(1)} ${y.toFixed(1)})` }));
  const sizes = chosen.map((i) => facts.units[unit].above[level][i].length), largest = Math.max(1, ...sizes);
  methods.forEach((method, i) => {
    const at = UPSET.first + UPSET.step * i, bar = UPSET.barWide * sizes[i] / largest;
    if (i % 2 === 0) svg.append(svgRect("band", 0, at - UPSET.step / 2, UPSET.wide, UPSET.step));
    svg.append(svgText(UPSET.name, at + 4, method.label, "end", { class: "name" }), svgRect(method.kind, UPSET.bar, at - 6, bar, 12), svgText(UPSET.bar + bar + 4, at + 4, whole(sizes[i]), "start"));
  });
  const step = Math.min((UPSET.x1 - UPSET.x0) / Math.max(columns.length, 1), UPSET.broadest), wide = Math.min(step * 0.62, 20);
  columns.forEach((part, i) => {
    const middle = UPSET.x0 + (i + 0.5) * step, top = up(part.items.length), inside = part.sets.map((k) => UPSET.first + UPSET.step * k);
    const dots = (places) => places.map((at) => `M${middle.toFixed(1)} ${at}h0`).join("");
    const others = methods.map((_, k) => UPSET.first + UPSET.step * k).filter((at) => !inside.includes(at));
    const own = part.sets.map((k) => methods[k]);
    const group = drawn("g", { class: "part", "data-part": i });
    group.append(
      svgRect("hit", middle - step / 2, 2, step, UPSET.first + UPSET.step * (methods.length - 1) + 10),
      svgRect(kindOf(own), middle - wide / 2, top, wide, UPSET.base - top), svgText(middle, top - 5, whole(part.items.length)),
      drawn("path", { class: "off", d: dots(others) }), drawn("path", { class: "link", d: `M${middle.toFixed(1)} ${inside[0]}V${inside.at(-1)}` }), drawn("path", { class: "on", d: dots(inside) }),
    );
    name(group, exactly(own.map((method) => method.label), methods.length, part.items.length, unit), own, part.items);
    svg.append(group);
  });
  svg.append(svgText((UPSET.x0 + UPSET.x1) / 2, high - 6, `${PLURAL[unit]} above ${level} for exactly these methods`));
  return parts.slice(UPSET.columns);
}

function drawVenn(svg, facts, unit, level, chosen) {
  const methods = chosen.map((i) => facts.methods[i]), n = methods.length, items = facts.units[unit];
  const parts = new Map(combined(facts, unit, level, chosen).map((part) => [part.mask, part.items]));
  svg.replaceChildren();
  VENN.circles[n].forEach(([cx, cy, r], k) => svg.append(drawn("circle", { class: methods[k].kind, cx, cy, r })));
  VENN.names[n].forEach(([x, y, anchor], k) => svg.append(svgText(x, y, `${methods[k].label}: ${whole(items.above[level][chosen[k]].length)}`, anchor, { class: "name" })));
  for (const [region, [cx, cy]] of Object.entries(VENN.regions[n]).sort()) {
    const inside = parts.get(Number(region)) || [], own = methods.filter((_, k) => region & (1 << k));
    const group = drawn("g", { class: "part", "data-part": region });
    group.append(drawn("circle", { class: "hit", cx, cy, r: 23 }), svgText(cx, cy + 5, whole(inside.length), "middle", { class: "count" }));
    name(group, exactly(own.map((method) => method.label), n, inside.length, unit), own, inside);
    svg.append(group);
  }
  const reached = [...parts.values()].reduce((sum, part) => sum + part.length, 0);
  svg.append(svgText(VENN.wide - 4, VENN.high - 2, `in none: ${whole(items.n - reached)} of ${whole(items.n)}`, "end"));
}

/* A part can be pointed at, tabbed to and pressed; it knows its assays. */
function name(group, words, methods, items) {
  group.append(drawn("title", {}));
  group.lastChild.textContent = words;
  for (const [key, value] of Object.entries({ tabindex: "0", role: "button", "aria-label": words, "aria-pressed": "false" })) group.setAttribute(key, value);
  group.chosen = { words, items };
}

function listItems(box, facts, unit, level, group, columns) {
  const { words, items } = group.chosen, listed = box.querySelector(".listed");
  const again = group.getAttribute("aria-pressed") === "true";
  for (const other of box.querySelectorAll(".part")) other.setAttribute("aria-pressed", String(other === group && !again));
  listed.hidden = again;
  if (again) return;
  const head = element("tr", {}, element("th", { scope: "col" }, unit === "assay" ? "Assay" : "Task"), ...columns.map((i) => element("th", { scope: "col", class: "n" }, facts.methods[i].label)));
  const rows = items.slice(0, LISTED).map((item) => element("tr", {}, element("th", { scope: "row" }, facts.units[unit].names[item]), ...columns.map((i) => {
    const value = facts.units[unit].auroc[item][i], above = known(value) && facts.units[unit].above[level][i].includes(item);
    return element("td", { class: "n" }, element(above ? "strong" : "span", {}, fixed(value, 3)));
  })));
  const more = items.length > LISTED ? element("p", { class: "muted" }, `The first ${LISTED} of ${whole(items.length)}; assays.csv has all.`) : null;
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
  const scroll = element("div", { class: `scroll framed${rows.length > 14 ? " tall" : ""}`, role: "region", "aria-label": words, tabindex: "0" }, table);
  listed.replaceChildren(...[element("p", {}, `AUROC above ${level} for ${words}.`), rows.length ? scroll : null, more].filter(Boolean));
}

function liven(box) {
  const facts = (report.splits.find((split) => split.name === box.dataset.split) || {}).comparison;
  const place = (method) => facts.methods.findIndex((other) => other.name === method);
  const boxes = (chart) => [...box.querySelectorAll(`input[data-chart="${chart}"]`)];
  const chosen = (chart) => boxes(chart).filter((input) => input.checked).map((input) => place(input.value));

  function draw() {
    box.querySelector(".listed").hidden = true;
    for (const variant of box.querySelectorAll(".variant[data-unit]")) {
      const { unit, level } = variant.dataset, [upset, venn] = [variant.querySelector("svg.upset"), variant.querySelector("svg.venn")];
      const rest = drawUpset(upset, facts, unit, level, chosen("shown"));
      drawVenn(venn, facts, unit, level, chosen("circles"));
      for (const svg of [upset, venn]) svg.setAttribute("role", "group"); // its parts can be reached
      for (const [svg, title] of [[upset, "UpSet chart"], [venn, "Venn diagram"]]) svg.setAttribute("aria-label", `${title}, split ${box.dataset.split}: ${PLURAL[unit]} above ${level}`);
      const items = rest.reduce((sum, part) => sum + part.items.length, 0);
      variant.querySelector(".hidden-columns").textContent = rest.length ? ` ${rest.length} rarer combinations with ${whole(items)} ${PLURAL[unit]} are not drawn.` : "";
    }
  }

  /* At least one method and at most as many as a chart can hold: further boxes are locked until one is freed. */
  function lock() {
    ["shown", "circles"].forEach((chart, i) => {
      const n = chosen(chart).length;
      for (const input of boxes(chart)) input.disabled = input.checked ? n === 1 : n >= facts.most[i];
    });
  }

  function press(event) {
    const group = event.target.closest(".part");
    if (!group || !group.chosen) return;
    const variant = group.closest(".variant");
    listItems(box, facts, variant.dataset.unit, variant.dataset.level, group, chosen(group.closest("svg.venn") ? "circles" : "shown"));
  }

  box.addEventListener("click", press);
  box.addEventListener("keydown", (event) => {
    if (!["Enter", " "].includes(event.key) || !event.target.closest(".part")) return;
    event.preventDefault();
    press(event);
  });
  box.addEventListener("change", (event) => {
    if (event.target.type === "radio") {
      box.querySelector(".listed").hidden = true;
      for (const part of box.querySelectorAll(".part")) part.setAttribute("aria-pressed", "false");
      return;
    }
    lock();
    draw();
  });
  box.classList.add("live");
  lock();
  draw();
}

for (const box of document.querySelectorAll(".comparison")) liven(box);

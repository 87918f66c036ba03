"""The script of the page: draws the matrix from its data, and sorts, filters and explains it.

No library, no network, text only through textContent. The table is a grid: one cell has the focus, arrow keys move
it, and what the pointer shows the line below says as well.
"""

SCRIPT = r"""
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const table = byId("matrix"), detail = byId("detail"), tip = byId("tip");
  const columnsOf = new Map(data.columns.map((c, i) => [c.name, i]));
  const state = { view: 0, order: "type", find: "", hidden: new Set(), row: null, column: null };
  let shown = { rows: [], columns: [] }, focus = { row: 0, column: 0 };

  const make = (tag, text, attributes = {}) => {
    const element = document.createElement(tag);
    if (text !== null) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const written = (value, view) => {
    if (value === null) return "\u2013";
    if (view.percent) return (100 * value).toFixed(0);
    if (view.range[1] > 1.5) return value.toFixed(0);
    return view.range[1] >= 0.1 ? value.toFixed(2).replace(/^(-?)0\./, "$1.") : value.toExponential(1);
  };
  const exact = (value, view) =>
    value === null ? "none" : view.percent ? (100 * value).toFixed(1) + " %" : String(Number(value.toPrecision(4)));
  const colours = (value, view) => {
    const [low, high] = view.range, last = data.stops.length - 1;
    const place = Math.min(1, Math.max(0, (value - low) / (high - low))) * last;
    const first = Math.min(Math.floor(place), last - 1);
    const mixed = data.stops[first].map((c, i) => Math.round(c + (data.stops[first + 1][i] - c) * (place - first)));
    const dark = 0.299 * mixed[0] + 0.587 * mixed[1] + 0.114 * mixed[2] < 132;
    return ["rgb(" + mixed.join(",") + ")", dark ? "#fff" : "#1a1a1a"];
  };
  const mean = (values) => {
    const known = values.filter((v) => v !== null);
    return known.length ? known.reduce((a, b) => a + b, 0) / known.length : -Infinity;
  };
  const descending = (a, b) => (b === null ? -Infinity : b) - (a === null ? -Infinity : a) || 0;

  const select = (labels) => {
    const wanted = state.find.toLowerCase();
    const all = labels.map((_, i) => i);
    return all.filter((i) => labels[i].reference || (!state.hidden.has(labels[i].type) && labels[i].name.toLowerCase().includes(wanted)));
  };
  const arrange = (indices, labels, value, sorted) => {
    const byName = (a, b) => labels[a].name.localeCompare(labels[b].name);
    const prompts = indices.filter((i) => !labels[i].reference), references = indices.filter((i) => labels[i].reference);
    if (sorted) prompts.sort((a, b) => descending(value(a), value(b)) || byName(a, b));
    else if (state.order === "name") prompts.sort(byName);
    return prompts.concat(references);
  };
  const layOut = () => {
    const values = data.views[state.view].values;
    let rows = select(data.rows), columns = select(data.columns);
    const many = state.order === "mean";
    const rowValue = state.column !== null ? (r) => values[r][state.column] : (r) => mean(columns.map((c) => values[r][c]));
    const columnValue = state.row !== null ? (c) => values[state.row][c] : (c) => mean(rows.filter((r) => !data.rows[r].reference).map((r) => values[r][c]));
    rows = arrange(rows, data.rows, rowValue, many || state.column !== null);
    columns = arrange(columns, data.columns, columnValue, many || state.row !== null);
    shown = { rows, columns };
  };

  const header = (label, kind, index) => {
    const cell = make("th", null, { scope: kind });
    const sorted = state[kind === "col" ? "column" : "row"] === index;
    const button = make("button", label.name + (sorted ? (kind === "col" ? " \u25bc" : " \u25b6") : ""), { type: "button", title: label.name + (label.type ? " (" + label.type + ")" : "") });
    const along = kind === "col" ? "column" : "row";
    button.addEventListener("click", () => {
      state[along] = state[along] === index ? null : index;
      draw();
      const again = table.querySelector("[data-" + along + '-button="' + index + '"]');
      if (again) again.focus();
    });
    button.setAttribute("data-" + along + "-button", String(index));
    if (sorted) cell.setAttribute("aria-sort", "descending");
    const chip = make("i", "", { class: "chip", "aria-hidden": "true" });
    if (label.type) chip.style.background = label.colour;
    cell.append(button, chip);
    return cell;
  };
  const draw = () => {
    layOut();
    const view = data.views[state.view], plainRows = state.order === "type" && state.column === null, plainColumns = state.order === "type" && state.row === null;
    const newColumn = (place) => plainColumns && place > 0 && data.columns[shown.columns[place]].type !== data.columns[shown.columns[place - 1]].type;
    const head = make("tr", null);
    head.append(make("td", ""));
    shown.columns.forEach((c, place) => {
      const cell = header(data.columns[c], "col", c);
      if (newColumn(place)) cell.className = "first-of-type-column";
      head.append(cell);
    });
    const body = document.createDocumentFragment();
    shown.rows.forEach((r, y) => {
      const label = data.rows[r], line = make("tr", null), before = y > 0 ? data.rows[shown.rows[y - 1]] : null;
      if (label.reference) line.classList.add("reference");
      if (label.reference && before && !before.reference) line.classList.add("first-reference");
      else if (plainRows && before && before.type !== label.type) line.classList.add("first-of-type");
      line.append(header(label, "row", r));
      shown.columns.forEach((c, x) => {
        const value = view.values[r][c], cell = make("td", written(value, view), { tabindex: "-1" });
        cell.dataset.row = y; cell.dataset.column = x;
        if (value === null) cell.className = "none";
        else [cell.style.background, cell.style.color] = colours(value, view);
        if (label.name === data.columns[c].name) cell.classList.add("own");
        if (newColumn(x)) cell.classList.add("first-of-type-column");
        line.append(cell);
      });
      body.append(line);
    });
    table.tHead.replaceChildren(head);
    table.tBodies[0].replaceChildren(body);
    byId("frame").classList.toggle("many", shown.columns.length > 24);
    focus = { row: Math.min(focus.row, shown.rows.length - 1), column: Math.min(focus.column, shown.columns.length - 1) };
    const cell = at(focus.row, focus.column);
    if (cell) cell.tabIndex = 0;
    if (!shown.rows.some((r) => !data.rows[r].reference) || !shown.columns.length) detail.textContent = "Nothing is left: change the filter or reset.";
    else if (detail.textContent.startsWith("Nothing")) detail.textContent = "";
  };
  const at = (row, column) => table.querySelector('td[data-row="' + row + '"][data-column="' + column + '"]');

  const explain = (cell) => {
    const r = shown.rows[+cell.dataset.row], c = shown.columns[+cell.dataset.column];
    const source = data.rows[r], target = data.columns[c], lines = [];
    for (const view of data.views) lines.push(view.name + ": " + exact(view.values[r][c], view));
    if (data.seeds && data.seeds[r][c] !== null) {
      const spread = data.spread && data.spread[r][c];
      lines.push("seeds: " + data.seeds[r][c] + (spread ? ", highest less lowest " + Number(spread.toPrecision(3)) : ""));
    }
    if (data.views.every((view) => view.values[r][c] === null)) lines.push(data.impossible[target.name] || "not computed");
    const kind = (label) => (label.type ? " (" + label.type + ")" : "");
    return [source.name + kind(source) + " \u2192 " + target.name + kind(target), lines];
  };
  const show = (cell) => { const [title, lines] = explain(cell); detail.textContent = title + ". " + lines.join("; ") + "."; };
  table.addEventListener("pointermove", (event) => {
    const cell = event.target.closest("td[data-row]");
    if (!cell || event.pointerType === "touch") { tip.hidden = true; return; }
    const [title, lines] = explain(cell);
    tip.textContent = [title, ...lines].join("\n");
    tip.hidden = false;
    const x = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8), y = event.clientY + 18 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18;
    tip.style.left = Math.max(4, x) + "px"; tip.style.top = Math.max(4, y) + "px";
  });
  table.addEventListener("pointerleave", () => { tip.hidden = true; });
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  table.addEventListener("pointerover", (event) => { const cell = event.target.closest("td[data-row]"); if (cell) show(cell); });
  table.addEventListener("click", (event) => { const cell = event.target.closest("td[data-row]"); if (cell) { cell.focus(); show(cell); } });
  table.addEventListener("focusin", (event) => {
    const cell = event.target.closest("td[data-row]");
    if (!cell) return;
    const old = at(focus.row, focus.column);
    if (old) old.tabIndex = -1;
    focus = { row: +cell.dataset.row, column: +cell.dataset.column };
    cell.tabIndex = 0;
    show(cell);
  });
  table.addEventListener("keydown", (event) => {
    const cell = event.target.closest("td[data-row]");
    if (!cell) return;
    const last = { row: shown.rows.length - 1, column: shown.columns.length - 1 };
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -last.column], End: [0, last.column], PageUp: [-last.row, 0], PageDown: [last.row, 0] };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const [down, right] = moves[event.key], clamp = (v, most) => Math.min(most, Math.max(0, v));
    const next = at(clamp(focus.row + down, last.row), clamp(focus.column + right, last.column));
    if (next) next.focus();
  });

  data.views.forEach((view, i) => byId("view").append(make("option", view.name + (view.meaning ? " (" + view.meaning + ")" : ""), { value: String(i) })));
  const kinds = [...new Map(data.columns.concat(data.rows).filter((l) => !l.reference).map((l) => [l.type, l.colour]))];
  for (const [kind, colour] of kinds) {
    const label = make("label", null), box = make("input", null, { type: "checkbox" });
    box.checked = true;
    box.addEventListener("change", () => { state.hidden[box.checked ? "delete" : "add"](kind); draw(); });
    const name = make("span", " " + (kind || "no type"));
    name.style.borderBottom = "3px solid " + colour;
    label.append(box, name);
    byId("types").append(label);
  }
  if (kinds.length < 2) byId("types").hidden = true;
  byId("view").addEventListener("change", (event) => { state.view = +event.target.value; draw(); });
  byId("order").addEventListener("change", (event) => { Object.assign(state, { order: event.target.value, row: null, column: null }); draw(); });
  byId("find").addEventListener("input", (event) => { state.find = event.target.value; draw(); });
  byId("reset").addEventListener("click", () => {
    Object.assign(state, { view: 0, order: "type", find: "", hidden: new Set(), row: null, column: null });
    byId("view").value = "0"; byId("order").value = "type"; byId("find").value = "";
    byId("types").querySelectorAll("input").forEach((box) => { box.checked = true; });
    draw();
  });
  byId("controls").hidden = detail.hidden = false;
  table.setAttribute("role", "grid");
  table.setAttribute("aria-label", "Transfer matrix");
  draw();
})();
"""

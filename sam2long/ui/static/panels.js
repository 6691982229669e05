// The panels at the side: objects, tracking, this frame, where to look; and the bars above and below.

import { api } from "./api.js";
import { model } from "./model.js";

const $ = (id) => document.getElementById(id);

// ---- objects ----------------------------------------------------------------------------------------------------

const rows = new Map(); // object id -> its list item; kept, so that a name being typed is not lost

function listObjects() {
  const list = $("objects");
  for (const [id, row] of rows) {
    if (!model.object(id)) { row.remove(); rows.delete(id); }
  }
  model.state.objects.forEach((object, place) => {
    let row = rows.get(object.id);
    if (!row) {
      row = newRow(object.id);
      rows.set(object.id, row);
    }
    if (list.children[place] !== row) list.insertBefore(row, list.children[place] ?? null);
    fillRow(row, object);
  });
  const classes = [...new Set(model.state.objects.map((object) => object.label).filter(Boolean))];
  $("classes").replaceChildren(...classes.map((label) => Object.assign(document.createElement("option"), { value: label })));
  rows.get(model.selected)?.scrollIntoView({ block: "nearest" });
  $("object-actions").hidden = model.selected === null;
  const selected = model.selected === null ? null : model.object(model.selected);
  $("object-actions").setAttribute("aria-label", selected ? `Object ${selected.id}` : "");
}

function newRow(id) {
  const row = document.createElement("li");
  row.className = "object";
  row.dataset.object = id;
  const colour = Object.assign(document.createElement("input"), { type: "color", title: "Colour" });
  const number = Object.assign(document.createElement("span"), { className: "number", textContent: id });
  const name = field("Name", `Object ${id}`);
  const label = field("Class", "class");
  label.setAttribute("list", "classes");
  const eye = Object.assign(document.createElement("button"), { className: "eye", textContent: "◉", title: "Hide or show (h)" });
  colour.setAttribute("aria-label", `Colour of object ${id}`);
  name.setAttribute("aria-label", `Name of object ${id}`);
  label.setAttribute("aria-label", `Class of object ${id}`);
  eye.setAttribute("aria-label", `Hide object ${id}`);
  colour.addEventListener("change", () => change(id, { colour: colour.value }));
  name.addEventListener("change", () => change(id, { name: name.value.trim() }));
  label.addEventListener("change", () => change(id, { label: label.value.trim() }));
  eye.addEventListener("click", () => toggleHidden(id));
  row.addEventListener("pointerdown", () => model.select(id));
  for (const input of [name, label]) {
    input.addEventListener("focus", () => { if (model.selected !== id) model.select(id); });
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "Escape") { input.blur(); $("stage").focus({ preventScroll: true }); }
    });
  }
  row.append(colour, number, name, label, eye);
  return row;
}

function field(title, placeholder) {
  return Object.assign(document.createElement("input"), { type: "text", title, placeholder, maxLength: 80, spellcheck: false, autocomplete: "off" });
}

function fillRow(row, object) {
  const [colour, , name, label, eye] = row.children;
  row.classList.toggle("selected", object.id === model.selected);
  row.setAttribute("aria-current", object.id === model.selected);
  for (const [input, value] of [[colour, object.colour], [name, object.name], [label, object.label]]) {
    if (document.activeElement !== input) input.value = value;
  }
  eye.setAttribute("aria-pressed", model.hidden.has(object.id));
}

function change(id, fields) {
  model.change(() => api.patch(`/api/objects/${id}`, fields));
}

export function toggleHidden(id) {
  if (!model.hidden.delete(id)) model.hidden.add(id);
  model.tell("state", "view");
}

export function editName() {
  rows.get(model.selected)?.children[2].focus();
}

// ---- the frame --------------------------------------------------------------------------------------------------

function describe(row) {
  const parts = [row.prompted ? "prompted" : row.status];
  if (row.iou !== null) parts.push(`IoU ${row.iou.toFixed(2)}`);
  if (row.pathways > 1) parts.push(`${row.pathways} paths${row.margin === null ? "" : `, margin ${row.margin.toFixed(2)}`}`);
  return parts.join(" · ");
}

function line(kind, text, className) {
  return Object.assign(document.createElement(kind), { textContent: text, className });
}

function listFacts() {
  const items = (model.facts?.objects ?? []).filter((entry) => model.object(entry.id) && entry.row).map(({ id, row }) => {
    const item = document.createElement("li"), swatch = document.createElement("i"), text = document.createElement("div");
    swatch.style.background = model.object(id).colour;
    text.append(line("b", model.titleOf(id), ""));
    if (row.stale) text.append(line("span", " out of date", "muted"));
    text.append(line("div", describe(row), "muted"));
    if (row.reasons.length) text.append(line("div", row.reasons.join("; "), "why"));
    item.append(swatch, text);
    return item;
  });
  $("facts").replaceChildren(...items);
}

function showFrame() {
  const { fps, start, stride, frames } = model.video;
  const input = $("frame");
  input.max = model.last;
  if (document.activeElement !== input) input.value = model.frame;
  $("frame-total").textContent = `of ${frames - 1}`;
  const number = start + model.frame * stride;
  $("frame-name").textContent = number === model.frame ? `frame ${model.frame}` : `frame ${model.frame} (${number} in the video)`;
  $("clock").textContent = fps ? clock(model.frame / fps) : "";
}

function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(2).padStart(5, "0")}`;
}

// ---- tracking ---------------------------------------------------------------------------------------------------

function showBusy() {
  const busy = model.busy;
  $("progress").hidden = !busy;
  if (busy) {
    $("outcome").textContent = "";
    const share = busy.total ? busy.done / busy.total : 0;
    $("progress-bar").style.width = `${100 * share}%`;
    const what = busy.what === "tracking" ? "Tracking" : "Exporting";
    $("progress-text").textContent = busy.total ? `${what} ${busy.direction} ${busy.done} / ${busy.total}` : `${what}…`;
  }
  document.querySelectorAll("[data-command]").forEach((button) => {
    if (CHANGES.has(button.dataset.command)) button.disabled = Boolean(busy);
  });
  $("undo").disabled = Boolean(busy) || !model.state.undo;
  $("range").textContent = model.range ? `frames ${model.range[0]} to ${model.range[1]}` : "from this frame";
}

const CHANGES = new Set(["finish", "clear", "lock", "good", "run", "backward", "both", "new-object", "reset-object", "remove-object", "import", "reset", "export"]);

// ---- the rest ---------------------------------------------------------------------------------------------------

function showHead() {
  const { title, video, model: weights, device } = model.state;
  $("title").textContent = title;
  document.title = `${title} – sam2long annotate`;
  $("video-facts").textContent = `${video.width} × ${video.height}, ${video.frames} frames · ${weights} on ${device}`;
  $("video-facts").title = `saved in ${model.state.project}${video.damage ? `; the video is damaged: ${video.damage}` : ""}`;
}

function showSaved() {
  const text = !model.connected ? "Connection lost; trying again" : model.pending ? "Saving…" : "All saved";
  if ($("saved").textContent !== text) $("saved").textContent = text;
  document.body.dataset.pending = model.pending;
}

function showTools() {
  document.querySelectorAll("[data-tool]").forEach((button) => button.setAttribute("aria-checked", button.dataset.tool === model.tool));
  document.querySelectorAll("[data-show]").forEach((button) => button.setAttribute("aria-checked", button.dataset.show === model.show));
}

model.on("state selection", () => { if (model.state) { listObjects(); listFacts(); } });
model.on("state progress range", () => { showBusy(); showHead(); });
model.on("frame", showFrame);
model.on("facts", listFacts);
model.on("pending connection", showSaved);
model.on("tool view", showTools);

export function showAll() {
  listObjects();
  showFrame();
  showBusy();
  showHead();
  showSaved();
  showTools();
}

function toast(text, kind) {
  const box = Object.assign(document.createElement("div"), { className: `toast ${kind}`, textContent: text[0].toUpperCase() + text.slice(1) });
  $("toasts").replaceChildren(box);
  setTimeout(() => box.remove(), kind === "note" ? 4000 : 8000);
}

model.addEventListener("complaint", (event) => toast(event.detail, "error"));
model.addEventListener("note", (event) => toast(event.detail, "note"));

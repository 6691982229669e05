// The picture with masks, prompts and the keyboard cursor; clicks and boxes on it.

import { api } from "./api.js";
import { brush } from "./brush.js";
import { model } from "./model.js";
import { fetchAhead, pictureOf } from "./pictures.js";
import { decode, fill, outline } from "./rle.js";

const DRAG = 4, MOST_ZOOM = 40, CURSOR_STEP = 8;
const host = document.getElementById("stage"), canvas = document.getElementById("canvas");
const hint = document.getElementById("hint");
const context = canvas.getContext("2d");
const overlay = document.createElement("canvas");

let loading = false, wanted = false;
let shown = null;       // {frame, image}
let marks = null;       // {frame, objects: [{id, colour, path, prompt, shapes}]}
let zoom = 1, centre = null; // 1 fits; centre in video pixels
let cursor = null;      // [x, y] of the keyboard's cursor
let corner = null;      // first corner of a box drawn by keyboard
let pen = false;        // the brush is down at the keyboard's cursor
let drag = null, hover = null, redraw = 0;

export const stage = { refresh, toggleCursor, moveCursor, placeAtCursor, leaveCursor, fit, zoomBy, hasCursor: () => cursor !== null, shown: () => shown };

// ---- where pixels are -------------------------------------------------------------------------------------------

function view() {
  const { width, height } = model.video;
  const box = host.getBoundingClientRect();
  const margin = 12;
  const scale = zoom * Math.max(0.01, Math.min((box.width - 2 * margin) / width, (box.height - 2 * margin) / height));
  const [cx, cy] = centre ?? [width / 2, height / 2];
  return { scale, left: box.width / 2 - cx * scale, top: box.height / 2 - cy * scale, box };
}

function toVideo(event) {
  const { scale, left, top, box } = view();
  return [(event.clientX - box.left - left) / scale, (event.clientY - box.top - top) / scale];
}

function clamp([x, y]) {
  return [Math.max(0, Math.min(model.video.width, x)), Math.max(0, Math.min(model.video.height, y))];
}

function isInside([x, y]) {
  return x >= 0 && y >= 0 && x <= model.video.width && y <= model.video.height;
}

function fit() { zoom = 1; centre = null; draw(); }

function zoomBy(factor, around) {
  const { scale, left, top, box } = view();
  const at = around ?? [box.width / 2, box.height / 2];
  const fixed = [(at[0] - left) / scale, (at[1] - top) / scale];
  const before = zoom;
  zoom = Math.max(1, Math.min(MOST_ZOOM, zoom * factor));
  const grown = scale * zoom / before;
  centre = zoom === 1 ? null : [fixed[0] + (box.width / 2 - at[0]) / grown, fixed[1] + (box.height / 2 - at[1]) / grown];
  draw();
}

// ---- drawing ----------------------------------------------------------------------------------------------------

// Picture and masks of a frame are shown together. Frames passed over while one is loading are never asked for.
async function refresh() {
  wanted = true;
  if (loading) return;
  loading = true;
  let frame;
  while (wanted) {
    wanted = false;
    frame = model.frame;
    const [image, found] = await Promise.allSettled([pictureOf(frame), model.annotationsOf(frame)]);
    for (const { reason } of [image, found]) if (reason) model.complain(reason.message);
    shown = { frame, image: image.value };
    marks = { frame, objects: Object.entries(found.value?.objects ?? {}).map(marksOf) };
    brush.drop(); // what was painted has become the mask
    model.facts = marks;
    paintOverlay();
    draw();
    model.tell("facts");
  }
  loading = false;
  fetchAhead(frame, model.last, () => !loading && model.frame === frame);
}

function marksOf([id, { mask, prompt, row, shapes }]) {
  const decoded = mask && decode(mask);
  return { id: Number(id), mask: decoded, path: decoded && outline(decoded), prompt, row, shapes };
}

function paintOverlay() {
  const { width, height } = model.video;
  overlay.width = width;
  overlay.height = height;
  if (!marks || model.show !== "mask") return;
  const paper = overlay.getContext("2d");
  const image = paper.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const painted = brush.layerOn(marks.frame);
  for (const { id, mask } of marks.objects) {
    const object = model.object(id);
    if (painted?.target.id === id || !mask || !object || model.hidden.has(id)) continue;
    const [red, green, blue] = rgb(object.colour);
    fill(mask, pixels, (Math.round(255 * model.opacity) << 24 | blue << 16 | green << 8 | red) >>> 0);
  }
  paper.putImageData(image, 0, 0);
}

function rgb(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

export function draw() {
  if (!redraw) redraw = requestAnimationFrame(() => { redraw = 0; paint(); });
}

function paint() {
  if (!model.state) return;
  const { scale, left, top, box } = view();
  const density = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(box.width * density), Math.round(box.height * density)];
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  context.setTransform(density * scale, 0, 0, density * scale, density * left, density * top);
  context.imageSmoothingEnabled = scale < 3;
  if (shown?.image) context.drawImage(shown.image, 0, 0, model.video.width, model.video.height);
  if (marks) {
    if (model.show === "mask") context.drawImage(overlay, 0, 0);
    paintStrokes();
    for (const entry of marks.objects) paintObject(entry, scale);
    for (const entry of marks.objects) paintPrompt(entry, scale);
  }
  paintCursor(scale);
}

function paintStrokes() {
  const painted = brush.layerOn(marks.frame);
  if (!painted) return;
  context.globalAlpha = model.opacity;
  context.drawImage(painted.layer, 0, 0);
  context.globalAlpha = 1;
}

function paintObject({ id, path, shapes }, scale) {
  const object = model.object(id);
  if (brush.layerOn(marks.frame)?.target.id === id || !object || !path || model.hidden.has(id)) return;
  context.strokeStyle = object.colour;
  context.lineCap = "square";
  context.lineWidth = (id === model.selected ? 2.4 : 1.4) / scale;
  if (model.show === "mask" || model.show === "outline") context.stroke(path);
  if (model.show === "box" && shapes?.box) {
    const [x1, y1, x2, y2] = shapes.box;
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
  if (model.show === "rotated" && shapes?.rotated) {
    context.beginPath();
    shapes.rotated.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.closePath();
    context.stroke();
  }
}

function paintPrompt({ id, prompt }, scale) {
  if (!prompt || model.hidden.has(id)) return;
  const object = model.object(id);
  if (prompt.box && object) {
    const [x1, y1, x2, y2] = prompt.box;
    context.setLineDash([6 / scale, 4 / scale]);
    context.strokeStyle = object.colour;
    context.lineWidth = 1.5 / scale;
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    context.setLineDash([]);
  }
  prompt.points.forEach(([x, y], i) => paintPoint(x, y, prompt.labels[i] === 1, scale, id === model.selected));
}

function paintPoint(x, y, positive, scale, selected) {
  const size = (selected ? 6 : 4.5) / scale;
  context.beginPath();
  context.arc(x, y, size, 0, 2 * Math.PI);
  context.fillStyle = positive ? "#4bd07f" : "#ff5d52";
  context.fill();
  context.lineWidth = 1.6 / scale;
  context.strokeStyle = "#fff";
  context.stroke();
  context.beginPath();
  context.moveTo(x - size / 2, y); context.lineTo(x + size / 2, y);
  if (positive) { context.moveTo(x, y - size / 2); context.lineTo(x, y + size / 2); }
  context.stroke();
}

function paintCursor(scale) {
  const to = cursor ?? hover;
  const first = corner ?? (drag?.box ? drag.from : null);
  if (first && to) {
    context.strokeStyle = "#fff";
    context.lineWidth = 1.5 / scale;
    context.setLineDash([5 / scale, 3 / scale]);
    context.strokeRect(first[0], first[1], to[0] - first[0], to[1] - first[1]);
    context.setLineDash([]);
  }
  if (to && brush.active()) paintRing(to, scale);
  if (!cursor) return;
  const [x, y] = cursor, size = 13 / scale;
  for (const [colour, width] of [["#000", 4], ["#fff", 1.8]]) {
    context.strokeStyle = colour;
    context.lineWidth = width / scale;
    context.beginPath();
    context.moveTo(x - size, y); context.lineTo(x + size, y);
    context.moveTo(x, y - size); context.lineTo(x, y + size);
    context.stroke();
  }
}

function paintRing([x, y], scale) {
  for (const [colour, width] of [["#000", 3], ["#fff", 1.4]]) {
    context.strokeStyle = colour;
    context.lineWidth = width / scale;
    context.beginPath();
    context.arc(x, y, brush.size() / 2, 0, 2 * Math.PI);
    context.stroke();
  }
}

// ---- prompts ----------------------------------------------------------------------------------------------------

export async function objectOf(target) {
  if (target.id === null) target.id = (await api.post("/api/objects", {})).id;
  return target.id;
}

function prompt(path, frame, said, seen) {
  if (model.busy) return model.complain("tracking is under way; cancel it (Esc) before you change something");
  const target = model.target; // of now: the user may go on to another object before the server has answered
  return model.change(async (then) => {
    const object = await objectOf(target);
    const { objects } = await api.post(path, { object, frame, ...said }, then);
    model.annotations.clear();
    model.keep(frame, { objects, shapes: false });
    model.tell("annotations", "selection");
  }, seen);
}

function click(at, positive) {
  if (!isInside(at)) return;
  prompt("/api/prompts/click", model.frame, { x: round(at[0]), y: round(at[1]), positive });
}

function box(from, to, seen) {
  const [x1, y1] = clamp(from), [x2, y2] = clamp(to);
  if (Math.abs(x1 - x2) < 1 || Math.abs(y1 - y2) < 1) return;
  prompt("/api/prompts/box", model.frame, { box: [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)].map(round) }, seen);
}

const NEW_COLOUR = "#ffffff"; // of an object that has none yet

function beginStroke(at, erase) {
  if (model.busy) { model.complain("tracking is under way; cancel it (Esc) before you change something"); return false; }
  if (shown?.frame !== model.frame) return false; // the picture is still on its way
  const entry = marks.objects.find(({ id }) => id === model.selected);
  brush.begin(at, erase, entry?.mask ?? null, rgb(model.object(model.selected)?.colour ?? NEW_COLOUR));
  paintOverlay();
  draw();
  return true;
}

function strokeTo(at) {
  brush.strokeTo(at);
  draw();
}

function round(value) { return Math.round(value * 10) / 10; }

// ---- mouse ------------------------------------------------------------------------------------------------------

canvas.addEventListener("pointerdown", (event) => {
  host.focus({ preventScroll: true });
  const at = toVideo(event);
  const pan = event.button === 1 || event.altKey;
  drag = { from: at, x: event.clientX, y: event.clientY, pan, button: event.button, shift: event.shiftKey, seen: api.seen(), box: !pan && event.button === 0 && model.tool === "box", centre: centre ?? [model.video.width / 2, model.video.height / 2] };
  if (drag.box) drag.from = clamp(at);
  if (!pan && brush.active()) drag.stroke = beginStroke(at, model.tool === "eraser" || event.button === 2 || event.shiftKey);
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  hover = clamp(toVideo(event));
  if (!drag) return;
  if (drag.stroke) for (const each of event.getCoalescedEvents?.() ?? [event]) strokeTo(toVideo(each));
  if (drag.pan && zoom > 1) {
    const { scale } = view();
    centre = [drag.centre[0] - (event.clientX - drag.x) / scale, drag.centre[1] - (event.clientY - drag.y) / scale];
  }
  draw();
});
canvas.addEventListener("pointerup", (event) => {
  if (!drag) return;
  const ended = drag, at = toVideo(event);
  drag = null;
  const moved = Math.hypot(event.clientX - ended.x, event.clientY - ended.y) > DRAG;
  if (brush.active() || ended.stroke) {
    if (ended.stroke) brush.end(objectOf);
  } else if (ended.box && moved) box(ended.from, at, ended.seen);
  else if (!ended.pan && !moved && !ended.box) {
    click(at, ended.button === 0 && !ended.shift && model.tool === "positive");
  } else if (ended.box && !moved) {
    model.note("Drag from corner to corner for a box, or press q for points.");
  }
  draw();
});
canvas.addEventListener("pointercancel", () => {
  if (drag?.stroke) brush.end(objectOf);
  drag = null;
  draw();
});
canvas.addEventListener("contextmenu", (event) => event.preventDefault());
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (brush.active() && !event.ctrlKey) return brush.resize(event.deltaY < 0);
  const frame = host.getBoundingClientRect();
  zoomBy(Math.exp(-event.deltaY / 400), [event.clientX - frame.left, event.clientY - frame.top]);
}, { passive: false });
new ResizeObserver(draw).observe(host);

// ---- keyboard ---------------------------------------------------------------------------------------------------

function toggleCursor() {
  if (cursor) return leaveCursor();
  pen = false;
  cursor = clamp(hover ?? [model.video.width / 2, model.video.height / 2]).map(Math.round);
  host.focus({ preventScroll: true });
  tellHint();
  draw();
}

function leaveCursor() {
  if (pen) placeAtCursor();
  else if (corner) corner = null;
  else cursor = null;
  tellHint();
  draw();
}

function moveCursor(dx, dy, fine) {
  const step = fine ? 1 : Math.max(2, Math.round(CURSOR_STEP / view().scale));
  cursor = clamp([cursor[0] + dx * step, cursor[1] + dy * step]);
  if (pen) strokeTo(middle(cursor));
  tellHint();
  draw();
}

function placeAtCursor() {
  if (!cursor) return;
  if (pen) { pen = false; brush.end(objectOf); }
  else if (brush.active()) pen = beginStroke(middle(cursor), model.tool === "eraser");
  else if (model.tool !== "box") click(cursor, model.tool === "positive");
  else if (corner) { box(corner, cursor, corner.seen); corner = null; }
  else corner = Object.assign([...cursor], { seen: api.seen() });
  tellHint();
  draw();
}

// The cursor stands on a pixel's corner; strokes go through the middles of pixels.
function middle([x, y]) { return [x + 0.5, y + 0.5]; }

export function tellHint() {
  if (brush.active()) { hint.textContent = brushHint(); return; }
  if (!cursor) { hint.textContent = ""; return; }
  const where = `${Math.round(cursor[0])}, ${Math.round(cursor[1])}`;
  const what = model.tool === "box" ? (corner ? "Enter: other corner of the box" : "Enter: first corner of a box") : model.tool === "positive" ? "Enter: this is the object" : "Enter: this is not the object";
  hint.textContent = `${where}   ·   arrows move (Shift: 1 pixel)   ·   ${what}   ·   Esc leaves`;
}

function brushHint() {
  const other = model.tool === "brush" ? "   ·   Shift or the right button erases" : "";
  const place = cursor ? `${Math.round(cursor[0])}, ${Math.round(cursor[1])}   ·   Enter: ${pen ? "lift" : "put down"} the brush   ·   ` : "";
  return `${place}${brush.size()} pixels wide; [ ] or the wheel changes that${other}`;
}

function liftPen() {
  if (pen) { pen = false; brush.end(objectOf); }
}

model.on("frame selection", liftPen);
model.on("frame annotations", refresh);
model.on("selection state", () => { paintOverlay(); draw(); });
model.on("view", () => { paintOverlay(); draw(); });
model.on("tool", () => { corner = null; if (!brush.active()) liftPen(); tellHint(); draw(); });

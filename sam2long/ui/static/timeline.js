// A row per object: presence, frames to look at, prompts, what is out of date; scrubbed by mouse.

import { model, STALE, LOOK } from "./model.js";

const RULER = 22, ROW = 30, GUTTER = 150, PAD = 12, PROMPT = 4.5;
const INK = { ground: "#131416", lane: "#1c1e20", line: "#2b2e32", text: "#e8eaed", muted: "#9aa1a9", amber: "#f2b84b", gone: "#6b7177", accent: "#6ea8fe" };
const PRESENT = "p".charCodeAt(0), ABSENT = "a".charCodeAt(0);

const host = document.getElementById("timeline");
const canvas = host.querySelector("canvas");
const context = canvas.getContext("2d");
let window_ = null; // [first, last] frames in sight; null: all
let queued = 0, scrubbing = false;

function span() {
  const last = Math.max(1, model.last);
  return window_ ? { first: window_[0], last: window_[1] } : { first: 0, last };
}

function xOf(frame, width) {
  const { first, last } = span();
  return GUTTER + ((frame - first) / (last - first || 1)) * (width - GUTTER - PAD);
}

function frameAt(x, width) {
  const { first, last } = span();
  return Math.round(first + ((x - GUTTER) / (width - GUTTER - PAD)) * (last - first));
}

export function drawTimeline() {
  if (!queued) queued = requestAnimationFrame(() => { queued = 0; paint(); });
}

function paint() {
  if (!model.state) return;
  const width = host.clientWidth, objects = model.state.objects;
  const height = RULER + Math.max(1, objects.length) * ROW + 4;
  const density = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * density) || canvas.height !== Math.round(height * density)) {
    canvas.width = Math.round(width * density);
    canvas.height = Math.round(height * density);
    canvas.style.height = `${height}px`;
  }
  context.setTransform(density, 0, 0, density, 0, 0);
  context.fillStyle = INK.ground;
  context.fillRect(0, 0, width, height);
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  paintGrid(width, height);
  objects.forEach((object, i) => paintRow(object, RULER + i * ROW, width));
  if (!objects.length) {
    context.fillStyle = INK.muted;
    context.fillText("No objects yet", PAD, RULER + ROW / 2);
  }
  paintRuler(width, host.scrollTop);
  paintRange(width, host.scrollTop);
  paintHead(width, height, host.scrollTop);
}

function ticks(width) {
  const { first, last } = span();
  const room = (width - GUTTER - PAD) / 80;
  const raw = (last - first) / room || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = Math.max(1, [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw));
  const found = [];
  for (let at = Math.ceil(first / step) * step; at <= last; at += step) found.push([at, Math.round(xOf(at, width)) + 0.5]);
  return found;
}

function paintGrid(width, height) {
  context.strokeStyle = INK.line;
  context.beginPath();
  for (const [, x] of ticks(width)) {
    context.moveTo(x, RULER);
    context.lineTo(x, height);
  }
  context.stroke();
}

// The ruler stays in sight while the rows are scrolled.
function paintRuler(width, top) {
  context.fillStyle = INK.ground;
  context.fillRect(0, top, width, RULER);
  context.font = "11px system-ui, sans-serif";
  context.fillStyle = INK.muted;
  context.textAlign = "center";
  for (const [at, x] of ticks(width)) if (x < width - 20) context.fillText(String(at), x, top + 9);
  context.textAlign = "left";
  if (window_) context.fillText("zoomed; double-click: all", PAD, top + 9);
}

function paintRow(object, top, width) {
  const row = model.timelines.get(object.id);
  const selected = object.id === model.selected;
  context.fillStyle = selected ? "#22262b" : INK.lane;
  context.fillRect(0, top + 1, width, ROW - 2);
  context.fillStyle = object.colour;
  context.fillRect(PAD, top + ROW / 2 - 5, 10, 10);
  context.fillStyle = selected ? INK.text : INK.muted;
  context.fillText(fitted(model.titleOf(object.id), GUTTER - PAD - 26), PAD + 18, top + ROW / 2 + 0.5);
  if (row) paintFrames(object, row, top, width);
  for (const frame of object.prompts) paintPrompt(xOf(frame, width), top + 9);
}

function fitted(text, room) {
  if (context.measureText(text).width <= room) return text;
  while (text && context.measureText(`${text}…`).width > room) text = text.slice(0, -1);
  return `${text}…`;
}

function paintFrames(object, row, top, width) {
  const { first, last } = span();
  const usable = width - GUTTER - PAD, perFrame = usable / (last - first || 1);
  const left = Math.floor(GUTTER - perFrame / 2);
  // One column of pixels at a time shows the most telling of its frames, so that nothing is lost on long videos.
  for (let x = Math.max(GUTTER - 2, left); x < width - PAD + 2; x++) {
    const from = Math.max(0, Math.ceil(first + (x - GUTTER) / perFrame - 0.5));
    const to = Math.min(model.last, Math.max(from, Math.ceil(first + (x + 1 - GUTTER) / perFrame - 0.5) - 1));
    let seen = 0, gone = 0, stale = 0, look = 0;
    for (let frame = from; frame <= to; frame++) {
      const status = row.status[frame];
      if (status === PRESENT) seen++;
      else if (status === ABSENT) gone++;
      if (row.flags[frame] & STALE) stale++;
      if (row.flags[frame] & LOOK) look++;
    }
    if (seen) {
      context.fillStyle = object.colour;
      if (!stale) context.fillRect(x, top + 5, 1, 9);
      else { // hatched
        for (let y = 0; y < 9; y++) if ((x + y) % 5 < 2) context.fillRect(x, top + 5 + y, 1, 1);
      }
    } else if (gone) {
      context.fillStyle = INK.gone;
      context.fillRect(x, top + 9, 1, 2);
    }
    if (look) {
      context.fillStyle = INK.amber;
      context.fillRect(x, top + ROW - 12, 1, 8);
    }
  }
}

function paintPrompt(x, y) {
  context.save();
  context.translate(x, y);
  context.rotate(Math.PI / 4);
  context.fillStyle = "#fff";
  context.strokeStyle = "#000";
  context.lineWidth = 1;
  context.fillRect(-PROMPT, -PROMPT, 2 * PROMPT, 2 * PROMPT);
  context.strokeRect(-PROMPT, -PROMPT, 2 * PROMPT, 2 * PROMPT);
  context.restore();
}

function paintRange(width, top) {
  if (!model.range) return;
  const [from, to] = model.range.map((frame) => xOf(frame, width));
  context.fillStyle = "rgb(110 168 254 / .28)";
  context.fillRect(from, top + 14, Math.max(2, to - from), RULER - 14);
  context.fillStyle = INK.accent;
  context.fillRect(from - 1, top + 12, 2, RULER - 12);
  context.fillRect(to - 1, top + 12, 2, RULER - 12);
}

function paintHead(width, height, top) {
  if (model.busy?.frame != null) {
    const x = xOf(model.busy.frame, width);
    context.fillStyle = INK.accent;
    context.fillRect(x - 1, top + RULER - 4, 2, height);
  }
  const x = Math.round(xOf(model.frame, width));
  if (x < GUTTER - 4 || x > width) return;
  context.fillStyle = "#fff";
  context.fillRect(x - 0.75, top + 14, 1.5, height);
  context.beginPath();
  context.moveTo(x - 5, top + 13);
  context.lineTo(x + 5, top + 13);
  context.lineTo(x, top + 20);
  context.fill();
}

// ---- mouse ------------------------------------------------------------------------------------------------------

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top, box.width];
}

canvas.addEventListener("pointerdown", (event) => {
  const [x, y, width] = place(event);
  const object = model.state.objects[Math.floor((y - RULER) / ROW)];
  if (y - host.scrollTop > RULER && object) model.select(object.id);
  if (x < GUTTER - 6) return;
  scrubbing = true;
  canvas.setPointerCapture(event.pointerId);
  model.tell("scrub");
  model.go(frameAt(x, width));
});
canvas.addEventListener("pointermove", (event) => {
  if (!scrubbing) return;
  const [x, , width] = place(event);
  model.go(frameAt(x, width));
});
canvas.addEventListener("pointerup", () => { scrubbing = false; });
canvas.addEventListener("pointercancel", () => { scrubbing = false; });
host.addEventListener("scroll", drawTimeline);
canvas.addEventListener("dblclick", () => { window_ = null; drawTimeline(); });
canvas.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.shiftKey) return; // plain wheel scrolls the rows
  event.preventDefault();
  const [x, , width] = place(event);
  const { first, last } = span();
  const at = frameAt(x, width);
  const delta = event.deltaY || event.deltaX;
  if (event.shiftKey) {
    const move = Math.sign(delta) * Math.max(1, (last - first) * 0.1);
    const shift = Math.max(-first, Math.min(model.last - last, move));
    window_ = [first + shift, last + shift];
  } else {
    const factor = Math.exp(delta / 300);
    window_ = [Math.max(0, at - (at - first) * factor), Math.min(model.last, at + (last - at) * factor)];
    if (window_[1] - window_[0] < 10 || (window_[0] <= 0 && window_[1] >= model.last)) {
      window_ = window_[1] - window_[0] < 10 ? [first, last] : null;
    }
  }
  drawTimeline();
}, { passive: false });
new ResizeObserver(drawTimeline).observe(host);

function keepInSight() {
  if (window_ && (model.frame < window_[0] || model.frame > window_[1])) {
    const half = (window_[1] - window_[0]) / 2;
    const middle = Math.max(half, Math.min(model.last - half, model.frame));
    window_ = [middle - half, middle + half];
  }
}

model.on("selection", () => {
  const place = model.state.objects.findIndex(({ id }) => id === model.selected);
  if (place < 0) return;
  const top = RULER + place * ROW;
  if (top < host.scrollTop + RULER || top + ROW > host.scrollTop + host.clientHeight) host.scrollTop = place * ROW;
});
model.on("frame", () => { keepInSight(); drawTimeline(); });
model.on("timeline state selection range progress", drawTimeline);

// Brush and eraser: strokes on the mask that is shown, which then is the object's mask prompt on this frame.

import { api } from "./api.js";
import { model } from "./model.js";
import { fill } from "./rle.js";

const LEAST = 1, STEP = 1.25;
let size = null;      // diameter in pixels of the video
let painted = null;   // {frame, target, layer: canvas of the video's size, colour, erase, from, uploads}

export const brush = { begin, strokeTo, end, resize, drop, size: currentSize, layerOn, active };

function active() { return model.tool === "brush" || model.tool === "eraser"; }

function currentSize() {
  size ??= Math.max(LEAST, Math.round(Math.min(model.video.width, model.video.height) / 24));
  return size;
}

function resize(larger) {
  const most = Math.max(model.video.width, model.video.height);
  const next = currentSize() * (larger ? STEP : 1 / STEP);
  size = Math.max(LEAST, Math.min(most, larger ? Math.ceil(next) : Math.floor(next)));
  model.tell("tool");
}

// The picture to show instead of the mask of `object`, while strokes are on their way.
function layerOn(frame) {
  return painted && painted.frame === frame ? painted : null;
}

function drop() {
  if (painted && !painted.uploads && !painted.from) painted = null;
}

// mask: the object's on this frame as it is now, decoded, or null. colour: [red, green, blue].
function begin(at, erase, mask, colour) {
  const { frame, target } = model;
  if (!painted || painted.frame !== frame || painted.target !== target) {
    painted = { frame, target, layer: layerOf(mask, colour), colour, uploads: 0, seen: api.seen() };
  }
  Object.assign(painted, { erase, from: at });
  strokeTo(at);
}

function layerOf(mask, [red, green, blue]) {
  const { width, height } = model.video;
  const layer = Object.assign(document.createElement("canvas"), { width, height });
  if (mask) {
    const paper = layer.getContext("2d");
    const image = paper.createImageData(width, height);
    fill(mask, new Uint32Array(image.data.buffer), (255 << 24 | blue << 16 | green << 8 | red) >>> 0);
    paper.putImageData(image, 0, 0);
  }
  return layer;
}

function strokeTo(at) {
  if (!painted?.from) return;
  const paper = painted.layer.getContext("2d");
  paper.globalCompositeOperation = painted.erase ? "destination-out" : "source-over";
  paper.strokeStyle = `rgb(${painted.colour})`;
  paper.lineWidth = currentSize();
  paper.lineCap = paper.lineJoin = "round";
  paper.beginPath();
  paper.moveTo(...painted.from);
  paper.lineTo(at[0] + 1e-3, at[1]); // a line of no length would leave nothing
  paper.stroke();
  painted.from = at;
}

// The stroke is done: it goes to the server. objectOf: makes the object when it is a new one.
function end(objectOf) {
  if (!painted?.from) return;
  const { frame, target, layer } = painted, mine = painted;
  mine.from = null;
  mine.uploads++;
  const picture = pngOf(layer); // of now: the next stroke may begin before the server has answered
  return model.change(async () => {
    try {
      const object = await objectOf(target);
      const { objects } = await api.upload(`/api/objects/${object}/frames/${frame}/mask`, await picture, "image/png", mine.seen);
      model.annotations.clear();
      model.keep(frame, { objects, shapes: false });
    } finally {
      mine.uploads--;
      model.tell("annotations", "selection");
    }
  });
}

// White where the layer is more than half opaque, black elsewhere.
function pngOf(layer) {
  const { width, height } = layer;
  const image = layer.getContext("2d").getImageData(0, 0, width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = pixels[i] >>> 24 > 127 ? 0xffffffff : 0xff000000;
  const paper = Object.assign(document.createElement("canvas"), { width, height });
  paper.getContext("2d").putImageData(image, 0, 0);
  return new Promise((done) => paper.toBlob(done, "image/png"));
}

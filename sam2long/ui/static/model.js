// What the page knows: the server's state, timelines, masks of frames, and where the user is.

import { api, show } from "./api.js";

const KEPT_FRAMES = 60;
export const STALE = 1, LOOK = 2;

class Model extends EventTarget {
  state = null;          // as /api/state has it, without view and formats
  timelines = new Map(); // object id -> {status: Uint8Array of the codes of p, a and ., flags: Uint8Array}
  annotations = new Map(); // frame -> objects of that frame
  frame = 0;
  target = { id: null }; // what prompts are about; without an id, the first of them makes a new object
  tool = "positive";
  show = "mask";
  opacity = 0.45;
  range = null;          // [first, last]
  hidden = new Set();
  pending = 0;           // changes on their way
  connected = true;
  asked = new Map();     // frame -> number of the latest request for it
  requests = 0;

  get selected() { return this.target.id; }
  get video() { return this.state.video; }
  get last() { return this.state.video.frames - 1; }
  get busy() { return this.state.busy; }

  tell(...names) {
    for (const name of names) this.dispatchEvent(new Event(name));
  }

  on(names, action) {
    for (const name of names.split(" ")) this.addEventListener(name, action);
  }

  object(id) { return this.state.objects.find((object) => object.id === id) ?? null; }

  titleOf(id) {
    const object = this.object(id);
    return object ? object.name || object.label || `Object ${id}` : `Object ${id}`;
  }

  async load() {
    const { view, formats, ...state } = await api.get("/api/state");
    this.state = state;
    show(state.revision);
    this.formats = formats;
    this.frame = Math.min(view.frame ?? 0, this.last);
    this.target = { id: this.object(view.object) ? view.object : state.objects[0]?.id ?? null };
    this.range = view.range && view.range[1] <= this.last ? view.range : null;
    if (["mask", "outline", "box", "rotated"].includes(view.show)) this.show = view.show;
    await this.loadTimelines();
  }

  async loadTimelines(id) {
    const found = await api.get(id === undefined ? "/api/timeline" : `/api/timeline?object=${id}`);
    if (id === undefined) this.timelines.clear();
    for (const [key, row] of Object.entries(found.objects)) {
      this.timelines.set(Number(key), {
        status: Uint8Array.from(row.status, (letter) => letter.charCodeAt(0)),
        flags: bytes(row.flags),
      });
    }
    this.tell("timeline");
  }

  async setState(state, changed) {
    this.state = state;
    show(state.revision);
    if (this.selected !== null && !this.object(this.selected)) this.target = { id: null };
    for (const id of this.timelines.keys()) if (!this.object(id)) this.timelines.delete(id);
    this.tell("state", "selection");
    if (!changed.length) return;
    this.annotations.clear();
    this.tell("annotations");
    await Promise.all(changed.length > 3 ? [this.loadTimelines()] : changed.filter((id) => this.object(id)).map((id) => this.loadTimelines(id)));
  }

  newMasks(frame, cells) {
    this.annotations.delete(frame);
    for (const [id, [status, flags]] of Object.entries(cells)) {
      const row = this.timelines.get(Number(id));
      if (!row) continue;
      row.status[frame] = status.charCodeAt(0);
      row.flags[frame] = flags;
    }
    this.tell("timeline");
    if (frame === this.frame) this.tell("annotations");
  }

  async annotationsOf(frame) {
    const shapes = this.show === "box" || this.show === "rotated";
    const kept = this.annotations.get(frame);
    if (kept && (!shapes || kept.shapes)) return kept;
    const number = ++this.requests;
    this.asked.set(frame, number);
    const { objects } = await api.get(`/api/frames/${frame}${shapes ? "?shapes=true" : ""}`);
    const found = { objects, shapes };
    if (this.asked.get(frame) === number) { // else a newer request is on its way, or an answer has come
      this.asked.delete(frame);
      this.keep(frame, found);
    }
    return found;
  }

  keep(frame, found) {
    this.annotations.delete(frame);
    this.annotations.set(frame, found);
    if (this.annotations.size > KEPT_FRAMES) this.annotations.delete(this.annotations.keys().next().value);
  }

  go(frame) {
    frame = Math.max(0, Math.min(this.last, Math.round(frame)));
    if (frame === this.frame || Number.isNaN(frame)) return;
    this.frame = frame;
    this.tell("frame");
  }

  select(id) {
    this.target = { id };
    this.tell("selection");
  }

  setTool(tool) { this.tool = tool; this.tell("tool"); }
  setShow(show) { this.show = show; this.tell("view", "annotations"); }
  setRange(range) { this.range = range; this.tell("range", "timeline"); }

  // Changes go to the server one after the other, in the order in which they were made.
  // seen: what the page showed when the user began this one; by the time it is sent, it may show more.
  change(action, seen = api.seen()) {
    this.pending++;
    this.tell("pending");
    const done = (this.queue ?? Promise.resolve()).then(() => action(seen));
    this.queue = done.catch((error) => this.complain(error.message)).finally(() => {
      this.pending--;
      this.tell("pending");
    });
    return this.queue;
  }

  complain(text) { this.dispatchEvent(new CustomEvent("complaint", { detail: text })); }
  note(text) { this.dispatchEvent(new CustomEvent("note", { detail: text })); }
}

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

export const model = new Model();

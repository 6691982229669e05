// Puts the page together: commands, keys, playback, events from the server.

import { api, listen } from "./api.js";
import { brush } from "./brush.js";
import { ask, exportEnded, help, openExport } from "./dialogs.js";
import { commandOf } from "./keys.js";
import { model } from "./model.js";
import { editName, showAll, toggleHidden } from "./panels.js";
import { objectOf, stage } from "./stage.js";
import { drawTimeline } from "./timeline.js";

const $ = (id) => document.getElementById(id);
const SHOWS = ["mask", "outline", "box", "rotated"];
const VIEW_SAVED_AFTER = 400, FAR = 10;

let playing = null, looks = null, lookAt = -1, lastLook = null; // lastLook: [frame, object]

// ---- commands ---------------------------------------------------------------------------------------------------

function selected() {
  if (model.object(model.selected)) return model.selected;
  model.complain("select an object first: click on its row, or press 1 to 9");
  return null;
}

function onFrame(path) {
  const object = selected(), frame = model.frame;
  if (object !== null) model.change((seen) => api.post(path, { object, frame }, seen));
}

function track(direction) {
  stop();
  const only = $("only-selected").checked ? selected() : null;
  if ($("only-selected").checked && only === null) return;
  const said = { direction, start: model.frame, objects: only === null ? null : [only] };
  if (model.range && direction !== "both") {
    const [first, last] = model.range;
    [said.start, said.end] = direction === "forward" ? [first, last] : [last, first];
  }
  following = $("follow").checked;
  $("outcome").textContent = "";
  model.change(() => api.post("/api/track", said));
}

function setRange(which) {
  const [first, last] = model.range ?? [0, model.last];
  const at = model.frame;
  model.setRange(which === "start" ? [at, Math.max(at, last)] : [Math.min(first, at), at]);
  saveView();
}

function step(by) {
  stop();
  following = false;
  model.go(model.frame + by);
}

function selectNeighbour(by) {
  const ids = model.state.objects.map(({ id }) => id);
  if (!ids.length) return;
  const at = ids.indexOf(model.selected);
  model.select(ids[at < 0 ? 0 : Math.max(0, Math.min(ids.length - 1, at + by))]);
}

async function goToLook(by) {
  stop();
  following = false;
  if (!looks) {
    try {
      looks = (await api.get("/api/looks")).frames;
    } catch (error) {
      return model.complain(error.message);
    }
    const here = lastLook && lastLook[0] === model.frame && lastLook[1] === model.selected;
    lookAt = here ? looks.findIndex(({ frame, object }) => frame === lastLook[0] && object === lastLook[1]) : -1;
  }
  const found = looks[lookAt + by];
  if (!found) {
    $("look-text").textContent = looks.length ? (by > 0 ? "That was the last frame to look at." : "That was the first frame to look at.") : "There is nothing more to look at.";
    return;
  }
  lookAt += by;
  lastLook = [found.frame, found.object];
  model.go(found.frame);
  model.select(found.object);
  $("look-text").textContent = `Frame ${found.frame}, ${model.titleOf(found.object)}: ${found.why.join("; ")}.`;
}

async function confirmAndGoOn() {
  const object = selected(), frame = model.frame;
  if (object === null) return;
  if (!model.object(object).prompts.includes(frame)) {
    const kept = await model.change((seen) => api.post("/api/prompts/lock", { object, frame }, seen));
    if (!kept) return;
  }
  looks = null;
  await goToLook(1);
}

function goToPrompt(backward) {
  const object = selected();
  if (object === null) return;
  const prompts = model.object(object).prompts;
  const found = backward ? prompts.filter((frame) => frame < model.frame).at(-1) : prompts.find((frame) => frame > model.frame);
  if (found === undefined) model.note(`No prompt ${backward ? "before" : "after"} this frame.`);
  else step(found - model.frame);
}

async function removeObject() {
  const object = selected();
  if (object === null) return;
  const seen = api.seen();
  const yes = await ask(`Remove ${model.titleOf(object)}?`, "Its prompts and all its masks go. This cannot be undone.", [["Remove", true, "danger"]]);
  if (yes) model.change(() => api.remove(`/api/objects/${object}`, seen));
}

async function resetObject() {
  const object = selected();
  if (object === null) return;
  const seen = api.seen();
  const yes = await ask(`Reset ${model.titleOf(object)}?`, "Its prompts and all its masks go; name, class and colour stay. This cannot be undone.", [["Reset", true, "danger"]]);
  if (yes) model.change(() => api.post(`/api/objects/${object}/reset`, {}, seen));
}

async function resetTracker() {
  const seen = api.seen();
  const keep = await ask("Reset the tracker?", "All prompts go, and the tracker forgets what it has seen. Objects keep their names. This cannot be undone.", [["Keep masks", "keep", ""], ["Delete masks too", "delete", "danger"]]);
  if (keep) model.change(() => api.post("/api/reset", { keep_masks: keep === "keep" }, seen));
}

const commands = {
  positive: () => model.setTool("positive"),
  negative: () => model.setTool("negative"),
  box: () => model.setTool("box"),
  brush: () => model.setTool("brush"),
  eraser: () => model.setTool("eraser"),
  finish: () => { model.select(null); model.setTool("positive"); model.note("Finished. The next click starts a new object."); },
  clear: () => onFrame("/api/prompts/clear"),
  lock: () => onFrame("/api/prompts/lock"),
  undo: () => model.change(async (seen) => {
    const { object, frame } = await api.post("/api/undo", {}, seen);
    if (model.object(object)) model.select(object);
    model.go(frame);
  }),
  cancel: () => {
    if (stage.hasCursor()) stage.leaveCursor();
    else if (model.busy) api.post("/api/cancel").catch((error) => model.complain(error.message));
    else stop();
  },
  cursor: () => stage.toggleCursor(),
  place: () => stage.placeAtCursor(),
  import: () => $("import-file").click(),
  run: () => track("forward"),
  backward: () => track("backward"),
  both: () => track("both"),
  "range-start": () => setRange("start"),
  "range-end": () => setRange("end"),
  "range-clear": () => { model.setRange(null); saveView(); },
  previous: ({ shift } = {}) => step(shift ? -FAR : -1),
  next: ({ shift } = {}) => step(shift ? FAR : 1),
  first: () => step(-model.frame),
  last: () => step(model.last - model.frame),
  play: () => (playing ? stop() : play()),
  "go-to": () => $("frame").select(),
  "look-next": () => goToLook(1),
  "look-before": () => goToLook(-1),
  good: confirmAndGoOn,
  "next-prompt": ({ shift } = {}) => goToPrompt(shift),
  up: () => selectNeighbour(-1),
  down: () => selectNeighbour(1),
  number: ({ number }) => { const object = model.state.objects[number - 1]; if (object) model.select(object.id); },
  "new-object": () => model.change(async () => {
    const { id } = await api.post("/api/objects", {});
    model.select(id);
  }),
  name: () => { if (selected() !== null) editName(); },
  hide: () => { const object = selected(); if (object !== null) toggleHidden(object); },
  "reset-object": resetObject,
  "remove-object": removeObject,
  show: () => { model.setShow(SHOWS[(SHOWS.indexOf(model.show) + 1) % SHOWS.length]); saveView(); },
  "zoom-in": () => stage.zoomBy(1.25),
  "zoom-out": () => stage.zoomBy(0.8),
  fit: () => stage.fit(),
  export: openExport,
  reset: resetTracker,
  help,
};

const WHILE_BUSY = new Set(["clear", "lock", "good", "undo", "run", "backward", "both", "new-object", "reset-object", "remove-object", "import", "reset", "export"]);

function carryOut(name, how) {
  if (model.busy && WHILE_BUSY.has(name)) {
    model.complain("something is under way; wait until it is done, or cancel it (Esc)");
    return;
  }
  commands[name]?.(how);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-command]");
  if (!button || button.disabled) return;
  carryOut(button.dataset.command, {});
  if (event.detail > 0) button.blur(); // clicked by mouse: Space and Enter belong to the page again
});
document.querySelectorAll("[data-show]").forEach((button) => {
  button.addEventListener("click", () => { model.setShow(button.dataset.show); saveView(); button.blur(); });
});

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  const target = event.target;
  const typing = target.matches?.("input:not([type=range]):not([type=checkbox]), select, textarea");
  if (typing && !(event.ctrlKey && "mbe".includes(event.key.toLowerCase()))) return;
  if (stage.hasCursor() && ARROWS[event.key] && !event.ctrlKey && !target.matches?.("input")) {
    event.preventDefault();
    stage.moveCursor(...ARROWS[event.key], event.shiftKey);
    return;
  }
  if (brush.active() && "[]".includes(event.key) && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    brush.resize(event.key === "]");
    return;
  }
  const command = commandOf(event);
  if (!command) return;
  // A focused button or check box answers to Space and Enter itself, and a slider to the arrows.
  if (["Enter", " "].includes(event.key) && target.matches?.("button, input, a")) return;
  if (event.key.startsWith("Arrow") && target.matches?.("input")) return;
  event.preventDefault();
  carryOut(command.name, command);
});

// ---- going through the video ------------------------------------------------------------------------------------

let following = false;

function play() {
  if (model.frame === model.last) model.go(0);
  following = false;
  const begun = performance.now(), from = model.frame, fps = model.video.fps || 24;
  $("play").textContent = "❚❚ Pause";
  playing = setInterval(() => {
    const due = Math.min(model.last, from + Math.floor((performance.now() - begun) / 1000 * fps));
    if (stage.shown()?.frame === model.frame || due === model.last) model.go(due); // skips what does not load in time
    if (model.frame === model.last) stop();
  }, 1000 / Math.min(60, fps));
}

function stop() {
  if (playing) clearInterval(playing);
  playing = null;
  $("play").textContent = "▶ Play";
}

$("frame").addEventListener("change", () => { stop(); following = false; model.go(Number($("frame").value)); });
$("frame").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === "Escape") {
    event.preventDefault();
    $("frame").blur();
    $("stage").focus({ preventScroll: true });
  }
});
$("opacity").addEventListener("input", () => { model.opacity = $("opacity").value / 100; model.tell("view"); });
$("follow").addEventListener("change", () => { following = $("follow").checked && Boolean(model.busy); });
$("import-file").addEventListener("change", () => {
  const [file] = $("import-file").files, target = model.target, frame = model.frame;
  $("import-file").value = "";
  if (!file) return;
  const shapes = file.type === "application/json" || file.name.toLowerCase().endsWith(".json");
  model.change(async (seen) => {
    if (shapes) {
      const { objects, moved } = await api.upload(`/api/frames/${frame}/shapes`, file, "application/json", seen);
      const numbers = Object.entries(moved).map(([was, is]) => `${was} is ${is}`);
      if (numbers.length) model.note(`Objects count from 1 here: ${numbers.join(", ")}.`);
      if (target.id === null) target.id = Number(Object.keys(objects)[0]);
    } else await api.upload(`/api/objects/${await objectOf(target)}/frames/${frame}/mask`, file, "image/png", seen);
    model.tell("selection");
  });
});
model.on("scrub", () => { stop(); following = false; });

// ---- where you left off -----------------------------------------------------------------------------------------

let viewTimer = 0;

function saveView() {
  clearTimeout(viewTimer);
  viewTimer = setTimeout(() => {
    if (model.busy && following) return saveView();
    api.put("/api/view", { frame: model.frame, object: model.selected, range: model.range, show: model.show }).catch(() => {});
  }, VIEW_SAVED_AFTER);
}

model.on("frame selection view", saveView);

// ---- what the server tells --------------------------------------------------------------------------------------

function heard(event) {
  if (!model.connected) {
    model.connected = true;
    model.tell("connection");
    reload(); // what happened while nothing was heard is not known
  }
  switch (event.type) {
    case "state":
      if (event.objects.length) looks = null;
      model.setState(event.state, event.objects).catch((error) => model.complain(error.message));
      break;
    case "progress":
      if (model.state) { model.state.busy = event.busy; model.tell("progress"); }
      break;
    case "masks":
      model.newMasks(event.frame, event.cells);
      if (following) model.go(event.frame);
      break;
    case "done":
      if (event.what === "tracking") {
        $("outcome").textContent = event.error ? "" : `${event.text}.`;
        $("look-text").textContent = ""; // what it said of a frame no longer holds
        looks = null;
      }
      if (event.error && event.what === "tracking") model.complain(event.error);
      if (event.what !== "tracking") exportEnded(event);
      following = false;
      model.annotations.clear();
      model.tell("annotations");
      break;
    case "reload":
      reload();
      break;
  }
}

async function reload() {
  try {
    const { view, formats, ...state } = await api.get("/api/state");
    model.annotations.clear();
    await model.setState(state, []);
    await model.loadTimelines();
    model.tell("annotations");
  } catch (error) {
    model.complain(error.message);
  }
}

function goToAddress() { // #frame=120, as report.html and `annotate --frame` have it
  const [, frame] = location.hash.match(/^#frame=(\d{1,9})$/) ?? [];
  if (frame === undefined) return;
  stop();
  following = false;
  model.go(Math.min(Number(frame), model.last));
}

addEventListener("hashchange", () => { if (model.state) goToAddress(); });

async function begin() {
  try {
    await model.load();
  } catch (error) {
    model.complain(error.message);
    return;
  }
  showAll();
  stage.refresh();
  drawTimeline();
  $("stage").focus({ preventScroll: true });
  goToAddress();
  listen(heard, () => {
    if (!model.connected) return;
    model.connected = false;
    model.tell("connection");
  });
  document.body.dataset.ready = "true";
}

begin();

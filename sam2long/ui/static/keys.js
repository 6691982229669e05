// Every command with its keys. The help panel is made from this table, so it says what is so.

export const GROUPS = [
  ["Prompt", [
    ["positive", "q", "Points: this is the object"],
    ["negative", "e", "Points: this is not the object (also right click)"],
    ["box", "r", "Box"],
    ["brush", "w", "Brush: paint onto the mask"],
    ["eraser", "s", "Eraser"],
    ["brush-size", "[ ]", "With brush or eraser: smaller, larger (also the wheel; Ctrl and the wheel zooms)"],
    ["finish", "f", "Finish the object; the next click starts a new one"],
    ["clear", "b", "Clear the object's prompts on this frame"],
    ["lock", "l", "Lock: this frame's mask becomes a prompt"],
    ["undo", "Ctrl+z", "Undo"],
    ["cancel", "Escape", "Cancel tracking; leave the cursor"],
  ]],
  ["Without a mouse", [
    ["cursor", "c", "Keyboard cursor on or off"],
    ["place", "Enter", "Put a point or a box corner at the cursor; put the brush down, lift it"],
    ["cursor-move", "Arrows", "Move the cursor (Shift: 1 pixel)"],
    ["import", "i", "Import a mask (PNG) or shapes (LabelMe JSON)"],
  ]],
  ["Track", [
    ["run", "Ctrl+m", "Forward from this frame, or over the range"],
    ["backward", "Ctrl+Shift+m", "Backward from this frame, or over the range"],
    ["both", "Ctrl+b", "Both ways from this frame"],
    ["range-start", "[ ,", "Range starts here"],
    ["range-end", "] .", "Range ends here"],
    ["range-clear", "\\ ;", "No range"],
  ]],
  ["Go", [
    ["previous", "ArrowLeft a", "Previous frame (Shift: 10)"],
    ["next", "ArrowRight d", "Next frame (Shift: 10)"],
    ["first", "Home", "First frame"],
    ["last", "End", "Last frame"],
    ["play", "Space", "Play or pause"],
    ["go-to", "g", "Type a frame number"],
    ["look-next", "n", "To the middle of the longest stretch that nobody has looked at; again: the next"],
    ["look-before", "Shift+n", "The one before"],
    ["good", "y", "Good: lock this frame's mask, and go to the next frame to look at"],
    ["next-prompt", "p", "Next prompted frame of the object (Shift: before)"],
  ]],
  ["Objects", [
    ["up", "ArrowUp", "Select the object above"],
    ["down", "ArrowDown", "Select the object below"],
    ["number", "1 … 9", "Select the object in this place"],
    ["new-object", "o", "New object"],
    ["name", "F2", "Name the object"],
    ["hide", "h", "Hide or show the object"],
    ["reset-object", "Shift+Delete", "Reset the object"],
    ["remove-object", "Delete", "Remove the object"],
  ]],
  ["View and files", [
    ["show", "v", "Mask, outline, box, rotated box"],
    ["zoom-in", "+ =", "Zoom in (also the wheel)"],
    ["zoom-out", "-", "Zoom out"],
    ["fit", "0", "Fit; Alt and drag moves"],
    ["export", "Ctrl+e", "Export"],
    ["reset", "x", "Reset the tracker"],
    ["help", "?", "These keys"],
  ]],
];

// Some commands have a second meaning with Shift; the command is told.
const WITH_SHIFT = new Set(["previous", "next", "next-prompt"]);

const table = new Map();
for (const [, commands] of GROUPS) {
  for (const [name, keys] of commands) {
    if (["number", "cursor-move", "brush-size"].includes(name)) continue; // not keys but kinds of keys; see below and main.js
    for (const key of keys.split(" ")) table.set(key, name);
  }
}

export function commandOf(event) {
  if (event.altKey) return null;
  let key = event.key === " " ? "Space" : event.key;
  const letter = key.length === 1 && key.toLowerCase() !== key.toUpperCase();
  if (letter) key = key.toLowerCase();
  const control = event.ctrlKey || event.metaKey ? "Ctrl+" : "";
  const exact = `${control}${event.shiftKey && (letter || key.length > 1) ? "Shift+" : ""}${key}`;
  if (table.has(exact)) return { name: table.get(exact), shift: event.shiftKey };
  const name = table.get(control + key);
  if (name && event.shiftKey && WITH_SHIFT.has(name)) return { name, shift: true };
  if (!control && /^[1-9]$/.test(key)) return { name: "number", number: Number(key) };
  return null;
}

export function shownKey(key) {
  const names = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc" };
  if (key === "+") return key;
  return key.split("+").map((part) => names[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join(" ");
}

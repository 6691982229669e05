// Help, export and questions.

import { api } from "./api.js";
import { GROUPS, shownKey } from "./keys.js";
import { model } from "./model.js";

const $ = (id) => document.getElementById(id);

// ---- help -------------------------------------------------------------------------------------------------------

export function help() {
  if (!$("help-keys").children.length) {
    $("help-keys").append(...GROUPS.map(([title, commands]) => {
      const section = document.createElement("section");
      section.append(Object.assign(document.createElement("h3"), { textContent: title }));
      for (const [, keys, text] of commands) {
        const line = document.createElement("div");
        const shown = document.createElement("span");
        const parts = keys === "1 … 9" ? [keys] : keys.split(" ");
        shown.append(...parts.map((key) => Object.assign(document.createElement("kbd"), { textContent: shownKey(key) })));
        line.append(Object.assign(document.createElement("span"), { textContent: text }), shown);
        section.append(line);
      }
      return section;
    }));
  }
  $("help-dialog").showModal();
}

// ---- questions --------------------------------------------------------------------------------------------------

// Answers: [text, value, class] triples; resolves to the value of the one chosen, or null.
export function ask(title, text, answers) {
  const dialog = $("confirm-dialog");
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  return new Promise((resolve) => {
    let answer = null;
    $("confirm-actions").replaceChildren(...[["Cancel", null, ""], ...answers].map(([label, value, kind]) => {
      const button = Object.assign(document.createElement("button"), { textContent: label, className: kind });
      button.addEventListener("click", () => { answer = value; dialog.close(); });
      return button;
    }));
    dialog.addEventListener("close", () => resolve(answer), { once: true });
    dialog.showModal();
    $("confirm-actions").firstElementChild.focus(); // none of these can be undone
  });
}

// ---- export -----------------------------------------------------------------------------------------------------

let exporting = false;

export function openExport() {
  const select = $("export-format");
  if (!select.options.length) {
    select.append(...model.formats.map(({ name }) => new Option(name, name)));
    select.addEventListener("change", chosen);
    $("export-start").addEventListener("click", start);
    $("export-close").addEventListener("click", () => $("export-dialog").close());
  }
  $("export-result").replaceChildren();
  chosen();
  $("export-dialog").showModal();
}

function chosen() {
  const format = model.formats.find(({ name }) => name === $("export-format").value);
  const about = format.description;
  $("export-about").textContent = about[0].toUpperCase() + about.slice(1) + ".";
  $("export-folder").value = `export/${format.name}`;
  $("export-shape").replaceChildren(...format.shapes.map((shape) => new Option(shape, shape)));
  const has = { shape: format.shapes.length > 0, images: format.images, feather: format.feather, band: format.band !== null, "tracked-only": format.is_video };
  for (const [name, there] of Object.entries(has)) {
    document.querySelectorAll(`#export-dialog .${name}`).forEach((part) => { part.hidden = !there; });
  }
  $("export-images").checked = $("export-tracked-only").checked = false;
  $("export-feather").value = 0;
  $("export-band").value = format.band ?? "";
}

async function start() {
  const format = $("export-format").value;
  const shape = $("export-shape").value || null;
  const said = {
    format, shape, folder: $("export-folder").value.trim() || null, images: $("export-images").checked, overwrite: $("export-overwrite").checked,
    feather: Number($("export-feather").value), band: $("export-band").value === "" ? null : Number($("export-band").value), tracked_only: $("export-tracked-only").checked,
  };
  result(["Exporting…"]);
  try {
    exporting = true;
    $("export-start").disabled = true;
    await api.post("/api/export", said);
  } catch (error) {
    exportEnded({ error: error.message });
  }
}

export function exportEnded(event) {
  if (!exporting) return;
  exporting = false;
  $("export-start").disabled = false;
  if (event.error) return result([], [], event.error);
  const link = event.name && Object.assign(document.createElement("a"), { href: `/api/exports/${encodeURIComponent(event.name)}.zip`, textContent: "Download as zip", download: "" });
  result([event.text + ".", ...(link ? [link] : [])], event.lost ?? []);
}

function result(lines, lost = [], error = null) {
  const parts = lines.map((line) => {
    const part = document.createElement("div");
    part.append(line);
    return part;
  });
  for (const text of lost) parts.push(Object.assign(document.createElement("div"), { className: "lost", textContent: `Lost: ${text}` }));
  if (error) parts.push(Object.assign(document.createElement("div"), { className: "error", textContent: error[0].toUpperCase() + error.slice(1) }));
  $("export-result").replaceChildren(...parts);
}

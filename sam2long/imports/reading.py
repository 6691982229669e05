"""`read_prompts`: find out what a file or folder is, and read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sam2long.errors import DataError, PromptError
from sam2long.folder import MANIFEST
from sam2long.imports import coco, labelme
from sam2long.imports.images import masks_from_image, prompts_from_image
from sam2long.imports.numbering import FrameNumbers
from sam2long.imports.prompt import ObjectPrompt
from sam2long.json_file import read_json

EXPECTED = "a LabelMe or X-AnyLabeling JSON, a COCO JSON, a mask PNG, or a folder of such files"


def read_prompts(path: Path | str, names: Sequence[str] | None = None) -> list[ObjectPrompt]:
    """Prompts that another program has written.

    Of a folder that `sam2long export --to labelme` or `x-anylabeling` made, only the frames whose shapes have been
    changed since are read: those are the corrections.

    Args:
        path: a LabelMe or X-AnyLabeling JSON, a COCO JSON, a mask PNG; or a folder of one JSON or PNG per frame, or
            of one folder of PNGs for each object.
        names: stems of the images, where the video is a folder of them; else frames are known by the number in
            the file's name.
    Returns:
        one for each object and frame, in the order of the frames.
    Raises:
        DataError: none of these, or broken; the message names the file and the place in it.
    """
    path = Path(path)
    frames = FrameNumbers(names)
    if path.is_dir():
        prompts = _read_folder(path, frames)
    elif path.suffix.lower() == ".png":
        prompts = masks_from_image(path, frames.of(path.name, path.name))
    else:
        prompts = _read_json([path], frames)
    if not prompts:
        raise DataError(f"{path} says nothing about any object; expected {EXPECTED}")
    return sorted(prompts, key=lambda prompt: (prompt.frame, prompt.obj_id))


def _read_folder(folder: Path, frames: FrameNumbers) -> list[ObjectPrompt]:
    jsons = sorted(file for file in folder.glob("*.json") if file.name != MANIFEST)
    pngs = sorted(folder.glob("*.png"))
    objects = sorted(
        (sub for sub in folder.iterdir() if sub.is_dir() and sub.name.isdecimal()), key=lambda s: int(s.name)
    )
    if jsons:
        return _read_json(_changed(folder, jsons), frames)
    # Frames on which nothing is seen have an all-black image; they say nothing to track.
    numbers: dict[int, int] = {}
    if pngs:
        return [prompt for file in pngs for prompt in prompts_from_image(file, _of(file, frames), numbers)]
    return [
        replace(prompt, obj_id=int(sub.name))
        for sub in objects
        for file in sorted(sub.glob("*.png"))
        for prompt in prompts_from_image(file, _of(file, frames), {})
    ]


def _of(file: Path, frames: FrameNumbers) -> int:
    return frames.of(file.name, f"{file.parent.name}/{file.name}")


def _read_json(files: Sequence[Path], frames: FrameNumbers) -> list[ObjectPrompt]:
    drawings: list[tuple[Path, dict[str, Any]]] = []
    annotations: list[tuple[Path, dict[str, Any]]] = []
    for file, content in _contents(files):
        if labelme.looks_like(content):
            drawings.append((file, content))
        elif coco.looks_like(content):
            annotations.append((file, content))
        else:
            raise DataError(f"{file} is neither LabelMe, X-AnyLabeling nor COCO JSON; expected {EXPECTED}")
    try:
        return coco.read_coco(annotations, frames) + labelme.read_labelme(drawings, frames)
    except PromptError as error:  # a number or a name that no object may have
        raise DataError(str(error)) from None


def _changed(folder: Path, files: Sequence[Path]) -> list[Path]:
    """The files of an export whose shapes are no longer those that it wrote; all files, where it is no export."""
    try:
        written = read_json(folder / MANIFEST, "that of an export")["shapes"]
    except (DataError, KeyError, TypeError):
        return list(files)
    changed = [
        file
        for file, content in _contents(files)
        if not labelme.looks_like(content) or labelme.fingerprint(content) != written.get(file.name)
    ]
    if not changed:
        raise DataError(
            f"no frame in {folder} has been changed since it was exported; correct one there, or name one of its files"
        )
    return changed


def _contents(files: Sequence[Path]) -> Iterator[tuple[Path, Any]]:
    return ((file, read_json(file, EXPECTED)) for file in files)

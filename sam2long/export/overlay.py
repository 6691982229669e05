"""overlay.mp4: the video with its masks painted on, in the order of the video whatever order they were found in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from sam2long.export.fonts import font_of, shown_names
from sam2long.export.masks import MaskReader
from sam2long.video import FrameSource, VideoWriter

FALLBACK_FPS = 24.0  # for folders of images, which have no clock; the rate of DAVIS
OPACITY = 0.45
COLOURS = (  # told apart on most pictures, also by people who do not see red or green
    (0, 158, 255), (255, 140, 0), (0, 200, 120), (235, 60, 130), (250, 220, 40),
    (150, 100, 255), (120, 230, 240), (255, 110, 90), (170, 200, 60), (220, 160, 220),
)  # fmt: skip


def paint(image: np.ndarray, masks: Mapping[int, np.ndarray], labels: Mapping[int, str]) -> np.ndarray:
    """Colour masks into a frame, with a bright edge, and a name where there is one.

    Args:
        image: [H, W, 3] uint8, left as it is.
        masks: object id -> [H, W] bool.
        labels: object id -> name; its order gives the colours.
    Returns:
        [H, W, 3] uint8.
    """
    image = image.copy()
    order, shown = list(labels), shown_names(labels)
    names = []
    edge = max(1, round(min(image.shape[:2]) / 360))  # 2 pixels at 720p
    for obj_id, mask in masks.items():
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows) == 0:
            continue
        colour = np.array(COLOURS[order.index(obj_id) % len(COLOURS)] if obj_id in order else COLOURS[0])
        top, bottom = max(rows[0] - edge, 0), rows[-1] + 1 + edge
        left, right = max(columns[0] - edge, 0), columns[-1] + 1 + edge
        part, inside = image[top:bottom, left:right], mask[top:bottom, left:right]
        part[inside] = (part[inside] * (1 - OPACITY) + colour * OPACITY).astype(np.uint8)
        part[inside & ~_eroded(inside, edge)] = colour
        names.append((shown.get(obj_id, ""), (int(left), int(top)), tuple(int(c) for c in colour)))
    return _write_names(image, names)


def paint_boxes(
    image: np.ndarray, boxes: Mapping[int, tuple[float, float, float, float]], labels: Mapping[int, str]
) -> np.ndarray:
    """Draw boxes on a frame, each with a name.

    Args:
        image: [H, W, 3] uint8, left as it is.
        boxes: object id -> x1, y1, x2, y2 in pixels; its order gives the colours.
        labels: object id -> name.
    Returns:
        [H, W, 3] uint8.
    """
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    width = max(1, round(min(image.shape[:2]) / 180))
    names: list[tuple[str, tuple[int, int], tuple[int, ...]]] = []
    shown = shown_names(labels)
    for number, (obj_id, (x1, y1, x2, y2)) in enumerate(boxes.items()):
        colour = COLOURS[number % len(COLOURS)]
        draw.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=colour, width=width)
        names.append((shown.get(obj_id, ""), (int(x1), int(y1)), colour))
    return _write_names(np.array(canvas), names)


def write_overlay(
    source: FrameSource,
    masks: MaskReader,
    path: Path,
    labels: Mapping[int, str],
    progress: Callable[[int], object] = lambda done: None,
) -> str | None:
    """Render the tracked frames, from the first to the last that has masks.

    Args:
        source: the frames that were tracked, opened anew with the range of `masks` (sound is cut to it).
        masks: of the run.
        path: of the mp4; appears when it is complete.
        labels: object id -> name.
        progress: called after each frame with the number done.
    Returns:
        why the video's sound was left out; None when it was not, or when there is none.
    """
    offset = masks.frames[0]
    variable = source.variable_rate
    first_time = None
    with VideoWriter(
        path, source.fps or FALLBACK_FPS, source.width, source.height, audio_from=source, looks=source.looks,
        timecode=source.timecode,
    ) as out:  # fmt: skip
        for frame in source:
            picture = paint(frame.image, masks.masks(offset + frame.index), labels)
            first_time = frame.time if first_time is None else first_time
            at = None if frame.time is None or first_time is None or not variable else frame.time - first_time
            out.write(picture, at)
            progress(frame.index + 1)
    return out.audio_note


def _eroded(mask: np.ndarray, steps: int) -> np.ndarray:
    """The mask without its outer pixels."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def _write_names(image: np.ndarray, names: list[tuple[str, tuple[int, int], tuple[int, ...]]]) -> np.ndarray:
    if not any(name for name, _, _ in names):
        return image
    size = max(11, image.shape[0] // 36)
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    for name, (left, top), colour in names:
        if name:
            font = font_of(name, size)
            place = (left, max(0, top - size - 4))
            draw.rectangle(draw.textbbox(place, name, font=font), fill=(20, 20, 20))
            draw.text(place, name, font=font, fill=colour)
    return np.array(canvas)

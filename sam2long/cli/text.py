"""--text: the objects of a picture, found by words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sam2long.detection import Detection, TextDetector
from sam2long.errors import ConfigError, PromptError
from sam2long.runs.prompting import ObjectPrompt


def find_by_words(detector: TextDetector, image: Any, frame: int, max_objects: int) -> list[Detection]:
    """The objects of a picture that words name, the best first.

    Args:
        detector: knows the words.
        image: [H, W, 3] uint8, RGB.
        frame: of the video, for the message.
        max_objects: how many to keep.
    Raises:
        ConfigError: max_objects below 1.
        PromptError: nothing scores enough; the message names what came nearest.
    """
    if max_objects < 1:
        raise ConfigError(f"--max-objects is {max_objects}; expected 1 or more")
    if found := detector(image)[:max_objects]:
        return found
    nearest = next(iter(detector.seen(image)), None)
    said = f"the best was {nearest.label} with {nearest.score:.3f}" if nearest else "nothing was like it at all"
    raise PromptError(
        f'--text "{". ".join(detector.phrases)}" found nothing on frame {frame} that scores {detector.min_score:g} or '
        f"more ({said}); lower --min-score, use other words or another --frame, or show the object with --box"
    )


def as_prompts(found: Sequence[Detection], frame: int) -> list[ObjectPrompt]:
    """Detections as boxes to track, numbered from 1."""
    return [
        ObjectPrompt(frame=frame, obj_id=number, label=entry.label, box=entry.box)
        for number, entry in enumerate(found, 1)
    ]


def table(found: Sequence[Detection]) -> str:
    """A line for each, as "1 a brown dog 0.83: 10,20,100,80"."""
    return "\n".join(
        f"{number} {entry.label} {entry.score:.2f}: {','.join(f'{value:.0f}' for value in entry.box)}"
        for number, entry in enumerate(found, 1)
    )


def save_picture(image: Any, found: Sequence[Detection], path: Path) -> None:
    """The boxes drawn on the picture with their numbers, words and scores, as JPEG.

    Args:
        image: [H, W, 3] uint8, RGB, left as it is.
    """
    from PIL import Image

    from sam2long.export.atomic import replacing
    from sam2long.export.job import JPEG_QUALITY
    from sam2long.export.overlay import paint_boxes

    drawn = paint_boxes(
        image,
        {number: entry.box for number, entry in enumerate(found, 1)},
        {number: f"{number} {entry.label} {entry.score:.2f}" for number, entry in enumerate(found, 1)},
    )
    with replacing(path) as partial:
        Image.fromarray(drawn).save(partial, "JPEG", quality=JPEG_QUALITY)

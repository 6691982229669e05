"""Objects that nobody pointed at: everything in a picture, or what words name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2long.detection import DEFAULT_DETECTOR, Detection, TextDetector, check_search
from sam2long.errors import ConfigError, PromptError
from sam2long.imports.prompt import ObjectPrompt
from sam2long.naming import MOST_LETTERS

if TYPE_CHECKING:
    import numpy as np
    import torch

MOST_OBJECTS = 20  # that one search keeps
LEAST_SCORE = 0.2  # of what words find
POINTS_PER_SIDE = 32  # of the grid that everything is segmented from, as in sam2


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search gave."""

    prompts: list[ObjectPrompt]
    says: str  # a line or more about it, for people
    boxes: Sequence[Detection] = ()  # of a search by words, for its picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything:
    """The objects of a picture, found by sam2's automatic mask generator, the largest first.

    Args:
        frame: of the video; None for the first one tracked.
        max_objects: how many to keep.
        points_per_side: of the grid of points; fewer is quicker and finds less.
    Raises:
        ConfigError: a number below 1.
    """

    frame: int | None = None
    max_objects: int = MOST_OBJECTS
    points_per_side: int = POINTS_PER_SIDE

    def __post_init__(self) -> None:
        _require_one(self.max_objects)
        if self.points_per_side < 1:
            raise ConfigError(f"points_per_side is {self.points_per_side}; expected 1 or more")

    def load(self, device: torch.device) -> None:
        """Nothing beside the predictor is needed."""

    def find(self, predictor: Any, image: np.ndarray, frame: int) -> Found:
        """
        Args:
            predictor: its image side is used. image: [H, W, 3] uint8. frame: of the video, for the prompts.
        Raises:
            ConfigError: a network that has no automatic mask generator.
            PromptError: nothing was found.
        """
        from sam2long.network.sam2 import automatic_mask_generator, is_sam2s

        if not is_sam2s(predictor.network):
            raise ConfigError(
                "--auto needs a model of sam2's package (--model sam2.1-tiny, ...); with this one, say where the "
                "objects are with --box, --point or --text"
            )
        generator = automatic_mask_generator(predictor.network, points_per_side=self.points_per_side)
        found = sorted(generator.generate(image), key=lambda entry: -entry["area"])[: self.max_objects]
        if not found:
            raise PromptError(
                f"--auto found no object on frame {frame}; it needs one of Meta's models (--model sam2.1-tiny or "
                "larger: nano is not made for it), or choose another --frame, or say where the object is with --box or "
                "--point"
            )
        prompts = [
            ObjectPrompt(frame=frame, obj_id=number, mask=entry["segmentation"])
            for number, entry in enumerate(found, 1)
        ]
        return Found(prompts=prompts, says=f"found {len(prompts)} objects on frame {frame}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The objects of a picture that words name, those that score best first.

    Args:
        text: what to find, with a period between things: "a brown dog. a ball."
        frame: of the video; None for the first one tracked.
        max_objects: how many to keep.
        min_score: 0 to 1; what scores less is not found.
        detector: hub id of a model for zero-shot object detection, or a folder with a download.
    Raises:
        ConfigError: no words, or a number out of range.
    """

    text: str
    frame: int | None = None
    max_objects: int = MOST_OBJECTS
    min_score: float = LEAST_SCORE
    detector: str = DEFAULT_DETECTOR

    def __post_init__(self) -> None:
        check_search(self.text, self.min_score)
        _require_one(self.max_objects)

    def load(self, device: torch.device) -> TextDetector:
        """The detector; its network is loaded once per process."""
        return TextDetector(self.text, self.detector, self.min_score, device)

    def find(self, predictor: Any, image: np.ndarray, frame: int) -> Found:
        """
        Args:
            predictor: the detector computes on its device. image: [H, W, 3] uint8. frame: of the video.
        Raises:
            PromptError: nothing scores enough; the message names what came nearest.
        """
        detector = self.load(predictor.device)
        if not (found := detector(image)[: self.max_objects]):
            nearest = next(iter(detector.seen(image)), None)
            best = f"the best was {nearest.label} with {nearest.score:.3f}" if nearest else "nothing was like it at all"
            raise PromptError(
                f'--text "{". ".join(detector.phrases)}" found nothing on frame {frame} that scores '
                f"{self.min_score:g} or more ({best}); lower --min-score, use other words or another --frame, or show "
                "the object with --box"
            )
        prompts = [
            ObjectPrompt(frame=frame, obj_id=number, label=entry.label[:MOST_LETTERS], box=entry.box)
            for number, entry in enumerate(found, 1)
        ]
        return Found(prompts=prompts, says=table(found), boxes=found)


def table(found: Sequence[Detection]) -> str:
    """A line for each, as "1 a brown dog 0.83: 10,20,100,80"."""
    return "\n".join(
        f"{number} {entry.label} {entry.score:.2f}: {','.join(f'{value:.0f}' for value in entry.box)}"
        for number, entry in enumerate(found, 1)
    )


def save_picture(image: np.ndarray, found: Sequence[Detection], path: Path) -> None:
    """The boxes drawn on the picture with their numbers, words and scores, as JPEG.

    Args:
        image: [H, W, 3] uint8, RGB, left as it is.
    """
    from PIL import Image

    from sam2long.atomic import replacing
    from sam2long.export.job import JPEG_QUALITY
    from sam2long.export.overlay import paint_boxes

    drawn = paint_boxes(
        image,
        {number: entry.box for number, entry in enumerate(found, 1)},
        {number: f"{number} {entry.label} {entry.score:.2f}" for number, entry in enumerate(found, 1)},
    )
    with replacing(path) as partial:
        Image.fromarray(drawn).save(partial, "JPEG", quality=JPEG_QUALITY)


def _require_one(max_objects: int) -> None:
    if max_objects < 1:
        raise ConfigError(f"--max-objects is {max_objects}; expected 1 or more")

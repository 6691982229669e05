"""--auto: the objects of a picture, found by sam2's automatic mask generator."""

from __future__ import annotations

from typing import Any

from sam2long.errors import ConfigError, PromptError
from sam2long.runs.prompting import ObjectPrompt


def segment_everything(
    predictor: Any, image: Any, frame: int, points_per_side: int, max_objects: int
) -> list[ObjectPrompt]:
    """The objects of a picture by sam2's automatic mask generator, the largest first.

    Args:
        predictor: its image side is used.
        image: [H, W, 3] uint8.
        frame: of the video, for the prompts.
        points_per_side: of the grid of points.
        max_objects: how many to keep.
    """
    from sam2long import SAM2LongVideoPredictor
    from sam2long.network.sam2_adapter import automatic_mask_generator

    if points_per_side < 1 or max_objects < 1:
        raise ConfigError(
            f"--points-per-side is {points_per_side} and --max-objects {max_objects}; expected 1 or more of each"
        )
    if not isinstance(predictor, SAM2LongVideoPredictor):
        raise ConfigError(
            "--auto needs a model of sam2's package (--model sam2.1-tiny, ...); with this one, say where the objects "
            "are with --box, --point or --text"
        )
    generator = automatic_mask_generator(predictor, points_per_side=points_per_side)
    found = sorted(generator.generate(image), key=lambda entry: -entry["area"])[:max_objects]
    if not found:
        raise PromptError(
            f"--auto found no object on frame {frame}; it needs one of Meta's models (--model sam2.1-tiny or larger: "
            "nano is not made for it), or choose another --frame, or say where the object is with --box or --point"
        )
    return [
        ObjectPrompt(frame=frame, obj_id=number, mask=entry["segmentation"]) for number, entry in enumerate(found, 1)
    ]

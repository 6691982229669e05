"""Things found in a picture by words: open-vocabulary detectors of the Hugging Face hub, through transformers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sam2long.errors import ConfigError, ModelError
from sam2long.extras import require
from sam2long.network.host import plain_torch

if TYPE_CHECKING:
    import numpy as np
    import torch

DEFAULT_DETECTOR = "google/owlv2-base-patch16-ensemble"  # Apache-2.0
TASK = "zero-shot-object-detection"
LOWEST_SCORE = 0.01  # below it detectors name something everywhere
SAME_THING = 0.7  # IoU of two boxes above which they are of one thing


@dataclass(frozen=True, slots=True)
class Detection:
    """A thing in a picture."""

    box: tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels, inside the picture
    label: str  # the words that it was found by
    score: float  # 0 to 1


class TextDetector:
    """Finds things in pictures by words. Its network is loaded once per process, for all detectors of one model.

    Args:
        words: what to find, with a period between things: "a brown dog. a ball."
        model: hub id of a model for transformers' pipeline "zero-shot-object-detection", or a folder with a download.
        min_score: 0 to 1; what scores less is not found.
        device: where its network computes. Default: the best there is.
    Raises:
        ConfigError: no words, or more than the detector reads at once; min_score out of range; no transformers.
        ModelError: the detector cannot be had; the message says how to get it.
    """

    def __init__(
        self,
        words: str,
        model: str = DEFAULT_DETECTOR,
        min_score: float = 0.2,
        device: str | torch.device | None = None,
    ) -> None:
        self.phrases = check_search(words, min_score)
        self.model = model
        self.min_score = min_score
        self._pipeline = _loaded(model, str(device or _best_device()))
        self._require_short_phrases()

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """What is found in a picture, the best first, each thing once: of boxes that nearly coincide, the better.

        Args:
            image: [H, W, 3] uint8, RGB.
        """
        return without_duplicates(found for found in self.seen(image) if found.score >= self.min_score)

    def seen(self, image: np.ndarray) -> list[Detection]:
        """All that the network takes for one of the things, also below min_score, the best first.

        Args:
            image: [H, W, 3] uint8, RGB.
        """
        from PIL import Image

        height, width = image.shape[:2]
        with _silence(), plain_torch():
            answers = self._pipeline(
                Image.fromarray(image), candidate_labels=self.phrases, threshold=min(self.min_score, LOWEST_SCORE)
            )
        found = []
        for answer in answers:
            x1, y1, x2, y2 = (float(answer["box"][key]) for key in ("xmin", "ymin", "xmax", "ymax"))
            box = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
            if box[0] < box[2] and box[1] < box[3]:
                found.append(Detection(box, answer["label"], float(answer["score"])))
        return sorted(found, key=lambda entry: -entry.score)

    def _require_short_phrases(self) -> None:
        config = self._pipeline.model.config
        limit = getattr(getattr(config, "text_config", config), "max_position_embeddings", None)
        for phrase in self.phrases:
            with _silence():
                length = len(self._pipeline.tokenizer(phrase)["input_ids"])
            if limit is not None and length > limit:
                raise ConfigError(
                    f'"{phrase}" is {length} tokens for the detector, which reads {limit}; use fewer words, with a '
                    "period between things"
                )


def check_search(words: str, min_score: float = 0.2) -> list[str]:
    """The things that words name, each once.

    Args:
        words: with a period between things.
        min_score: 0 to 1.
    Raises:
        ConfigError: no words, or min_score out of range.
    """
    phrases = list(dict.fromkeys(phrase for part in words.split(".") if (phrase := " ".join(part.split()))))
    if not phrases:
        raise ConfigError(f'--text is {words!r}; expected words, with a period between things: "a brown dog. a ball."')
    if not 0 <= min_score <= 1:
        raise ConfigError(f"--min-score is {min_score}; expected 0 to 1")
    return phrases


def without_duplicates(detections: Iterable[Detection]) -> list[Detection]:
    """Each thing once, the best first: of boxes whose IoU is above 0.7 the one that scores best, whatever they are
    called."""
    kept: list[Detection] = []
    for entry in sorted(detections, key=lambda entry: -entry.score):
        if all(box_iou(entry.box, other.box) <= SAME_THING for other in kept):
            kept.append(entry)
    return kept


def box_iou(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2)."""
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / both if both > 0 else 0.0


def _best_device() -> torch.device:
    from sam2long.network.devices import best_device

    return best_device()


@lru_cache(maxsize=1)
def _loaded(model: str, device: str) -> Any:
    """transformers' pipeline, on a device."""
    transformers = require("transformers", "text", "--text")
    try:
        with _silence(), plain_torch():
            return transformers.pipeline(TASK, model=model, device=device, trust_remote_code=False)
    except Exception as error:  # of many libraries; all mean "not to be had"
        reason = type(error).__name__
        if os.path.exists(model):
            raise ModelError(
                f"{model} is no detector that transformers can load for {TASK} ({reason}); pass a folder made by "
                f"`hf download {DEFAULT_DETECTOR} --local-dir FOLDER`, or a hub id, as --detector"
            ) from error
        raise ModelError(
            f"the detector {model} is not in the Hugging Face cache and could not be downloaded and loaded "
            f"({reason}); try again with a network, or run `hf download {DEFAULT_DETECTOR} --local-dir FOLDER` where "
            "there is one and pass --detector FOLDER"
        ) from error


@contextmanager
def _silence() -> Iterator[None]:
    """Without the notes and progress bars of transformers and the hub's client."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging as ours

    loggers = [(module, module.get_verbosity()) for module in (hub, ours)]
    bars, hub_bars = ours.is_progress_bar_enabled(), not are_progress_bars_disabled()
    try:
        for module, _ in loggers:
            module.set_verbosity(50)  # logging.CRITICAL: errors are raised, too
        ours.disable_progress_bar()
        disable_progress_bars()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for module, level in loggers:
            module.set_verbosity(level)
        if bars:
            ours.enable_progress_bar()
        if hub_bars:
            enable_progress_bars()

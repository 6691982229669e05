"""Predictors of the same size over every network that there is, so that the same tests run over all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sam2long import SAM2LongVideoPredictor
from sam2long.tracking import close_up
from tests.fakes import tiny_predictor
from tests.transformers_models import KINDS, predictor_of

CLOSE_UP = "close up"
# The others take three times as long again: with the long tests.
BACK_ENDS = ["sam2", *(pytest.param(f"transformers {kind}", marks=pytest.mark.slow) for kind in KINDS)]


def back_end(name: str, seed: int | None = None, **options) -> SAM2LongVideoPredictor:
    """A lively predictor; the same name and seed give the same weights."""
    if name == "sam2":
        return tiny_predictor(1 if seed is None else seed, **options)
    pytest.importorskip("transformers")
    return predictor_of(name.removeprefix("transformers "), seed, **options)


@contextmanager
def opened(name: str) -> Iterator[SAM2LongVideoPredictor]:
    """`back_end`, or sam2's that tracks what takes up to 0.65 of the picture in windows which move all the time."""
    if name != CLOSE_UP:
        yield back_end(name)
        return
    predictor = back_end("sam2")
    predictor.network.image_encoder.trunk.close_up = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(close_up, "WIDTH", 1.0)
        patch.setattr(close_up, "DETAIL", 0.0)
        yield predictor


def name_of(predictor: SAM2LongVideoPredictor) -> str:
    """What `back_end` calls a predictor."""
    kinds = {"Sam2VideoModel": "sam2", "EdgeTamVideoModel": "edgetam", "Sam3TrackerVideoModel": "sam3"}
    network = type(predictor.network).__name__
    return f"transformers {kinds[network]}" if network in kinds else "sam2"

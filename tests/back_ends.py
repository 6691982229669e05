"""Predictors of the same size over every network that there is, so that the same tests run over all."""

from __future__ import annotations

import pytest

from sam2long import SAM2LongVideoPredictor
from tests.fakes import tiny_predictor
from tests.transformers_models import KINDS, predictor_of

# The others take three times as long again: with the long tests.
BACK_ENDS = ["sam2", *(pytest.param(f"transformers {kind}", marks=pytest.mark.slow) for kind in KINDS)]


def back_end(name: str, seed: int | None = None, **options) -> SAM2LongVideoPredictor:
    """A lively predictor; the same name and seed give the same weights."""
    if name == "sam2":
        return tiny_predictor(1 if seed is None else seed, **options)
    pytest.importorskip("transformers")
    return predictor_of(name.removeprefix("transformers "), seed, **options)


def name_of(predictor: SAM2LongVideoPredictor) -> str:
    """What `back_end` calls a predictor."""
    kinds = {"Sam2VideoModel": "sam2", "EdgeTamVideoModel": "edgetam", "Sam3TrackerVideoModel": "sam3"}
    network = type(predictor.network).__name__
    return f"transformers {kinds[network]}" if network in kinds else "sam2"

"""float16: on the CPU as on a GPU that has no bfloat16."""

import copy

import pytest
import torch

from sam2long import SAM2LongVideoPredictor
from sam2long.errors import ConfigError
from sam2long.network.precision import is_finite_in
from tests.back_ends import BACK_ENDS, back_end
from tests.fakes import OTHER, noise_video, tiny_predictor

VIDEO = noise_video(8)


@pytest.mark.parametrize("network", BACK_ENDS)
def test_float16_tracks_about_the_same_and_remembers_in_it(network):
    full = back_end(network)
    half = SAM2LongVideoPredictor.from_sam2(full, full.sam2long, "float16")
    found = []
    for predictor in (full, half):
        state = predictor.init_state(VIDEO)
        predictor.add_new_points_or_box(state, 0, 1, box=[20, 10, 50, 40])
        predictor.add_new_mask(state, 2, 2, OTHER)
        found.append({frame: masks for frame, _, masks in predictor.propagate_in_video(state)})
        predictor.add_new_points_or_box(state, 5, 1, points=[[30.0, 30.0]], labels=[1])
    kept = [memory.mask_features for obj in state.session.objects.values() for track in obj.tracks.values()
            for pathway in track.now.pathways for memory in pathway.memories]  # fmt: skip
    assert {each.dtype for each in kept if each is not None} == {torch.float16}
    for frame, masks in found[0].items():
        assert masks.dtype == found[1][frame].dtype == torch.float32 and found[1][frame].isfinite().all()
        assert ((masks > 0) == (found[1][frame] > 0)).float().mean() > 0.98, frame


def test_what_overflows_is_found_out():
    safe = tiny_predictor()
    assert is_finite_in(torch.float16, safe.steps())
    overflowing = copy.deepcopy(safe.network)
    with torch.no_grad():
        for parameter in overflowing.sam_mask_decoder.parameters():
            parameter.mul_(1e4)
    assert not is_finite_in(torch.float16, SAM2LongVideoPredictor.from_sam2(overflowing).steps())


@pytest.mark.parametrize(("fast", "safe", "expected"), [
    (True, True, torch.bfloat16), (False, True, torch.float16), (False, False, torch.float32),
])  # fmt: skip
def test_auto_takes_what_the_card_has(monkeypatch, fast, safe, expected):
    tried, ours = [], tiny_predictor()
    monkeypatch.setattr(SAM2LongVideoPredictor, "device", torch.device("cuda", 0))
    monkeypatch.setattr("sam2long.network.held.fast_bfloat16", lambda device: fast)
    monkeypatch.setattr("sam2long.network.held.is_finite_in", lambda *asked: tried.append(asked) or safe)
    assert [ours.compute_dtype(), ours.compute_dtype()] == [expected] * 2
    assert len(tried) == (not fast), "once for a device"


def test_half_weights_of_sam2_on_a_cpu_are_refused_in_a_sentence():
    halved = tiny_predictor()
    halved.half()
    with pytest.raises(ConfigError, match="float16.*float"):
        halved.init_state(VIDEO)

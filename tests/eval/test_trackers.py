"""The trackers on a real (tiny, random) sam2 model: the baseline is plain SAM 2, late objects start where they
should."""

import numpy as np
import pytest
import torch

from eval import datasets, trackers
from eval.trackers import PlainSam2, Sam2Long, TrackerSpec
from tests.eval import trees

SAM2_SETTINGS = {"num_pathways": 1, "object_aware_memory": False, "modulation": [1.0, 1.0]}


@pytest.fixture
def with_model(monkeypatch, tiny):
    """Trackers around the tiny predictor instead of a built one."""
    from sam2long import Sam2LongConfig, SAM2LongVideoPredictor

    def build(self, spec):
        self.spec, self._cuda = spec, False
        self.predictor = SAM2LongVideoPredictor.from_sam2(tiny, Sam2LongConfig.from_mapping(spec.sam2long))

    monkeypatch.setattr(trackers._Torch, "__init__", build)


@pytest.fixture
def late(tmp_path):
    dataset = datasets.open_dataset("lvos-v2", trees.lvos(tmp_path / "data"))
    video = dataset.video("vid_a")
    return dataset, video, dataset.prompts(video)


def track(tracker, late, tmp_path):
    dataset, video, prompts = late
    with dataset.frames_folder(video, tmp_path / "work") as folder:
        return dict(tracker.track(folder, video, prompts))


def test_baseline_is_sam2s_own_predictor_run_object_by_object(with_model, late, tmp_path):
    dataset, video, prompts = late
    tracker = PlainSam2(TrackerSpec(method="sam2"))
    ours = track(tracker, late, tmp_path)
    with dataset.frames_folder(video, tmp_path / "work") as folder, torch.inference_mode():
        for row, p in enumerate(prompts):
            state = tracker.plain.init_state(str(folder))
            tracker.plain.add_new_mask(state, p.frame, p.obj, p.mask)
            for frame, _, masks in tracker.plain.propagate_in_video(state, start_frame_idx=p.frame):
                assert np.array_equal(ours[frame][row], masks[0, 0].numpy()), (frame, row)
    assert any((logits > 0).any() for logits in ours.values())


def test_sam2long_with_everything_switched_off_is_the_baseline(with_model, late, tmp_path):
    plain = track(PlainSam2(TrackerSpec(method="sam2")), late, tmp_path)
    off = track(Sam2Long(TrackerSpec(sam2long=SAM2_SETTINGS)), late, tmp_path)
    differing = np.mean([np.mean((plain[t] > 0) != (off[t] > 0)) for t in plain])
    assert differing < 1e-4


@pytest.mark.parametrize("kind", [PlainSam2, Sam2Long])
def test_a_late_object_has_no_mask_before_its_prompt(with_model, late, tmp_path, kind):
    frames = track(kind(TrackerSpec()), late, tmp_path)
    assert sorted(frames) == list(range(trees.FRAMES))
    assert all((frames[t][1] == trackers.NO_OBJECT).all() for t in range(3))
    assert all((frames[t][1] > trackers.NO_OBJECT).any() for t in range(3, trees.FRAMES))


def test_a_long_baseline_run_forgets_old_outputs(with_model, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "OLD_OUTPUTS_KEPT", 2)
    dataset = datasets.open_dataset("davis17-val", trees.davis17(tmp_path / "data"))
    video = dataset.video("vid_b")
    tracker, kept = PlainSam2(TrackerSpec(method="sam2")), []
    forget = trackers._forget

    def spy(outputs, before):
        forget(outputs, before)
        kept.append(len(outputs[0]["non_cond_frame_outputs"]))

    monkeypatch.setattr(trackers, "_forget", spy)
    with dataset.frames_folder(video, tmp_path / "work") as folder:
        list(tracker.track(folder, video, dataset.prompts(video)))
    assert max(kept) <= 3

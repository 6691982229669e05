"""The masks of the released program, where the cases are at hand: `../shared/data/parity`."""

import numpy as np
import pytest

from sam2long import Sam2LongConfig, build_sam2long_video_predictor

CLIPS = (101, 102, 103, 104)
CONFIG = Sam2LongConfig(iou_threshold=0.1)
ALLOWED = 12  # pixels of 1.5 million a clip: floating-point noise


@pytest.fixture(scope="module")
def predictor(shared_data):
    folder = shared_data / "parity"
    return build_sam2long_video_predictor(
        folder / "ref.yaml", folder / "ref.pt", device="cpu", apply_postprocessing=False, sam2long=CONFIG
    )


@pytest.fixture(scope="module", params=CLIPS)
def clip(request, shared_data):
    data = np.load(shared_data / "parity" / f"clip{request.param}.npz")
    shape = tuple(data["shape"])
    masks = np.unpackbits(data["masks"])[: np.prod(shape)].reshape(shape).astype(bool)
    return data["video"], data["ids"][0], masks


def differing(predicted: dict[int, np.ndarray], reference: np.ndarray) -> int:
    assert list(predicted) == list(range(len(reference)))
    return sum(int((predicted[frame] != reference[frame]).sum()) for frame in predicted)


def test_offline_masks_are_the_released_programs(predictor, clip):
    video, ids, reference = clip
    state = predictor.init_state(video)
    predictor.add_new_mask(state, 0, 1, ids == 1)
    masks = {frame: (logits[0, 0] > 0).numpy() for frame, _, logits in predictor.propagate_in_video(state)}
    assert differing(masks, reference) <= ALLOWED
    assert state.encoder_passes == len(video)


@pytest.mark.parametrize("clip", CLIPS[:2], indirect=True)
def test_streamed_masks_are_the_released_programs(predictor, clip):
    video, ids, reference = clip
    state = predictor.init_stream(video[0])
    predictor.add_new_mask(state, 0, 1, ids == 1)
    out = [masks for image in video[1:] for masks in predictor.track(state, image)] + predictor.finish(state)
    assert differing({frame: (logits[0, 0] > 0).numpy() for frame, _, logits in out}, reference) <= ALLOWED


@pytest.mark.parametrize("clip", CLIPS[2:3], indirect=True)
def test_the_masks_do_not_depend_on_other_objects(predictor, clip):
    video, ids, reference = clip
    state = predictor.init_state(video)
    predictor.add_new_mask(state, 0, "before", np.roll(ids == 1, 17, axis=0))
    predictor.add_new_mask(state, 0, 1, ids == 1)
    predictor.add_new_mask(state, 0, "after", np.roll(ids == 1, 23, axis=1))
    masks = {frame: (logits[1, 0] > 0).numpy() for frame, _, logits in predictor.propagate_in_video(state)}
    assert differing(masks, reference) <= ALLOWED

"""Whatever prompt sam2's predictor takes, ours takes with everything off, and it means the same: the differential test.

SAM2LONG_EXAMPLES sets how many prompts are drawn; the slow test draws more.
"""

from __future__ import annotations

import os
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from sam2long import Sam2LongConfig
from sam2long.errors import PromptError
from sam2long.tracking.prompts import require_sense
from tests.fakes import SIDE, TINY, jpeg_folder, noise_video, reconfigured, tiny_predictor

HEIGHT, WIDTH = 48, 80  # not the model's size, not square
FRAMES = 4
FEW = int(os.environ.get("SAM2LONG_EXAMPLES", "25"))
MANY = 8 * FEW
QUIET = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


def sam2_tiny():
    config = OmegaConf.load(TINY).model
    config._target_ = "sam2.sam2_video_predictor.SAM2VideoPredictor"
    return instantiate(config, _recursive_=True).eval()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(ours with everything off, sam2's own, a folder with a video)"""
    ours = reconfigured(tiny_predictor(), Sam2LongConfig.sam2())
    theirs = sam2_tiny()
    theirs.load_state_dict(ours.state_dict())
    folder = jpeg_folder(tmp_path_factory.mktemp("video") / "frames", noise_video(FRAMES), (WIDTH, HEIGHT))
    return ours, theirs, str(folder)


NUMBERS = st.one_of(
    st.integers(-20, 100),
    st.floats(-30, 120, width=32),
    st.sampled_from([-0.4, 0, 0.5, WIDTH, WIDTH + 0.6, HEIGHT, 1e6, -1e6]),
)
LABELS = st.sampled_from([0, 0, 1, 1, 1, 2, 3, -1, 4, -5, 7])
MAKERS = {
    "list": lambda values: values,
    "float64": lambda values: np.asarray(values, np.float64),
    "float32": lambda values: np.asarray(values, np.float32),
    "turned": lambda values: np.asarray(values, np.float64)[::-1][::-1],
    "big endian": lambda values: np.asarray(values, ">f8"),
    "int64": lambda values: np.asarray(values, np.float64).astype(np.int64),
    "tensor": lambda values: torch.tensor(values, dtype=torch.float32),
    "double tensor": lambda values: torch.tensor(values, dtype=torch.float64),
    # SIDE times more is still a number in float16; an infinite click is not the same to both (docs/method.md)
    "half tensor": lambda values: torch.tensor(values, dtype=torch.float32).clamp(-900, 900).half(),
    "int tensor": lambda values: torch.tensor(values, dtype=torch.float64).long(),
}


@st.composite
def pointings(draw):
    count = draw(st.integers(0, 4))
    values = {}
    if count or draw(st.booleans()):
        points = [[draw(NUMBERS), draw(NUMBERS)] for _ in range(count)]
        labels = [draw(LABELS) for _ in range(count - (draw(st.integers(0, 19)) == 0))]
        batched = draw(st.booleans())
        if count == 0 and draw(st.booleans()):
            points = np.zeros((0, 2), np.float32)
        elif count:
            points = draw(st.sampled_from(list(MAKERS.values())))([points] if batched else points)
            labels = draw(st.sampled_from(list(MAKERS.values())))(labels) if labels else labels
        values |= {"points": points, "labels": labels}
    if not values or draw(st.booleans()):
        box = [draw(NUMBERS) for _ in range(draw(st.sampled_from([4, 4, 4, 4, 3, 8])))]
        if len(box) == 4 and draw(st.booleans()):
            box = [box[:2], box[2:]]
        values["box"] = draw(st.sampled_from(list(MAKERS.values())))(box)
    if draw(st.integers(0, 3)) == 0:
        values["normalize_coords"] = False
    if draw(st.integers(0, 5)) == 0:
        values["clear_old_points"] = False
    return values


@st.composite
def masks(draw):
    size = draw(st.sampled_from([(HEIGHT, WIDTH), (SIDE, SIDE), (24, 40), (96, 160), (1, 1), (7, 200)]))
    rows, columns = np.mgrid[: size[0], : size[1]] / np.array(size)[:, None, None]
    kind = draw(st.sampled_from(["soft", "hard", "empty", "full", "logits", "speck", "nan"]))
    distance = np.hypot(rows - 0.5, columns - draw(st.floats(0, 1))) - draw(st.floats(0.05, 0.6))
    values = {
        "soft": 1 / (1 + np.exp(20 * distance)), "hard": distance < 0, "empty": 0 * rows, "full": 0 * rows + 1,
        "logits": -20 * distance, "speck": (rows == rows.max()) & (columns == 0),
        "nan": np.where(distance < 0, np.nan, 0),
    }[kind]  # fmt: skip
    dtype = draw(st.sampled_from(["bool", "uint8", "float32", "float64", "int64", "float16", "uint16"]))
    scaled = values * draw(st.sampled_from([1, 1, 255, -1])) if dtype != "bool" else values
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = np.nan_to_num(scaled, nan=7).astype(dtype) if "int" in dtype else np.asarray(scaled).astype(dtype)
    made = draw(st.sampled_from(["array", "tensor", "list", "turned", "batched"]))
    if made == "tensor" and dtype != "uint16":
        return torch.from_numpy(array)
    return {"list": array.tolist(), "turned": array[::-1], "batched": array[None]}.get(made, array)


def answer(predictor, state, method, *said, **more):
    """Masks as bool, or None where it was refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, ids, logits = getattr(predictor, method)(state, *said, **more)
    except Exception as error:
        return None, error
    return (list(ids), (logits > 0).cpu()), None


def compare(both, method, frame, before, follow=True, **said):
    """The same prompt for both, on a frame that was tracked or not; then both track on."""
    ours, theirs, folder = both
    found = []
    for predictor in (theirs, ours):
        state = predictor.init_state(folder)
        if before:
            predictor.add_new_points_or_box(state, 0, 1, box=[10, 10, 50, 40])
            if before == "tracked":
                list(predictor.propagate_in_video(state))
        result, error = answer(predictor, state, method, frame, 1, **said)
        if predictor is theirs and result is None:
            return False  # what sam2 refuses, we may take or refuse
        if error is not None:
            raise error
        followed = []
        if before == "tracked" or not follow:  # a correction sticks with us: docs/method.md
            found.append((result, followed))
            continue
        for at, ids, logits in predictor.propagate_in_video(state, start_frame_idx=min(frame, 0 if before else frame)):
            followed.append((at, list(ids), (logits > 0).cpu()))
        found.append((result, followed))
    (one, more), (two, others) = found
    if (
        before == "tracked" and frame == 0 and method != "add_new_mask"
    ):  # sam2 lets it attend to the prompt that it replaces: docs/method.md
        assert one[0] == two[0] and one[1].shape == two[1].shape
        return True
    assert one[0] == two[0] and torch.equal(one[1], two[1]), f"the prompt: {int((one[1] ^ two[1]).sum())} pixels differ"
    assert [entry[:2] for entry in more] == [entry[:2] for entry in others]
    for (at, _, theirs_mask), (_, _, our_mask) in zip(more, others, strict=True):
        assert torch.equal(theirs_mask, our_mask), f"frame {at}: {int((theirs_mask ^ our_mask).sum())} pixels differ"
    return True


BEFORE = st.sampled_from([None, None, "prompted", "tracked"])
COUNTED = {"taken": 0, "refused by sam2": 0}


def count(taken):
    COUNTED["taken" if taken else "refused by sam2"] += 1


@settings(max_examples=FEW, **QUIET)
@given(said=pointings(), frame=st.integers(0, FRAMES - 1), before=BEFORE)
def test_points_and_boxes_mean_what_they_mean_to_sam2(both, said, frame, before):
    count(compare(both, "add_new_points_or_box", frame, before, **said))


@settings(max_examples=FEW, **QUIET)
@given(mask=masks(), frame=st.integers(0, FRAMES - 1), before=BEFORE)
def test_masks_mean_what_they_mean_to_sam2(both, mask, frame, before):
    count(compare(both, "add_new_mask", frame, before, mask=mask))


@pytest.mark.slow
@settings(max_examples=MANY, **QUIET)
@given(said=st.one_of(pointings(), masks()), frame=st.integers(0, FRAMES - 1), before=BEFORE)
def test_many_prompts_mean_what_they_mean_to_sam2(both, said, frame, before):
    method = "add_new_points_or_box" if isinstance(said, dict) else "add_new_mask"
    count(compare(both, method, frame, before, **(said if isinstance(said, dict) else {"mask": said})))


SOFT = torch.sigmoid(torch.linspace(-9, 9, HEIGHT)[:, None].expand(HEIGHT, WIDTH))


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("add_new_points_or_box", {"points": [[10, 10], [50, 40]], "labels": [2, 3]}),
        ("add_new_points_or_box", {"points": [[30, 20], [0, 0]], "labels": [1, -1]}),
        ("add_new_points_or_box", {"box": [-0.4, 8.2, 35.1, 48.3]}),
        ("add_new_points_or_box", {"box": [30, 30, 30, 30]}),
        ("add_new_points_or_box", {"box": [50, 40, 10, 10]}),
        ("add_new_points_or_box", {"points": [[80.4, 20.0]], "labels": [1]}),
        ("add_new_points_or_box", {"points": torch.zeros(0, 2), "labels": torch.zeros(0)}),
        ("add_new_points_or_box", {"points": [[float("nan"), 3]], "labels": [1]}),
        ("add_new_mask", {"mask": SOFT}),
        ("add_new_mask", {"mask": SOFT.numpy()}),
        ("add_new_mask", {"mask": torch.nn.functional.interpolate(SOFT[None, None], size=(SIDE, SIDE))[0, 0]}),
        ("add_new_mask", {"mask": np.zeros((HEIGHT, WIDTH), bool)}),
        ("add_new_mask", {"mask": np.ones((13, 200), bool)}),
        ("add_new_mask", {"mask": torch.full((HEIGHT, WIDTH), float("nan"))}),
    ],
)
@pytest.mark.parametrize("before", [None, "tracked"])
def test_prompts_that_were_refused_once_are_taken(both, method, said, before):
    follow = "nan" not in str(said.get("points"))  # sam2's memory is spoilt then; ours is that nothing was there
    assert compare(both, method, 1, before, follow, **said), "sam2 takes it"


@pytest.mark.parametrize("empty", [[], np.zeros((0, 2)), torch.zeros(1, 0, 2)])
def test_no_click_more_says_the_same_again(both, empty):
    said = {"points": empty, "labels": [], "normalize_coords": False, "clear_old_points": False}
    assert compare(both, "add_new_points_or_box", 0, "prompted", **said), "sam2 takes it"


def test_an_empty_mask_says_that_the_object_is_not_there(both):
    _, _, folder = both
    predictor = tiny_predictor(presence=6.0)  # with the tree
    state = predictor.init_state(folder)
    predictor.add_new_points_or_box(state, 0, 1, box=[10, 10, 50, 40])
    assert not (predictor.add_new_mask(state, 2, 1, np.zeros((HEIGHT, WIDTH), bool))[2] > 0).any()
    found = {frame: bool((logits > 0).any()) for frame, _, logits in predictor.propagate_in_video(state)}
    assert found[0] and not found[2]
    report = predictor.track_report(state).set_index("frame")
    assert report.loc[2, "status"] == "absent" and report.loc[2, "object_logit"] < 0 and report.loc[2, "prompted"]
    assert report.loc[0, "status"] == "visible"


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"points": [(float("nan"), 1)]}, "finite"), ({"points": [(86.0, 1)]}, "outside"),
        ({"points": [(-3, 1)]}, "outside"), ({"box": (30, 30, 10, 40)}, "x1 < x2"),
        ({"box": (30, 30, 5, 5)}, "corners"), ({"box": (10, 10, 10, 20)}, "no area"),
        ({"box": (10, 10, 170, 20)}, "outside"), ({"mask": np.zeros((HEIGHT, WIDTH))}, "empty"),
        ({"mask": np.ones((32, 64))}, "64 x 32"), ({"mask": np.ones((HEIGHT, WIDTH, 3))}, "mask is"),
        ({"mask": np.eye(400)[:HEIGHT, :WIDTH] * 0 + (np.arange(WIDTH) == 3) * (np.arange(HEIGHT) == 3)[:, None]}, ""),
    ],
)  # fmt: skip
def test_people_are_refused_what_they_hardly_mean(said, complaint):
    said = SimpleNamespace(**{"points": (), "box": None, "mask": None, **said})
    if not complaint:
        require_sense(said, height=HEIGHT, width=WIDTH, image_size=SIDE)
        with pytest.raises(PromptError, match="too few to be seen"):
            require_sense(said, height=HEIGHT, width=WIDTH, image_size=16)
        return
    with pytest.raises(PromptError, match=complaint):
        require_sense(said, height=HEIGHT, width=WIDTH, image_size=SIDE)
    require_sense(
        SimpleNamespace(points=[(80.6, -0.4)], box=(-0.4, 0, 80.9, 48), mask=None), height=48, width=80, image_size=64
    )

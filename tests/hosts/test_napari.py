"""napari's parts without napari; and, among the long tests, a session in the real one on a virtual display."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sam2long.errors import DataError, PromptError, VideoError
from sam2long.export.convert import export_run
from sam2long.hosts.napari import saving
from sam2long.hosts.napari.masks import MaskStack
from sam2long.hosts.napari.prompts import collect
from sam2long.hosts.napari.tracker import BACKWARD, BOTH, FORWARD, Tracker
from sam2long.hosts.napari.video import LayerVideo
from tests.fakes import MASK, OTHER, noise_video, tiny_flags
from tests.hosts.environments import ROOT, environment, variables

VIDEO = noise_video(10)
GREY = VIDEO[..., 0]


def layer(data, rgb=False, limits=(0, 255), **more):
    """What the parts look at of an Image layer."""
    identity = {"data_to_world": np.asarray, "world_to_data": np.asarray}
    ndim = data.ndim - rgb
    return SimpleNamespace(
        data=data, rgb=rgb, contrast_limits=limits, multiscale=False, name="clip", ndim=ndim, **identity, **more
    )


def prompt_layer(data, features, **more):
    given = layer(np.zeros((1, 1, 1)), **more)
    given.data, given.features, given.name = data, pd.DataFrame(features), "prompts"
    return given


# ---- a layer as a video ---------------------------------------------------------------------------------------------


def test_values_become_8_bits_between_the_contrast_limits():
    wide = (GREY.astype(np.uint16) * 100 + 3000).astype(np.uint16)
    video = LayerVideo(layer(wide, limits=(3000, 3000 + 25500)), 0, (0,))
    assert video.shape == (10, 64, 64, 3) and np.array_equal(video[4], VIDEO[4][..., :1].repeat(3, axis=2))
    clipped = LayerVideo(layer(wide, limits=(4000, 5000)), 0, (0,))[4]
    assert set(np.unique(clipped)) >= {0, 255}
    floats = layer(VIDEO / 255.0, rgb=True)
    assert np.abs(LayerVideo(floats, 0, (0,))[3].astype(int) - VIDEO[3]).max() <= 1
    alpha = np.concatenate([VIDEO, VIDEO[..., :1]], axis=3)
    assert np.array_equal(LayerVideo(layer(alpha, rgb=True), 0, (0,))[3], VIDEO[3])


def test_frames_lie_along_one_axis_and_the_others_are_held():
    volumes = np.stack([GREY[:4], GREY[4:8]])
    along_z = LayerVideo(layer(volumes), 1, (1, 2))
    assert len(along_z) == 4 and along_z.place(3) == (1, 3) and np.array_equal(along_z[3][..., 0], GREY[7])
    assert along_z.frame_at((1, 2)) == 2 and along_z.frame_at((0, 2)) is None and along_z.frame_at((1, 9)) is None


def test_what_is_no_video_is_said():
    with pytest.raises(VideoError, match="one picture of 64 x 64"):
        LayerVideo(layer(GREY[0]), 0, ())
    with pytest.raises(VideoError, match="complex"):
        LayerVideo(layer(GREY.astype(complex)), 0, (0,))

    class Broken:
        shape, dtype = (10, 64, 64), np.dtype(np.uint8)

        def __getitem__(self, key):
            if key[0] == 3:
                raise KeyError("the chunk is gone")
            return GREY[key][:32] if key[0] == 4 else GREY[key]

    video = LayerVideo(layer(np.zeros((1, 1, 1))), 0, (0,))
    video._data, video.shape = Broken(), (10, 64, 64, 3)
    with pytest.raises(VideoError, match="frame 3 .* cannot be read .*the chunk is gone"):
        video[3]
    with pytest.raises(VideoError, match="frame 4 .* is 64 x 32, and the layer 64 x 64"):
        video[4]


# ---- masks as an array ----------------------------------------------------------------------------------------------


@pytest.fixture
def stack():
    masks = MaskStack((2, 5, 64, 64))
    masks.put((1, 3), {1: MASK, 2: OTHER})
    return masks


def test_masks_are_indexed_as_a_numpy_array_is(stack):
    whole = np.asarray(stack)
    assert whole.shape == (2, 5, 64, 64) and whole[1, 3, 12, 22] == 2 and whole[1, 3, 39, 49] == 1
    rows = np.array([12, 39, 0])
    for key in [
        (1, 3), (1, slice(None), slice(None), slice(None)), (slice(None), 3, slice(4, 20), 22), (1, 3, 12, 22),
        (slice(None), slice(1, None), 12, slice(None)), (..., 22), 1, (1, -2),
        (np.array([1, 1, 0]), np.array([3, 3, 0]), rows, np.array([22, 49, 0])),
    ]:  # fmt: skip
        assert np.array_equal(stack[key], whole[key]), key


def test_what_is_painted_is_kept_apart_and_spares_the_masks_below(stack):
    stack[np.array([1]), np.array([3]), np.array([60]), np.array([60])] = 2
    assert stack.painted == {((1, 3), 2)} and stack.mask((1, 3), 2).sum() == OTHER.sum() + 1
    assert np.array_equal(stack.mask((1, 3), 1), MASK)  # also where object 2 covers it
    before = stack.snapshot()
    stack[1, 3, 10:20, 20:30] = 0  # of both, or the one below would come to light
    assert not stack[1, 3, 10:20, 20:30].any()
    assert stack.painted == {((1, 3), 1), ((1, 3), 2)} and stack[1, 3, 15, 22] == 0
    stack[0, 0] = np.eye(64, dtype=int) * 7
    assert stack.mask((0, 0), 7).sum() == 64
    stack.restore(before)
    assert not stack.known((0, 0)) and stack[1, 3, 12, 22] == 2


# ---- prompts --------------------------------------------------------------------------------------------------------


def test_layers_become_prompts():
    image = layer(GREY)
    video, masks = LayerVideo(image, 0, (0,)), MaskStack(GREY.shape)
    masks[2, 5:9, 5:9] = 4
    points = prompt_layer(
        np.array([[0, 10, 20], [0, 30, 40], [3, 5, 5]]), {"object": [1, 1, 2], "positive": [True, False, True]}
    )
    corners = np.array([[0, 8, 18], [0, 8, 52], [0, 40, 52], [0, 40, 18]], float)
    shapes = prompt_layer([corners, corners + [[5, 0, 0]]], {"object": [1, 3]}, shape_type=["rectangle", "ellipse"])
    found = collect(image, video, points, shapes, masks)
    assert list(found) == [(0, 1), (2, 4), (3, 2), (5, 3)]
    assert found[0, 1].points == ((20.5, 10.5), (40.5, 30.5)) and found[0, 1].point_labels == (1, 0)
    assert found[0, 1].box == (18.5, 8.5, 52.5, 40.5)
    assert found[2, 4].mask.sum() == 16
    assert found[5, 3].mask[24, 35] and not found[5, 3].mask[9, 19]


@pytest.mark.parametrize(
    "shape, kind, said",
    [
        (
            [[0, 80, 80], [0, 80, 90], [0, 90, 90], [0, 90, 80]],
            "rectangle",
            "nothing of the picture in it, which is 64 x 64",
        ),
        ([[0, 8, 8], [0, 8, 40]], "line", "a line, which has no inside"),
        ([[0, 8, 8], [3, 8, 40], [3, 30, 40]], "polygon", "several frames"),
    ],
)
def test_a_shape_that_says_nothing_is_refused_by_name(shape, kind, said):
    image = layer(GREY)
    shapes = prompt_layer([np.array(shape, float)], {"object": [1]}, shape_type=[kind])
    with pytest.raises(PromptError, match=f"shape 1 of prompts.*{said}"):
        collect(image, LayerVideo(image, 0, (0,)), None, shapes, MaskStack(GREY.shape))


def test_a_layer_of_other_dimensions_is_refused():
    image = layer(GREY)
    flat = prompt_layer(np.array([[10, 20]]), {})
    flat.ndim = 2
    with pytest.raises(PromptError, match="2 dimensions and clip has 3"):
        collect(image, LayerVideo(image, 0, (0,)), flat, None, MaskStack(GREY.shape))


# ---- tracking -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tracker(tiny):
    return Tracker(tiny, LayerVideo(layer(GREY), 0, (0,)), MaskStack(GREY.shape))


def prompts_of(*given):
    masks = MaskStack(GREY.shape)
    for frame, obj_id, mask in given:
        masks[frame] = np.where(mask, obj_id, 0)
    image = layer(GREY)
    return collect(image, LayerVideo(image, 0, (0,)), None, None, masks)


def tracked(tracker, prompts, ways):
    found = {}
    for frame, by_id in tracker.track(prompts, ways):
        tracker.masks.put(tracker.video.place(frame), by_id)
        found[frame] = by_id
    return found


def test_ways_go_from_the_current_frame_or_from_the_prompt_on_the_way(tracker):
    prompts = prompts_of((3, 1, MASK), (6, 1, MASK))
    assert tracker.ways(prompts, FORWARD, 5, 0, 9) == [(1, 3, 9)]
    assert tracker.ways(prompts, FORWARD, 1, 0, 9) == [(1, 3, 9)]
    assert tracker.ways(prompts, FORWARD, 6, 0, 8) == [(1, 6, 8)]
    assert tracker.ways(prompts, BACKWARD, 6, 2, 9) == [(-1, 6, 2)]
    assert tracker.ways(prompts, BOTH, 3, 0, 9) == [(1, 3, 9), (-1, 3, 0)]
    tracker.masks.put((5,), {1: MASK})
    assert tracker.ways(prompts, FORWARD, 5, 0, 9) == [(1, 5, 9)]
    with pytest.raises(PromptError, match="nothing lies backward"):
        tracker.ways(prompts_of((0, 1, MASK)), BACKWARD, 0, 0, 9)
    with pytest.raises(PromptError, match="there is no prompt"):
        tracker.ways({}, FORWARD, 0, 0, 9)
    with pytest.raises(PromptError, match="the range is 5 to 4"):
        tracker.ways(prompts, FORWARD, 0, 5, 4)


def test_objects_are_known_from_their_first_prompt_on(tracker):
    prompts = prompts_of((0, 1, MASK), (4, 2, OTHER))
    found = tracked(tracker, prompts, [(1, 0, 9)])
    assert [sorted(found[frame]) for frame in (0, 3, 4, 9)] == [[1], [1], [1, 2], [1, 2]]
    found = tracked(tracker, prompts, [(-1, 4, 0)])
    assert sorted(found[4]) == [2]  # as time runs backward, object 1 is known from frame 0, its last prompt
    assert np.array_equal(found[4][2], OTHER) and all(sorted(found[frame]) == [2] for frame in (3, 2, 1))


def test_undo_brings_masks_and_tracker_back(tracker):
    first = tracked(tracker, prompts_of((0, 1, MASK)), [(1, 0, 9)])
    before = np.asarray(tracker.masks)
    corrected = prompts_of((0, 1, MASK), (5, 1, OTHER))
    second = tracked(tracker, corrected, [(1, 5, 9)])
    assert any(not np.array_equal(second[frame][1], first[frame][1]) for frame in range(5, 10))
    tracker.undo()
    assert np.array_equal(np.asarray(tracker.masks), before) and not tracker.can_undo
    again = tracked(tracker, corrected, [(1, 5, 9)])
    assert all(np.array_equal(again[frame][1], second[frame][1]) for frame in second)
    tracker.undo()
    gone = tracked(tracker, prompts_of((0, 2, OTHER)), [(1, 0, 9)])
    assert all(list(by_id) == [2] for by_id in gone.values())  # the prompts of object 1 were taken away
    tracker.look()
    assert tracker.looks and all("object 2: " in why for why in tracker.looks.values())


# ---- saving ---------------------------------------------------------------------------------------------------------


def test_a_run_comes_back_and_exports(tracker, tmp_path):
    prompts = prompts_of((0, 1, MASK), (4, 2, OTHER))
    with pytest.raises(DataError, match="no masks to save"):
        saving.save(tmp_path / "run", tracker.video, tracker.masks, prompts, "", {})
    tracked(tracker, prompts, [(1, 0, 9)])
    saving.save(tmp_path / "run", tracker.video, tracker.masks, prompts, "", {})
    opened = MaskStack(GREY.shape)
    told = saving.read(tmp_path / "run", tracker.video, opened)
    assert np.array_equal(np.asarray(opened), np.asarray(tracker.masks))
    assert {key: prompt.mask.sum() for key, prompt in told.items()} == {(0, 1): MASK.sum(), (4, 2): OTHER.sum()}
    assert len(list(export_run(tmp_path / "run", "palette-png").folder.rglob("*.png"))) == 10
    with pytest.raises(DataError, match="the layer has 3 frames of 64 x 64"):
        saving.read(tmp_path / "run", LayerVideo(layer(GREY[:3]), 0, (0,)), MaskStack((3, 64, 64)))


def test_building_a_model_loads_no_second_llvm():
    """Triton's crashes a napari that draws with Mesa's; it comes with torch._dynamo."""
    code = "import sam2long, sys; sam2long.build_sam2long_video_predictor('nano', device='cpu')"
    code += "; print([name for name in ('torch._dynamo', 'triton') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=variables(), capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_only_the_widget_imports_napari():
    folder = ROOT / "sam2long" / "hosts" / "napari"
    importing = [path.name for path in folder.glob("*.py") if "import napari" in path.read_text(encoding="utf-8")]
    assert importing == ["widget.py"]


# ---- in the real napari ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """sam2long as pip installs it, with its manifest, in a folder for PYTHONPATH."""
    work = tmp_path_factory.mktemp("install")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, work)
    shutil.copytree(ROOT / "sam2long", work / "sam2long", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--target", work / "site", work],
        check=True, capture_output=True,
    )  # fmt: skip
    return work / "site"


@pytest.mark.slow
def test_a_session_in_napari(installed, tmp_path):
    display = shutil.which("xvfb-run")
    if display is None:
        (pytest.fail if os.environ.get("REQUIRE_DISPLAY") == "1" else pytest.skip)("needs xvfb-run")
    programs = environment("napari", "napari[pyqt6]==0.9.2", "zarr==3.1.6", "dask==2026.8.0")
    _, model, _, weights, *_ = tiny_flags(tmp_path)
    done = subprocess.run(
        [display, "-a", "-s", "-screen 0 1600x1000x24", programs / "python", "-X", "faulthandler",
         Path(__file__).with_name("napari_session.py"), model, weights, tmp_path],
        env=variables(PYTHONPATH=str(installed), XDG_CONFIG_HOME=str(tmp_path), QT_QPA_PLATFORM="xcb"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    passed = [line for line in done.stdout.splitlines() if line.endswith(" passed")]  # napari prints its warnings too
    assert passed == ["a_session passed", "what_cannot_be passed", "volumes passed"]
    run = tmp_path / "run"
    assert len(list((run / "export" / "palette-png").rglob("*.png"))) == 24

"""CVAT's functions: with a stand-in for its SDK, and, among the long tests, in the real agent of `cvat-cli`."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sam2long import Sam2LongConfig
from sam2long.errors import DataError, PromptError
from sam2long.export.masks import run_lengths
from sam2long.export.polygons import box
from sam2long.hosts import cvat
from tests.fakes import TINY, box_mask, noise_video, tiny_flags, tiny_predictor
from tests.hosts.cvat_server import Cvat, serving
from tests.hosts.environments import environment, variables

VIDEO = noise_video(8)
ALWAYS = 20.0  # presence with which the tiny model's objects are there on every frame
RECTANGLE = [10.0, 20.0, 40.0, 50.0]
POLYGON = [5.0, 5.0, 30.0, 5.0, 30.0, 30.0, 5.0, 30.0]


# ---- without CVAT ---------------------------------------------------------------------------------------------------


@dataclass
class Shape:
    type: str
    points: list[float]


class BadFunctionError(Exception):
    pass


@pytest.fixture
def sdk(monkeypatch):
    """Stands in for the SDK: the names that we use of it."""
    interface = ModuleType("cvat_sdk.auto_annotation")
    interface.TrackingFunctionSpec = interface.InteractionFunctionSpec = SimpleNamespace
    interface.TrackableShape = interface.InteractionResultShape = Shape
    interface.BadFunctionError = BadFunctionError
    masks = ModuleType("cvat_sdk.masks")

    def encode_mask(mask):
        left, top, right, bottom = box(mask)
        part = mask[top : bottom + 1, left : right + 1]
        return [*run_lengths(part.ravel()), left, top, right, bottom]

    masks.encode_mask = encode_mask
    for name, module in {
        "cvat_sdk": ModuleType("cvat_sdk"),
        interface.__name__: interface,
        masks.__name__: masks,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def function(sdk, monkeypatch):
    """Makes functions on the tiny model."""
    predictor = tiny_predictor(presence=ALWAYS, sam2long=Sam2LongConfig(emit="online"))
    monkeypatch.setattr(cvat, "load_model", lambda **options: predictor)
    return cvat.create


def tracked(function, shape, frames):
    """The shapes on the frames after the first."""
    state = function.init_tracking_state(None, frames[0], shape)
    return [function.track(SimpleNamespace(original_shape_type=shape.type), frame, state) for frame in frames[1:]]


def test_a_frame_is_encoded_once_for_all_shapes_and_each_keeps_its_own_track(function, monkeypatch):
    tracker = function()
    frames = [tracker.preprocess_image(None, Image.fromarray(image)) for image in VIDEO]
    monkeypatch.setattr(tracker._predictor, "encode_frame", None)
    one, other = Shape("polygon", POLYGON), Shape("polygon", [40, 30, 60, 30, 60, 60])
    alone = [tracked(tracker, shape, frames) for shape in (one, other)]
    assert any(shape is not None for shapes in alone for shape in shapes) and alone[0] != alone[1]
    states = [tracker.init_tracking_state(None, frames[0], shape) for shape in (one, other)]
    context = SimpleNamespace(original_shape_type="polygon")
    together = [[tracker.track(context, frame, state) for state in states] for frame in frames[1:]]
    assert [list(shapes) for shapes in zip(*together, strict=True)] == alone  # two users at once


@pytest.mark.parametrize("kind, points", [("rectangle", RECTANGLE), ("polygon", POLYGON)])
def test_a_shape_comes_back_as_the_kind_that_was_given(function, kind, points):
    tracker = function()
    frames = [tracker.preprocess_image(None, Image.fromarray(image)) for image in VIDEO[:4]]
    found = tracked(tracker, Shape(kind, points), [frames[0], frames[0], *frames[1:]])
    assert {shape.type for shape in found if shape} == {kind}
    assert tracker.spec.supported_shape_types == ["mask", "polygon", "rectangle"]


def test_clicks_and_boxes_become_masks(function):
    clicks = function(kind="interaction")
    frame = clicks.preprocess_image(None, Image.fromarray(VIDEO[0]))

    def prompts(pos=(), neg=(), box=None):
        return SimpleNamespace(pos_points=pos, neg_points=neg, bounding_box=box)

    boxed = clicks.detect(None, frame, prompts(box=((10, 20), (40, 50))))
    both = clicks.detect(None, frame, prompts([(20.0, 30.0)], [(60.0, 60.0)], ((10, 20), (40, 50))))
    assert [shape.type for shape in boxed + both] == ["mask", "mask"] and boxed != both
    with pytest.raises(BadFunctionError, match="no prompt"):
        clicks.detect(None, frame, prompts(neg=[(60.0, 60.0)]))
    with pytest.raises(BadFunctionError, match="outside the frame, which is 64 x 64"):
        clicks.detect(None, frame, prompts([(200.0, 30.0)]))


def test_polygons_and_rectangles_measure_from_the_corners_of_pixels():
    mask = box_mask(10, 20, 30, 25)
    assert cvat._write_rectangle(mask) == [20, 10, 45, 40]
    polygon = cvat._read_polygon(cvat._write_polygon(mask), 64, 64).mask
    assert np.array_equal(polygon, mask)
    assert cvat._read_rectangle([50, 40, -3, 10], 64, 64).box == (0, 10, 50, 40)
    with pytest.raises(PromptError, match="nothing of the picture.*64 x 48"):
        cvat._read_rectangle([70, 10, 90, 20], 48, 64)
    with pytest.raises(DataError, match="no polygon"):
        cvat._read_polygon([1, 2, 3, 4], 64, 64)


def test_pictures_of_16_bits_and_of_one_channel():
    grey = np.linspace(1000, 5000, 64 * 48).astype(np.uint16).reshape(48, 64)
    wide = cvat._rgb(Image.fromarray(grey))
    assert wide.shape == (48, 64, 3) and wide.min() == 0 and wide.max() == 255
    assert cvat._rgb(Image.fromarray(VIDEO[0]).convert("L")).shape == (64, 64, 3)


def test_what_cannot_run_is_said_in_a_sentence(sdk):
    for options, said in [
        ({"kind": "detection"}, "expected tracking or interaction"),
        ({"model": "nonsense"}, "nonsense"),
        ({"checkpoint": "/nowhere.pt", "model": str(TINY)}, "/nowhere.pt"),
        ({"num_pathway": 2}, "num_pathways"),
        ({"emit": "settled"}, "emit"),
    ]:
        with pytest.raises(SystemExit, match=said) as error:
            cvat.create(**options)
        assert str(error.value).startswith("sam2long: ") and "\n" not in str(error.value)


def test_without_the_sdk_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvat_sdk", None)
    with pytest.raises(SystemExit, match=r'pip install "sam2long\[cvat\]"'):
        cvat.create()


# ---- in the real agent ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def programs():
    return environment("cvat", "cvat-sdk==2.80.0", "cvat-cli==2.80.0")


@pytest.fixture
def cli(programs, tmp_path):
    """`cvat-cli function ...` with our module and the tiny model; returns the finished process."""
    flags = tiny_flags(tmp_path, ALWAYS)
    options = [
        f"-p{name}=str:{value}" for name, value in zip(("model", "checkpoint"), (flags[1], flags[3]), strict=True)
    ]

    def run(address, *command, options=tuple(options)):
        return subprocess.run(
            [programs / "cvat-cli", "--server-host", address, "function", *command,
             "--function-module", "sam2long.hosts.cvat", "-pdevice=str:cpu", *options],
            env=variables(CVAT_ACCESS_TOKEN="secret"), capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def init(frame, *shapes):
    shapes = [{"type": kind, "points": points} for kind, points in shapes]
    return {"type": "init_tracking", "frame": frame, "shapes": shapes}


def track(frame, of="r0"):
    return lambda answers: {"type": "track", "frame": frame, "states": answers[of]["states"]}


@pytest.mark.slow
def test_the_agent_tracks_masks_polygons_and_rectangles(cli):
    mask = [0, 900, 10, 10, 39, 39]
    shapes = ("rectangle", RECTANGLE), ("mask", mask), ("polygon", POLYGON)
    stretched = np.zeros((48, 48, 3), np.uint8)
    server = Cvat(
        [*VIDEO[:4], stretched],
        [init(0, *shapes), *map(track, (1, 2, 3)), track(4), track(7),  # another size; a frame that is gone
         init(1, ("rectangle", [70, 70, 90, 90])), init(0, ("ellipse", RECTANGLE))],
    )  # fmt: skip
    with serving(server) as address:
        created = cli(address, "create-native", "SAM2Long")
        assert created.stdout == "1\n", created.stderr
        assert server.functions[1]["supported_shape_types"] == ["mask", "polygon", "rectangle"]
        done = cli(address, "run-agent", "1", "--burst")
        assert done.returncode == 0, done.stderr
        found = [server.answers[f"r{number}"]["shapes"] for number in (1, 2, 3)]
        assert {shape["type"] for shapes in found for shape in shapes if shape} >= {"mask", "rectangle"}
        for frame in found:
            assert [shape and shape["type"] for shape in frame] == [
                frame[at] and kind for at, (kind, _) in enumerate(shapes)
            ]
        failed = list(server.failed.values())
        assert "Image sizes" in failed[0] and "does not exist" in failed[1]
        assert "nothing of the picture" in failed[2] and "ellipse" in failed[3]

        # The agent is started again: its tracks are gone, and the shape that is there is tracked anew.
        server.requests = [track(1), init(0, *shapes), track(1, "r9")]
        assert cli(address, "run-agent", "1", "--burst").returncode == 0
        assert "not found - possibly expired" in server.failed["r8"]
        assert server.answers["r10"]["shapes"] == found[0]


@pytest.mark.slow
def test_the_agent_turns_clicks_and_boxes_into_masks(cli):
    def click(pos=(), neg=(), box=()):
        return {"type": "interact", "frame": 0, "pos_points": pos, "neg_points": neg, "obj_bbox": box}

    server = Cvat(
        VIDEO[:1], [click(box=[[10, 20], [40, 50]]), click([[20, 30]], [[60, 60]]), click(), click([[200, 30]])]
    )
    with serving(server) as address:
        kind = "-pkind=str:interaction"
        assert cli(address, "create-native", "Clicks", kind).stdout == "1\n"
        assert cli(address, "run-agent", "1", "--burst", kind).returncode == 0
    assert server.functions[1]["startswith_box_optional"] and server.functions[1]["min_neg_points"] == 0
    assert [[shape["type"] for shape in server.answers[request]["shapes"]] for request in ("r0", "r1")] == [
        ["mask"]
    ] * 2
    assert len(server.asked) == 1  # the encoded frame is kept
    assert "no prompt says what the object is" in server.failed["r2"]
    assert "outside the frame" in server.failed["r3"]


@pytest.mark.slow
def test_a_model_that_is_not_there_registers_nothing(cli):
    server = Cvat(VIDEO[:1], [])
    with serving(server) as address:
        done = cli(address, "create-native", "SAM2Long", options=("-pmodel=str:nonsense",))
    assert done.returncode == 1 and not server.functions
    assert "the model nonsense has no weights" in done.stderr.splitlines()[-1]

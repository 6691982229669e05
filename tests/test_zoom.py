"""Prompts are answered from a crop of the picture, and from its mirror image."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sam2long import Sam2LongConfig, build_sam2long_video_predictor
from sam2long.errors import ConfigError
from sam2long.tracking import zoom
from sam2long.tracking.window import Window, mirrored

H, W, S = 480, 640, 256


@pytest.fixture(scope="module")
def nano():
    return build_sam2long_video_predictor("nano", device="cpu")


def box(x0, y0, x1, y1, *clicks):
    """As the model takes it: corners, then clicks (x, y, label), in model pixels."""
    pixels = torch.tensor([[x0, y0], [x1, y1], *[c[:2] for c in clicks]], dtype=torch.float32)
    labels = torch.tensor([[2, 3, *[c[2] for c in clicks]]], dtype=torch.int32)
    return (pixels * S / torch.tensor([W, H]))[None], labels


def test_the_window_lies_around_the_box_and_in_the_picture():
    view = zoom.window(box(300, 200, 350, 240), None, H, W, S)
    assert view == Window(285, 188, 80, 64)  # 1.6 times 50 x 40 pixels, around (325, 220)
    corner = zoom.window(box(0, 0, 50, 40), None, H, W, S)
    assert (corner.left, corner.top) == (0, 0) and corner.width == 65 and corner.height == 52
    assert zoom.window(box(320, 240, 322, 243), None, H, W, S).width == zoom.SMALLEST
    assert zoom.window(box(300, 100, 310, 200), None, H, W, S) == Window(265, 70, 80, 160)  # half as wide as high


def test_what_is_said_of_a_picture_is_said_of_its_mirror_image():
    points = torch.tensor([[[10.0, 5.0], [30.0, 40.0], [12.0, 7.0]]]), torch.tensor([[2, 3, 1]])
    seen, labels = mirrored(points, 100)
    assert seen.tolist() == [[[70, 5], [90, 40], [88, 7]]]  # the box's left side is where its right one was
    assert torch.equal(labels, points[1])
    assert all(torch.equal(one, other) for one, other in zip(mirrored((seen, labels), 100), points, strict=True))


@pytest.mark.parametrize(
    ("labels", "x"),
    [([2, 3, 2], [70, 90, 88]), ([3, 1, 0], [90, 70, 88]), ([2, 1, 1], [90, 70, 88]), ([2, 3, -1], [70, 90, 88])],
)
def test_corners_without_their_other_corner_are_points_in_a_mirror(nano, clip, labels, x):
    points = torch.tensor([[[10.0, 5.0], [30.0, 40.0], [12.0, 7.0]]]), torch.tensor([labels])
    found = mirrored(points, 100)[0][0, :, 0].tolist()
    assert found == x
    state = nano.init_state(clip[0][:1])
    assert nano.add_new_points_or_box(state, 0, 1, points=points[0][0] * 5, labels=labels)[2].shape == (1, 1, H, W)


@pytest.mark.parametrize("said", [{"box": [184, 284, 216, 316]}, {"points": [[200, 300]], "labels": [1]},
                                  {"box": [20, 20, 600, 440]}], ids=["box", "click", "large"])  # fmt: skip
def test_a_picture_and_its_mirror_image_are_answered_alike(nano, clip, said):
    """What the network marks in both counts, so neither left nor right has a say."""
    image = clip[0][:1]
    there = {
        "points": [[W - x, y] for x, y in said.get("points", [])],
        "box": [W - said["box"][2], said["box"][1], W - said["box"][0], said["box"][3]] if "box" in said else None,
        "labels": said.get("labels", []),
    }
    there = {key: value for key, value in there.items() if value}
    found, other = (
        nano.add_new_points_or_box(nano.init_state(shown), 0, 1, **asked)[2][0, 0].numpy() > 0
        for shown, asked in ((image, said), (image[:, :, ::-1].copy(), there))
    )
    assert found.any() and iou(found, other[:, ::-1]) > 0.9  # a crop's sides may lie a pixel elsewhere


def test_the_answer_is_the_mean_of_a_picture_and_its_mirror_image():
    """Of a network that always marks what is on the left, nearly everything is in the middle."""
    asked = []

    class Leftist:
        network = SimpleNamespace(mask_size=4)

        def prompt(self, features, points, previous):
            asked.append((features, points[0].tolist(), None if previous is None else previous[0, 0, 0].tolist()))
            return SimpleNamespace(mask=torch.tensor([3.0, 1, 0, -1]).expand(1, 1, 4, 4))

    picture = zoom.Picture(height=8, width=8, size=4, model=Leftist(), look=lambda view, mirrored: (view, mirrored))
    view = Window.of_all(8, 8)  # what is marked fills it
    points, previous = (torch.tensor([[[1.0, 2.0]]]), torch.tensor([[1]])), torch.arange(4.0).expand(1, 1, 4, 4)
    assert torch.equal(picture.marked(points, previous), torch.tensor([1.0, 0.5, 0.5, 1.0]).expand(4, 4))
    assert asked == [((view, False), [[[1, 2]]], [0, 1, 2, 3]), ((view, True), [[[3, 2]]], [3, 2, 1, 0])]


@pytest.mark.parametrize("points", [box(100, 100, 440, 300), box(0, 0, W, H)])
def test_what_is_large_is_not_looked_at_closer(points):
    assert zoom.window(points, None, H, W, S) is None


def click(*points):
    """Clicks x, y, label in pixels, as the model takes them."""
    pixels = torch.tensor([[point[:2] for point in points]], dtype=torch.float32)
    return pixels * S / torch.tensor([W, H]), torch.tensor([[point[2] for point in points]], dtype=torch.int32)


def test_clicks_are_looked_at_with_the_mask_that_they_refine():
    marked = torch.full((1, 1, 64, 64), -3.0)
    assert zoom.window(click((200, 300, 1)), marked, H, W, S) is None  # nothing is marked yet
    marked[..., 32:40, 16:20] = 3.0  # pixels 160 to 200 and 240 to 300
    view = zoom.window(click((210, 250, 1), (20, 20, 0)), marked, H, W, S)
    assert view == Window(145, 222, 80, 96)  # 1.6 times 50 x 60 pixels, around (185, 270)
    assert zoom.window(click((500, 250, 1)), marked, H, W, S) is None  # far away: that is no small object


def test_what_is_cut_off_by_the_windows_edge_counts_less():
    picture = zoom.Picture(height=H, width=W, size=S, model=None, look=None)
    masks = torch.full((3, 8, 8), -1.0)
    masks[0, 3, 3] = masks[1, 0, 3] = masks[2, 3, 7] = 1.0
    assert picture._cut_off(masks, Window(100, 100, 50, 50)).tolist() == [0, 1, 1]
    assert picture._cut_off(masks, Window(100, 0, 50, 50)).tolist() == [0, 0, 1]
    assert picture._cut_off(masks, Window(0, 0, W, H)).tolist() == [0, 0, 0]


def test_a_window_around_a_click_stays_in_the_picture():
    picture = zoom.Picture(height=H, width=W, size=S, model=None, look=None)
    assert picture._around(click((320, 240, 1)), 2.5) == Window(192, 144, 256, 192)
    assert picture._around(click((639, 3, 1)), 2.5) == Window(384, 0, 256, 192)


def test_a_mask_that_depends_on_the_threshold_is_unstable():
    ramp = torch.linspace(-2, 2, 5).expand(1, 5, 5)  # above 1: one column; above -1: three
    assert zoom.stability(torch.cat([5 * ramp + 2.5, ramp])).tolist() == pytest.approx([1.0, 1 / 3])
    assert zoom.stability(torch.full((1, 4, 4), -9.0)).item() == 0


@pytest.fixture(scope="module")
def clip():
    """A red disc of 14 pixels' radius that moves over noise; its masks."""
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 120, (H, W, 3), dtype=np.uint8)
    yy, xx = np.mgrid[:H, :W]
    masks = [(xx - 200 - 4 * t) ** 2 + (yy - 300) ** 2 < 14**2 for t in range(3)]
    frames = []
    for mask in masks:
        frame = ground.copy()
        frame[mask] = (220, 20, 20)
        frames.append(frame)
    return np.stack(frames), np.stack(masks)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def first_mask(clip, **settings):
    predictor = build_sam2long_video_predictor("nano", device="cpu", sam2long=Sam2LongConfig(**settings))
    state = predictor.init_state(clip[0])
    _, _, masks = predictor.add_new_points_or_box(state, 0, 1, box=[184, 284, 216, 316])
    return predictor, state, masks[0, 0].numpy() > 0


def test_nano_looks_closer_unless_told_not_to(clip):
    *_, plain = first_mask(clip, zoom_in=False)
    *_, closer = first_mask(clip, zoom_in=True)
    *_, usual = first_mask(clip)
    assert np.array_equal(usual, closer) and not np.array_equal(plain, closer)
    assert iou(closer, clip[1][0]) > max(0.75, iou(plain, clip[1][0]))


@pytest.mark.parametrize("box", [[188, 284, 220, 316], [20, 20, 600, 440]], ids=["small", "large"])
def test_a_box_on_a_tracked_frame_starts_anew(clip, box):
    """As if nothing had been tracked: what is wrong there has no say. Clicks go on from what the box found."""
    predictor, state, _ = first_mask(clip, close_up=False)  # windows depend on what an object was before
    list(predictor.propagate_in_video(state))
    fresh = predictor.init_state(clip[0][1:2])
    for said in ({"box": box}, {"points": [[box[0] + 4, box[1] + 4]], "labels": [0], "clear_old_points": False}):
        *_, corrected = predictor.add_new_points_or_box(state, 1, 1, **said)
        *_, asked = predictor.add_new_points_or_box(fresh, 0, 1, **said)
        assert torch.equal(corrected, asked)


def test_a_click_on_a_tracked_frame_counts_as_memories_and_a_close_look_together_say(clip, monkeypatch):
    said = {"points": [[204, 300]], "labels": [1]}

    def corrected(close_look: float | None) -> np.ndarray:
        """The mask after a click; `close_look`: what the close look says of every pixel, in logits."""
        predictor, state, _ = first_mask(clip)
        list(predictor.propagate_in_video(state))
        with monkeypatch.context() as patch:
            if close_look is not None:
                patch.setattr(zoom.Picture, "marked", lambda self, *_: torch.full((self.size, self.size), close_look))
            return predictor.add_new_points_or_box(state, 1, 1, **said)[2][0, 0].numpy() > 0

    tracked, doubtful, certain = (corrected(value) for value in (0.0, -1.0, 1e4))
    assert iou(corrected(None), clip[1][1]) > 0.75
    assert 0 < doubtful.sum() < tracked.sum() < certain.sum() / 10
    assert iou(corrected(-1e4), tracked) > 0.8  # where a close look shows nothing, memories decide


def test_what_is_found_is_tracked_and_refined_by_a_click(clip):
    predictor, state, closer = first_mask(clip)
    tracked = {frame: masks[0, 0].numpy() > 0 for frame, _, masks in predictor.propagate_in_video(state)}
    assert np.array_equal(tracked[0], closer)
    predictor.reset_state(state)
    predictor.add_new_points_or_box(state, 0, 1, box=[184, 284, 216, 316])
    _, _, masks = predictor.add_new_points_or_box(state, 0, 1, points=[[200, 300]], labels=[1], clear_old_points=False)
    assert iou(masks[0, 0].numpy() > 0, clip[1][0]) > 0.7


def test_a_mask_is_refined_by_a_click_on_what_is_not_the_object_alone(nano, clip):
    state = nano.init_state(clip[0])
    drawn = clip[1][0].copy()
    drawn[280:320, 200:260] = True  # too much
    nano.add_new_mask(state, 0, 1, drawn)
    said = {"points": [[250, 300]], "labels": [0], "clear_old_points": False}
    assert iou(nano.add_new_points_or_box(state, 0, 1, **said)[2][0, 0].numpy() > 0, clip[1][0]) > iou(
        drawn, clip[1][0]
    )


def clicked(predictor, clip, *said):
    """Mask of frame 0 after clicks that are given one after another."""
    state = predictor.init_state(clip[0])
    for x, y, label in said:
        _, _, masks = predictor.add_new_points_or_box(
            state, 0, 1, points=[[x, y]], labels=[label], clear_old_points=False
        )
    return masks[0, 0].numpy() > 0


def test_a_click_on_something_small_is_looked_at_closer(nano, clip):
    plain = build_sam2long_video_predictor("nano", device="cpu", sam2long=Sam2LongConfig(zoom_in=False))
    far, near = (clicked(predictor, clip, (200, 300, 1)) for predictor in (plain, nano))
    assert iou(near, clip[1][0]) > max(0.75, iou(far, clip[1][0]))
    again = clicked(nano, clip, (200, 300, 1), (206, 306, 1), (230, 300, 0))
    assert iou(again, clip[1][0]) > 0.75


def test_clicks_given_at_once_and_one_after_another_mean_the_same(nano, clip):
    said = (200, 300, 1), (230, 300, 0)
    state = nano.init_state(clip[0])
    _, _, masks = nano.add_new_points_or_box(state, 0, 1, points=[s[:2] for s in said], labels=[s[2] for s in said])
    assert iou(masks[0, 0].numpy() > 0, clicked(nano, clip, *said)) > 0.9


def test_negative_clicks_alone_are_answered_as_ever(nano, clip):
    plain = build_sam2long_video_predictor("nano", device="cpu", sam2long=Sam2LongConfig(zoom_in=False))
    assert np.array_equal(clicked(nano, clip, (200, 300, 0)), clicked(plain, clip, (200, 300, 0)))


def test_a_stream_looks_closer_at_the_frame_that_it_holds(clip):
    from sam2long import build_sam2long_camera_predictor

    *_, closer = first_mask(clip)
    camera = build_sam2long_camera_predictor("nano", device="cpu")
    camera.load_first_frame(clip[0][0])
    _, _, masks = camera.add_new_prompt(frame_idx=0, obj_id=1, bbox=[184, 284, 216, 316])
    assert np.array_equal(masks[0, 0].numpy() > 0, closer)


def test_other_models_and_plain_sam2_do_not(clip):
    predictor = build_sam2long_video_predictor("nano", device="cpu", sam2long=Sam2LongConfig.sam2())
    assert not predictor._says("zoom_in") and not predictor._says("close_up")
    with pytest.raises(ConfigError, match="zoom_in"):
        Sam2LongConfig(zoom_in="yes")

"""A box around something small is answered from a crop of the picture."""

import numpy as np
import pytest
import torch

from sam2long import Sam2LongConfig, build_sam2long_video_predictor
from sam2long.errors import ConfigError
from sam2long.tracking import zoom

H, W, S = 480, 640, 256


def box(x0, y0, x1, y1, *clicks):
    """As the model takes it: corners, then clicks (x, y, label), in model pixels."""
    pixels = torch.tensor([[x0, y0], [x1, y1], *[c[:2] for c in clicks]], dtype=torch.float32)
    labels = torch.tensor([[2, 3, *[c[2] for c in clicks]]], dtype=torch.int32)
    return (pixels * S / torch.tensor([W, H]))[None], labels


def test_the_window_lies_around_the_box_and_in_the_picture():
    view = zoom.window(box(300, 200, 350, 240), H, W, S)
    assert view == zoom.Window(285, 180, 80, 80)  # 1.6 times 50 pixels, around (325, 220)
    corner = zoom.window(box(0, 0, 50, 40), H, W, S)
    assert (corner.left, corner.top) == (0, 0) and corner.width == 65 and corner.height == 60
    assert zoom.window(box(320, 240, 322, 243), H, W, S).width == zoom.SMALLEST


@pytest.mark.parametrize("points", [box(100, 100, 400, 300), box(0, 0, W, H)])
def test_what_is_large_is_not_looked_at_closer(points):
    assert zoom.window(points, H, W, S) is None


def test_a_click_alone_has_no_window():
    assert zoom.window((torch.tensor([[[10.0, 10.0]]]), torch.tensor([[1]], dtype=torch.int32)), H, W, S) is None


def test_positive_clicks_stay_in_view_and_far_negative_ones_are_left_out():
    points = box(300, 200, 350, 240, (400, 220, 1), (10, 10, 0), (340, 210, 0))
    view = zoom.window(points, H, W, S)
    assert view.left + view.width >= 400 and view.left > 10
    coords, labels = zoom.inside(points, view, H, W, S)
    assert labels.tolist() == [[2, 3, 1, -1, 0]]
    kept = coords[0, [0, 1, 2, 4]]
    assert (kept >= 0).all() and (kept <= S).all()
    back = kept * torch.tensor([view.width, view.height]) / S + torch.tensor([view.left, view.top])
    assert torch.allclose(back, points[0][0, [0, 1, 2, 4]] * torch.tensor([W, H]) / S, atol=1e-3)


def test_what_was_found_lands_where_the_window_is():
    view = zoom.Window(320, 240, 64, 48)
    logits = torch.full((1, 1, 64, 64), -5.0)
    logits[..., 16:48, 16:48] = 5.0  # the middle half
    mask = zoom.pasted(logits, view, H, W, S)
    ys, xs = mask.nonzero().unbind(1)
    assert (xs.min() * W / S).item() == pytest.approx(336, abs=3) and (ys.min() * H / S).item() == pytest.approx(
        252, abs=3
    )
    assert mask.sum().item() == pytest.approx(32 * S / W * 24 * S / H, rel=0.2)
    assert zoom.pasted(torch.ones(1, 1, 8, 8), view, H, W, S).sum().item() == pytest.approx(
        64 * 48 * S * S / W / H, rel=0.1
    )


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


def test_what_is_found_is_tracked_and_refined_by_a_click(clip):
    predictor, state, closer = first_mask(clip)
    tracked = {frame: masks[0, 0].numpy() > 0 for frame, _, masks in predictor.propagate_in_video(state)}
    assert np.array_equal(tracked[0], closer)
    predictor.reset_state(state)
    predictor.add_new_points_or_box(state, 0, 1, box=[184, 284, 216, 316])
    _, _, masks = predictor.add_new_points_or_box(state, 0, 1, points=[[200, 300]], labels=[1], clear_old_points=False)
    assert iou(masks[0, 0].numpy() > 0, clip[1][0]) > 0.7


def test_a_stream_looks_closer_at_the_frame_that_it_holds(clip):
    from sam2long import build_sam2long_camera_predictor

    *_, closer = first_mask(clip)
    camera = build_sam2long_camera_predictor("nano", device="cpu")
    camera.load_first_frame(clip[0][0])
    _, _, masks = camera.add_new_prompt(frame_idx=0, obj_id=1, bbox=[184, 284, 216, 316])
    assert np.array_equal(masks[0, 0].numpy() > 0, closer)


def test_other_models_and_plain_sam2_do_not(clip):
    predictor = build_sam2long_video_predictor("nano", device="cpu", sam2long=Sam2LongConfig.sam2())
    assert not predictor._zooms_in()
    with pytest.raises(ConfigError, match="zoom_in"):
        Sam2LongConfig(zoom_in="yes")

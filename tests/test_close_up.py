"""Something small is tracked in a window that goes with it."""

import numpy as np
import pytest
import torch

from sam2long import Sam2LongConfig, build_sam2long_video_predictor
from sam2long.errors import ConfigError
from sam2long.network.masks import boxes
from sam2long.tracking import frames, track, window
from sam2long.tracking.close_up import (
    DETAIL,
    FARTHEST,
    GROWS,
    NEAREST,
    SEARCHES,
    SHRINKS,
    CloseUp,
    in_one_place,
    scattered,
)
from sam2long.tracking.packing import unpacked_view
from sam2long.tracking.window import Window
from tests.fakes import collect, same

H, W, S = 480, 640, 256
WHOLE = Window(0, 0, W, H)
LOOK = CloseUp(H, W, size=160)


def mask_of(left, top, right, bottom, side=64):
    """Logits of a box, in shares of the view."""
    logits = torch.full((1, 1, side, side), -5.0)
    logits[..., round(top * side) : round(bottom * side), round(left * side) : round(right * side)] = 5.0
    return logits


def after(mask, view):
    """Where it looks after a mask of `mask_of`, or after nothing."""
    side = 64 if mask is None else mask.shape[-1]
    return LOOK.after(None if mask is None else tuple(map(int, boxes(mask)[0, 0].tolist())), side, view)


# ---- where it looks --------------------------------------------------------------------------------------------


def test_a_prompt_on_something_small_is_looked_at_from_nearer():
    view = LOOK.of_prompt(mask_of(0.25, 0.5, 0.375, 0.625), None)  # an eighth of the picture: three times that
    assert view == Window(80, 180, 240, 180)
    corner = LOOK.of_prompt(mask_of(0, 0, 1 / 64, 1 / 64), None)
    assert corner == Window(0, 0, NEAREST * W, NEAREST * H)
    assert LOOK.of_prompt(mask_of(0, 0, 0.25, 0.25), None) is None  # three quarters: as good as the whole
    assert LOOK.of_prompt(mask_of(0, 0, 0, 0), None) is None  # nothing


def test_a_prompt_that_changes_little_leaves_the_window():
    view = Window(80, 180, 240, 180)
    assert LOOK.of_prompt(mask_of(0.3, 0.3, 0.6, 0.65), view) == view
    larger = LOOK.of_prompt(mask_of(0.1, 0.1, 0.7, 0.7), view)
    assert larger.width > 1.3 * view.width


def test_the_window_goes_with_the_object_and_changes_slowly():
    view = Window(160, 120, 320, 240)
    moved = after(mask_of(0.5, 0.5, 0.5 + 1 / 3, 0.5 + 1 / 3), view)  # right and down, of the wanted size
    assert moved.left == pytest.approx(213, abs=4) and moved.top == pytest.approx(160, abs=4)
    assert moved.width == pytest.approx(view.width, rel=0.06)
    assert after(mask_of(0.45, 0.45, 0.5, 0.5), view).width == pytest.approx(view.width / SHRINKS, abs=1)
    assert after(mask_of(0, 0, 1, 1), view).width == pytest.approx(view.width * GROWS, abs=1)


def test_the_window_opens_while_nothing_is_found_and_closes_again():
    view, widths = Window(0, 0, 160, 120), []
    while view != WHOLE:
        widths.append(view.width)
        view = after(None if len(widths) % 2 else mask_of(0, 0, 0, 0), view)
    assert widths == sorted(widths) and widths[1] == 160 * SEARCHES and widths[-1] <= FARTHEST * W
    assert after(None, WHOLE) == WHOLE
    assert after(mask_of(0.5, 0.5, 0.55, 0.55), WHOLE).width == FARTHEST * W
    assert after(mask_of(0.1, 0.2, 0.45, 0.45), WHOLE) is None  # it has become large


def test_what_was_large_and_looks_small_is_only_leaving():
    edge = mask_of(0.97, 0.4, 1, 0.6)
    assert after(edge, None) is None and after(None, None) is None
    assert LOOK.of_prompt(edge, None, stays_whole=True) is None and LOOK.of_prompt(edge, None) is not None


def test_a_window_of_few_pixels_shows_nothing_more():
    small = mask_of(0.5, 0.5, 0.52, 0.52)
    widths = {}
    for size in (160, 384, 1024):
        view = CloseUp(H, W, size).of_prompt(small, None)
        widths[size] = None if view is None else view.width
    assert widths == {160: NEAREST * W, 384: pytest.approx(DETAIL * 384 * (W / H) ** 0.5, abs=1), 1024: None}


def test_the_window_stays_in_the_picture():
    for left, top in ((0, 0), (0.98, 0), (0, 0.98), (0.98, 0.98)):
        view = LOOK.of_prompt(mask_of(left, top, left + 0.02, top + 0.02), None)
        assert 0 <= view.left <= W - view.width and 0 <= view.top <= H - view.height


# ---- between a window and the picture --------------------------------------------------------------------------


def test_positive_clicks_are_held_and_far_negative_ones_are_left_out():
    view = Window(280, 180, 160, 120)
    pixels = torch.tensor([[[300.0, 200], [350, 240], [400, 220], [10, 10], [340, 210]]])
    points = pixels * S / torch.tensor([W, H]), torch.tensor([[2, 3, 1, 0, 0]], dtype=torch.int32)
    assert window.holds(view, points, H, W, S)
    assert not window.holds(Window(280, 180, 100, 120), points, H, W, S)  # without the click at 400
    coords, labels = window.inside(points, view, H, W, S)
    assert labels.tolist() == [[2, 3, 1, -1, 0]]
    kept = coords[0, [0, 1, 2, 4]]
    assert (kept >= 0).all() and (kept <= S).all()
    back = kept * torch.tensor([view.width, view.height]) / S + torch.tensor([view.left, view.top])
    assert torch.allclose(back, pixels[0, [0, 1, 2, 4]], atol=1e-3)


def test_what_was_found_lands_where_the_window_is():
    view = Window(320, 240, 64, 48)
    middle = mask_of(0.25, 0.25, 0.75, 0.75)
    mask = window.reframed(middle, view, WHOLE, S)[0, 0] > 0
    ys, xs = mask.nonzero().unbind(1)
    assert (xs.min() * W / S).item() == pytest.approx(336, abs=3)
    assert (ys.min() * H / S).item() == pytest.approx(252, abs=3)
    assert mask.sum().item() == pytest.approx(32 * S / W * 24 * S / H, rel=0.2)
    placed = window.placed(middle, view, H, W)
    ys, xs = (placed[0, 0] > 0).nonzero().unbind(1)
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == (336, 367, 252, 275)
    assert placed.min() == -window.LOGITS and placed.shape == (1, 1, H, W)


def test_there_and_back_is_the_same_mask():
    mask = mask_of(0.4, 0.3, 0.6, 0.7)
    view = Window(160, 96, 320, 288)
    back = window.reframed(window.reframed(mask, WHOLE, view, 128), view, WHOLE, 64)
    assert torch.equal(back > 0, mask > 0)


# ---- tracking --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def video():
    """Two balls, a small red one that moves to the right and a large blue one, over a picture like leaves; masks."""
    rng = np.random.default_rng(3)
    ground = rng.integers(60, 120, (H // 8, W // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    yy, xx = np.mgrid[:H, :W]
    frames, small, large = [], [], []
    for t in range(10):
        frame = ground.copy()
        large.append((xx - 450) ** 2 + (yy - 150 - 5 * t) ** 2 < 110**2)
        small.append((xx - 120 - 12 * t) ** 2 + (yy - 330) ** 2 < 16**2)
        frame[large[-1]], frame[small[-1]] = (20, 40, 200), (220, 20, 20)
        frames.append(frame)
    return np.stack(frames), small, large


def nano(**settings):
    return build_sam2long_video_predictor("nano", device="cpu", sam2long=Sam2LongConfig(**settings))


def started(predictor, video, *objects):
    """objects: 1 is the small ball, 2 the large one."""
    state = predictor.init_state(video[0])
    for obj_id in objects:
        predictor.add_new_mask(state, 0, obj_id, video[obj_id][0])
    return state


def views(state, obj_id):
    return state.session.objects[obj_id].tracks[1].now.view


def iou(logits, truth):
    found = logits.numpy() > 0
    return (found & truth).sum() / (found | truth).sum()


def test_a_small_object_is_followed_from_nearer_and_its_mask_is_finer(video):
    state = started(nano(), video, 1)
    near = collect(nano(), state)
    far = collect(nano(), started(nano(close_up=False), video, 1))
    assert views(state, 1).left > 60  # it began at 0 and went along
    scores = [[iou(masks[t][0, 0], video[1][t]) for t in range(10)] for masks in (near, far)]
    assert np.mean(scores[0]) > max(0.85, np.mean(scores[1]))


def test_a_large_object_is_tracked_as_ever(video):
    assert same(collect(nano(), started(nano(), video, 2)), collect(nano(), started(nano(close_up=False), video, 2)))


def test_what_is_looked_at_is_encoded_once(video):
    for objects, passes in (((1,), 10), ((2,), 10), ((1, 2), 10 + 10)):
        state = started(nano(emit="online"), video, *objects)
        before = state.encoder_passes
        collect(nano(), state)
        assert state.encoder_passes == passes and before <= 2


@pytest.mark.parametrize(("objects", "ahead"), [((1,), False), ((2,), True), ((1, 2), False)])
def test_frames_are_encoded_ahead_where_nothing_has_a_window(video, objects, ahead, monkeypatch):
    taken, encode = [], frames._Ahead._encode
    monkeypatch.setattr(frames._Ahead, "_encode", lambda self: taken.append(1) or encode(self))
    collect(nano(), started(nano(), video, *objects))
    assert bool(taken) == ahead


def test_objects_do_not_disturb_each_other(video):
    predictor = nano()
    both = collect(predictor, started(predictor, video, 1, 2))
    for place, obj_id in enumerate((1, 2)):
        alone = collect(predictor, started(predictor, video, obj_id))
        assert all(torch.equal(both[t][place], alone[t][0]) for t in alone)


def test_a_click_outside_the_window_is_answered_in_the_whole_picture(video):
    predictor = nano()
    state = started(predictor, video, 1)
    collect(predictor, state)
    _, _, masks = predictor.add_new_points_or_box(state, 5, 1, points=[[450, 175]], labels=[1])
    assert state.session.objects[1].prompts[5].view is None
    assert iou(masks[0, 0], video[2][5]) > iou(masks[0, 0], video[1][5])


def test_a_further_click_refines_the_mask_from_nearer(video):
    predictor = nano()
    state = started(predictor, video, 1)
    collect(predictor, state)
    view = state.session.masks_on(4).views[0]
    assert view is not None
    _, _, masks = predictor.add_new_points_or_box(state, 4, 1, points=[[168, 330]], labels=[1])
    assert iou(masks[0, 0], video[1][4]) > 0.8
    assert state.session.objects[1].prompts[4].view is not None


def test_the_setting_is_kept_in_a_saved_state(video, tmp_path):
    predictor, plain = nano(), nano(close_up=False)
    expected = collect(predictor, started(predictor, video, 1))
    predictor.save_state(started(predictor, video, 1), tmp_path / "state")
    assert same(collect(plain, plain.load_state(tmp_path / "state", video[0])), expected)


def test_a_state_from_before_has_no_windows():
    assert unpacked_view({}) is None and unpacked_view({"view": None}) is None
    assert unpacked_view({"view": [1, 2, 3, 4]}) == Window(1, 2, 3, 4)


def test_anything_but_yes_or_no_is_refused():
    with pytest.raises(ConfigError, match="close_up"):
        Sam2LongConfig(close_up="near")
    assert Sam2LongConfig.sam2().close_up is False


# ---- in one place ----------------------------------------------------------------------------------------------


def pieces(*boxes, side=96):
    logits = torch.full((1, 1, side, side), -5.0)
    for left, top, right, bottom in boxes:
        logits[..., top:bottom, left:right] = 5.0
    return logits


BALL, NEAR, SHOE = (30, 30, 62, 62), (66, 40, 74, 50), (30, 76, 44, 84)


def test_a_small_thing_is_in_one_place():
    found = in_one_place(torch.cat([pieces(BALL, NEAR, SHOE), pieces(SHOE), pieces()]))
    assert torch.equal(found[:1] > 0, pieces(BALL, NEAR) > 0)  # a pole before it does not cut it in two
    assert torch.equal(found[1:], torch.cat([pieces(SHOE), pieces()]))
    assert not scattered(pieces(BALL, NEAR), WHOLE) and scattered(pieces(BALL, SHOE), WHOLE)


def test_a_long_way_through_a_mask_is_gone_to_its_end():
    assert not scattered(pieces((4, 4, 7, 80), (4, 77, 80, 80)), WHOLE)


@pytest.mark.parametrize("meant", [False, True])
def test_what_is_far_away_is_dropped_unless_a_prompt_meant_it(video, meant, monkeypatch):
    """As if the network took something like the object for it: a second ball of the same colour."""
    frames_, small, large = (list(part) for part in video)
    twin = (np.hypot(*(np.mgrid[:H, :W] - [[[330]], [[200]]]))) < 12
    for t in range(10):
        frames_[t] = frames_[t].copy()
        frames_[t][twin] = (220, 20, 20)
    predictor = nano(redraw=False)
    state = predictor.init_state(np.stack(frames_))
    predictor.add_new_mask(state, 0, 1, small[0] | twin if meant else small[0])
    really = track.in_one_place
    dropped = []
    monkeypatch.setattr(track, "in_one_place", lambda masks: dropped.append(1) or really(masks))
    found = collect(predictor, state)
    assert state.session.objects[1].prompts[0].scattered is meant and bool(dropped) is not meant
    assert ((found[1][0, 0].numpy() > 0) & twin).any() == meant

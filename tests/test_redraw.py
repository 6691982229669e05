"""Tracked masks are drawn once more by the network for still pictures."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sam2long import Sam2LongConfig, build_sam2long_video_predictor
from sam2long.errors import ConfigError
from sam2long.network.mobilesam import MobileSAM, mobilesam, quick_encoder
from sam2long.tracking.frames import FrameReader
from sam2long.tracking.redraw import ENLARGED, Redraw
from sam2long.tracking.window import SURE, Window
from sam2long.video import open_source
from tests.fakes import collect, same

H, W, CELLS = 240, 320, 96
LEFT, RIGHT = (90, 120), (230, 110)  # middles of two discs
RADIUS = 40


@pytest.fixture(scope="module")
def nano():
    """A predictor with given settings; all of one network."""
    built = build_sam2long_video_predictor("nano", device="cpu")
    return lambda **settings: type(built).from_sam2(built, Sam2LongConfig(**settings))


@pytest.fixture(scope="module")
def video():
    """Two discs over noise that move a little; frames and the masks of both."""
    rng = np.random.default_rng(0)
    yy, xx = np.mgrid[:H, :W]
    frames, masks = [], []
    for t in range(4):
        image = rng.integers(60, 120, (H, W, 3), dtype=np.uint8)
        both = [(xx - x - 3 * t) ** 2 + (yy - y) ** 2 < RADIUS**2 for x, y in (LEFT, RIGHT)]
        for mask, colour in zip(both, ((220, 20, 20), (20, 20, 220)), strict=True):
            image[mask] = colour
        frames.append(image)
        masks.append(both)
    return np.stack(frames), masks


def logits_of(mask, side=CELLS):
    """As the model knows a mask [H, W] of a part of the picture."""
    small = F.interpolate(torch.from_numpy(mask).float()[None, None], (side, side), mode="area")
    return small * 16 - 8


def iou(logits, mask):
    found = F.interpolate(logits, mask.shape, mode="bilinear")[0, 0].numpy() > 0
    return (found & mask).sum() / (found | mask).sum()


def sloppy(mask):
    """With a corner missing, and another one too much."""
    ys, xs = np.where(mask)
    drawn = mask.copy()
    drawn[ys.min() : ys.min() + 28, xs.min() : xs.min() + 28] = True
    drawn[ys.max() - 18 :, xs.max() - 30 :] = False
    return drawn


def redraw_of(predictor, frames):
    return Redraw(FrameReader(open_source(frames), predictor.batched()))


def started(predictor, video, objects=2):
    state = predictor.init_state(video[0])
    for obj_id in range(objects):
        predictor.add_new_mask(state, 0, obj_id, video[1][0][obj_id])
    return state


# ---- one frame -----------------------------------------------------------------------------------------------


def test_a_sloppy_mask_becomes_a_good_one(nano, video):
    truth = video[1][1][0]
    before = logits_of(sloppy(truth))
    after = redraw_of(nano(), video[0]).drawn(1, None, before)
    assert after.shape == before.shape and after.abs().amax() <= SURE
    assert iou(after, truth) > max(0.88, iou(before, truth) + 0.03)


def test_in_a_window_too(nano, video):
    view = Window(20, 50, 160, 140)
    truth = video[1][1][0][view.slices]
    before = logits_of(sloppy(truth))
    assert iou(redraw_of(nano(), video[0]).drawn(1, view, before), truth) > max(0.88, iou(before, truth) + 0.01)


def test_what_it_sees_otherwise_stays_as_it_was_tracked(nano, video, monkeypatch):
    redraw, before = redraw_of(nano(), video[0]), logits_of(video[1][1][0])
    for part, changed in ((0.6, True), (0.4, False)):

        def marked(self, seen, *, previous, part=part, **_):
            inside = (torch.arange(previous.shape[-2]) < part * 2 * 120 / H * previous.shape[-2]).float()
            assert self is not None and previous.shape[-1] * 4 == seen.width
            return torch.where(inside[:, None] > 0, previous, -SURE), torch.ones(len(previous), 1)

        monkeypatch.setattr(MobileSAM, "mark", marked)
        assert torch.equal(redraw.drawn(1, None, before), before) is not changed


def test_nothing_stays_nothing(nano, video):
    nothing = torch.full((1, 1, CELLS, CELLS), -3.0)
    assert torch.equal(redraw_of(nano(), video[0]).drawn(1, None, nothing), nothing)


def test_objects_of_one_part_are_drawn_together_as_each_alone(nano, video):
    redraw = redraw_of(nano(), video[0])
    before = torch.cat([logits_of(sloppy(mask)) for mask in video[1][1]])
    both = redraw.drawn(1, None, before)
    for row in range(2):
        assert torch.allclose(both[row : row + 1], redraw.drawn(1, None, before[row : row + 1]), atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(720, 1280), (480, 480), (60, 90), (2, 900)])
def test_it_looks_at_about_as_many_pixels_as_the_tracker(nano, height, width, monkeypatch):
    asked, see = [], MobileSAM.see

    def seen(self, picture, *how):
        asked.append(see(self, picture, *how))
        return asked[-1]

    monkeypatch.setattr(MobileSAM, "see", seen)
    redraw_of(nano(), np.zeros((1, height, width, 3), np.uint8)).drawn(0, None, torch.ones(1, 1, CELLS, CELLS))
    (found,) = asked
    pixels = min(nano().image_size ** 2, ENLARGED**2 * max(height, 16) * max(width, 16))
    assert 0.8 * min(pixels, 16 * 384) <= found.height * found.width <= 1.1 * pixels


# ---- tracking ------------------------------------------------------------------------------------------------


def test_nano_draws_again_unless_told_not_to(nano, video):
    usual, told, without = (
        collect(predictor, started(predictor, video)) for predictor in (nano(), nano(redraw=True), nano(redraw=False))
    )
    assert same(usual, told) and not same(usual, without)


def test_objects_of_the_whole_picture_share_a_look(nano, video, monkeypatch):
    looks, see = [], MobileSAM.see
    monkeypatch.setattr(MobileSAM, "see", lambda self, *said: looks.append(said) or see(self, *said))
    predictor = nano(close_up=False)
    collect(predictor, started(predictor, video))
    assert len(looks) == len(video[0]) - 1  # the first frame was prompted


def test_an_object_that_is_away_is_not_drawn(nano, video, monkeypatch):
    frames = video[0].copy()
    frames[2:] = np.random.default_rng(1).integers(60, 120, (2, H, W, 3), dtype=np.uint8)
    drawn, really = [], Redraw.drawn

    def counted(self, frame, *said):
        drawn.append(frame)
        return really(self, frame, *said)

    monkeypatch.setattr(Redraw, "drawn", counted)
    predictor = nano()
    found = collect(predictor, started(predictor, (frames, video[1]), 1))
    there = [frame for frame in range(1, 4) if (found[frame] > 0).any()]
    assert drawn == there == [1]


def test_the_same_again_after_going_back(nano, video):
    """A correction replays frames from a checkpoint: what was drawn has to come out as before."""
    predictor = nano()
    state = started(predictor, video, 1)
    first = collect(predictor, state)
    again = {frame: masks for frame, _, masks in predictor.propagate_in_video(state, start_frame_idx=2)}
    assert again and all(torch.equal(first[frame], masks) for frame, masks in again.items())


def test_a_stream_is_drawn_again_where_it_has_pictures(nano, video):
    found = []
    for redraw in (True, False):
        predictor = nano(emit="online", redraw=redraw)
        state = predictor.init_stream(video[0][0])
        predictor.add_new_mask(state, 0, 0, video[1][0][0])
        outs = [out for frame in range(1, 4) for out in predictor.track(state, video[0][frame])]
        found.append({frame: masks for frame, _, masks in outs})
    assert all((found[0][t] != found[1][t]).any() for t in range(1, 4))
    assert iou(found[0][3], video[1][3][0]) > 0.9


def test_the_setting_is_kept_in_a_saved_state(nano, video, tmp_path):
    predictor, without = nano(), nano(redraw=False)
    predictor.save_state(started(predictor, video), tmp_path / "state")
    state = without.load_state(tmp_path / "state", video[0])
    assert same(collect(without, state), collect(predictor, started(predictor, video)))


def test_plain_sam2_draws_once():
    assert Sam2LongConfig.sam2().redraw is False
    with pytest.raises(ConfigError, match="redraw"):
        Sam2LongConfig(redraw="often")


def test_a_quick_encoder_sees_the_same(monkeypatch):
    """In bfloat16 where the processor is fast at it, otherwise as ever."""
    device = torch.device("cpu")
    picture = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    for fast, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda fast=fast: {"avx512_bf16": fast}, raising=False)
        encoder = quick_encoder.__wrapped__(device)
        assert next(encoder.parameters()).dtype == dtype
        usual, quick = (mobilesam(device).see(picture, 320, each).features for each in (None, encoder))
        assert quick.dtype == torch.float32
        assert F.cosine_similarity(usual, quick).mean() > 0.99


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_in_half_precision_it_draws_in_that(video, dtype):
    """A part in bfloat16 within float16 is refused by torch."""
    predictor = build_sam2long_video_predictor("nano", device="cpu", dtype=dtype)
    found = collect(predictor, started(predictor, video, 1))
    assert iou(found[3][:1].float(), video[1][3][0]) > 0.85

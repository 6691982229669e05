"""Prompts are answered by the network for still pictures."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sam2long import Sam2LongConfig, build_sam2long_camera_predictor, build_sam2long_video_predictor
from sam2long.errors import ConfigError
from sam2long.network.mobilesam import MobileSAM, mobilesam
from sam2long.network.tinyvit import HEAD, Attention, WindowBlock
from sam2long.tracking.frames import FrameReader
from sam2long.tracking.stills import FARTHEST, NEAR, Marked, Stills
from sam2long.tracking.window import Window
from sam2long.video import open_source

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from nano.mobilesam import converted

H, W = 480, 640
BOX = [184, 284, 216, 316]


@pytest.fixture(scope="module")
def nano():
    return build_sam2long_video_predictor("nano", device="cpu")


@pytest.fixture(scope="module")
def plain():
    return build_sam2long_video_predictor("nano", device="cpu", sam2long=Sam2LongConfig(stills=False))


def stills_of(predictor, frames):
    """The frames as the network for still pictures sees them."""
    return Stills(FrameReader(open_source(frames), predictor.batched()))


def click(predictor, x, y, label):
    """A click in pixels of a clip, as the model takes it."""
    place = torch.tensor([[[float(x) / W, float(y) / H]]]) * predictor.network.image_size
    return place, torch.tensor([[label]], dtype=torch.int32)


def as_mask(marked):
    """What is marked, in pixels of its part of the clip."""
    size = marked.view.height, marked.view.width
    return F.interpolate(marked.logits, size, mode="bilinear")[0, 0].numpy() > 0


# ---- the network ---------------------------------------------------------------------------------------------


def test_attention_knows_how_far_away_each_place_is():
    """Against the sum written out, for one place of a window."""
    torch.manual_seed(0)
    attention = Attention(2 * HEAD, 3)
    nn.init.normal_(attention.attention_biases)
    x = torch.randn(1, 9, 2 * HEAD)
    at, head = 4, 1  # the middle: neighbours on all sides
    of_head = attention.qkv(attention.norm(x))[0].view(9, 2, 3, HEAD)[:, head]  # queries, keys, values of a head
    bias = torch.stack([attention.attention_biases[head, 3 * abs(k // 3 - at // 3) + abs(k % 3 - at % 3)]
                        for k in range(9)])  # fmt: skip
    weights = (of_head[:, 1] @ of_head[at, 0] / HEAD**0.5 + bias).softmax(0)
    attention.proj = nn.Identity()
    assert torch.allclose(attention(x)[0, at, HEAD:], weights @ of_head[:, 2], atol=1e-5)


def test_windows_do_not_see_each_other():
    torch.manual_seed(0)
    block = WindowBlock(HEAD, 7).eval()
    x = torch.randn(1, 9, 15, HEAD)  # two windows and a bit
    changed = x.clone()
    changed[:, :7, :7] = torch.randn(1, 7, 7, HEAD)
    same = (block._attended(x) - block._attended(changed)).abs().amax((0, 3)) < 1e-6
    assert block._attended(x).shape == x.shape
    assert same[7:].all() and same[:, 7:].all() and not same[:7, :7].any()


def test_batch_norm_is_folded_into_the_convolution():
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4).eval()
    for each in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        each.data = torch.rand(4) + 0.5
    place = "image_encoder.patch_embed.seq.2."
    published = {f"{place}c.weight": convolution.weight} | {f"{place}bn.{k}": v for k, v in norm.state_dict().items()}
    published |= {"image_encoder.head.weight": torch.zeros(2), "prompt_encoder.no_mask_embed.weight": torch.ones(1, 2),
                  "mask_decoder.transformer.layers.0.mlp.lin1.bias": torch.ones(3),
                  "image_encoder.layers.2.blocks.5.mlp.fc1.bias": torch.ones(4)}  # fmt: skip
    found = converted(published)
    first = "encoder.patch_embed.1."
    others = "prompts.no_mask_embed.weight", "encoder.stages.2.5.mlp.fc1.bias"
    assert set(found) == {f"{first}weight", f"{first}bias", "decoder.transformer.layers.0.mlp.layers.0.bias", *others}
    x = torch.rand(1, 3, 5, 5)
    folded = F.conv2d(x, found[f"{first}weight"].float(), found[f"{first}bias"].float())
    assert torch.allclose(folded, norm(convolution(x)), atol=1e-2)  # kept in half precision


@pytest.mark.parametrize(
    ("size", "height", "width"), [((480, 640), 384, 512), ((90, 30), 368, 128), ((2, 900), 16, 512)]
)
def test_a_picture_keeps_its_shape(size, height, width):
    seen = mobilesam(torch.device("cpu")).see(np.zeros((*size, 3), np.uint8), 512)
    assert (seen.height, seen.width) == (height, width)
    assert seen.features.shape == (1, 256, height // 16, width // 16)


@pytest.mark.parametrize("longest", [1024, 512])
def test_it_marks_a_disc_from_a_box_or_a_click_at_any_size(clip, longest):
    network, (height, width) = mobilesam(torch.device("cpu")), (H, W)
    seen = network.see(clip[0][0], longest)
    scale = longest / W
    for said in (
        {"boxes": torch.tensor([BOX]) * scale},
        {"points": (torch.tensor([[[200.0, 300]]]) * scale, torch.ones(1, 1, dtype=torch.int32)), "several": True},
    ):
        logits, ious = network.mark(seen, **said)
        mask = F.interpolate(logits[:, ious[0].argmax()][:, None], (height, width), mode="bilinear")[0, 0] > 0
        assert logits.shape == (1, 3 if "points" in said else 1, seen.height // 4, seen.width // 4)
        assert iou(mask.numpy(), clip[1][0]) > 0.8
    again, _ = network.mark(seen, boxes=torch.tensor([BOX]) * scale, previous=logits[:, :1])
    assert again.shape == (1, 1, *logits.shape[2:])


def test_several_prompts_share_a_picture(clip):
    network = mobilesam(torch.device("cpu"))
    seen = network.see(clip[0][0], 512)
    boxes = torch.tensor([BOX, [20, 20, 300, 200]]) * 512 / W
    both, _ = network.mark(seen, boxes=boxes)
    for row in range(2):
        assert torch.allclose(both[row], network.mark(seen, boxes=boxes[row : row + 1])[0][0], atol=1e-3)


def test_it_is_made_without_its_weights_too():
    assert sum(p.numel() for p in MobileSAM().parameters()) == pytest.approx(9.8e6, rel=0.05)


# ---- where it looks ------------------------------------------------------------------------------------------


def test_what_is_small_is_looked_at_in_a_part_of_the_picture(nano):
    stills = stills_of(nano, np.zeros((1, 720, 1280, 3), np.uint8))
    extent = lambda *corners: torch.tensor(corners).float().view(2, 2)  # noqa: E731
    assert stills._around(extent(600, 300, 640, 330)) == Window(364, 59, NEAR, NEAR)
    assert stills._around(extent(0, 0, 20, 20)) == Window(0, 0, NEAR, NEAR)
    assert stills._around(extent(1260, 700, 1280, 720)) == Window(1280 - NEAR, 720 - NEAR, NEAR, NEAR)
    assert stills._around(extent(600, 300, 760, 330)) == Window(360, 0, 640, 640)  # four times as wide
    assert stills._around(extent(500, 300, 500 + FARTHEST * 1280 / 3, 330)) == Window.of_all(720, 1280)


def test_what_is_marked_so_far_and_clicks_say_where(nano):
    stills = stills_of(nano, np.zeros((1, 720, 1280, 3), np.uint8))
    logits = torch.full((1, 1, 90, 160), -3.0)
    logits[..., 10:20, 20:40] = 3.0
    size = nano.network.image_size
    clicks = torch.tensor([[[400 * size / 1280, 100 * size / 720], [9.0, 9.0]]]), torch.tensor([[1, 0]])
    marked = Marked(logits, Window.of_all(720, 1280))
    assert stills._extent(marked, clicks).tolist() == [[160, 80], [400, 160]]
    assert stills._extent(Marked(logits - 9, marked.view), clicks)[0].tolist() == pytest.approx([400, 100], abs=1e-3)
    in_part = Marked(logits, Window(640, 360, 320, 180))
    nothing = clicks[0], torch.zeros(1, 2, dtype=torch.int32)
    assert stills._extent(in_part, nothing).tolist() == [[680, 380], [720, 400]]


@pytest.mark.parametrize("said", [{"box": [604, 304, 636, 336]}, {"points": [[620, 320]], "labels": [1]}])
def test_something_small_in_a_large_picture(nano, said):
    image, mask = disc(720, 1280, 620, 320, 14)
    state = nano.init_state(image[None])
    found = nano.add_new_points_or_box(state, 0, 1, **said)[2][0, 0].numpy() > 0
    assert iou(found, mask) > 0.85


def test_a_click_means_the_largest_thing_that_may_well_be_right(nano, monkeypatch):
    stills = stills_of(nano, np.zeros((1, 300, 400, 3), np.uint8))
    logits = torch.full((1, 3, 8, 8), -1.0)
    for k, side in enumerate((2, 8, 5)):
        logits[0, k, :side, :side] = 1.0
    for ious, side in (([0.9, 0.85, 0.8], 8), ([0.9, 0.8, 0.85], 5), ([0.95, 0.8, 0.85], 2)):
        answered = logits, torch.tensor([ious])
        monkeypatch.setattr(MobileSAM, "mark", lambda *_, answered=answered, **__: answered)
        assert (stills._clicked(0, click(nano, 9, 9, 1)).logits > 0).sum() == side**2


# ---- prompts -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip():
    """A red disc of 14 pixels' radius that moves over noise; its masks."""
    shown = [disc(H, W, 200 + 4 * t, 300, 14) for t in range(3)]
    return np.stack([image for image, _ in shown]), np.stack([mask for _, mask in shown])


def disc(height, width, x, y, radius):
    """A red disc over noise, and its mask."""
    image = np.random.default_rng(0).integers(60, 120, (height, width, 3), dtype=np.uint8)
    yy, xx = np.mgrid[:height, :width]
    mask = (xx - x) ** 2 + (yy - y) ** 2 < radius**2
    image[mask] = (220, 20, 20)
    return image, mask


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def first_mask(clip, **settings):
    predictor = build_sam2long_video_predictor("nano", device="cpu", sam2long=Sam2LongConfig(**settings))
    state = predictor.init_state(clip[0])
    _, _, masks = predictor.add_new_points_or_box(state, 0, 1, box=BOX)
    return predictor, state, masks[0, 0].numpy() > 0


def test_nano_has_prompts_answered_unless_told_not_to(clip):
    *_, own = first_mask(clip, stills=False)
    *_, told = first_mask(clip, stills=True)
    *_, usual = first_mask(clip)
    assert np.array_equal(usual, told) and not np.array_equal(own, told)
    assert iou(told, clip[1][0]) > max(0.85, iou(own, clip[1][0]))


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


def test_a_click_on_a_tracked_frame_refines_what_is_tracked_there(clip, monkeypatch):
    predictor, state, _ = first_mask(clip)
    list(predictor.propagate_in_video(state))
    before, asked, answer = [], {"points": [[204, 300]], "labels": [1]}, Stills.answer

    def heard(self, frame, points, previous, tracked):
        before.append((previous, tracked))
        return answer(self, frame, points, previous, tracked)

    monkeypatch.setattr(Stills, "answer", heard)
    found = predictor.add_new_points_or_box(state, 1, 1, **asked)[2][0, 0].numpy() > 0
    assert iou(found, clip[1][1]) > 0.85
    ((previous, tracked),) = before
    assert tracked and (previous.logits > 0).any()  # what memories and the click make of it
    monkeypatch.setattr(Stills, "answer", lambda *_: None)  # it has nothing to say
    assert iou(predictor.add_new_points_or_box(state, 1, 1, **asked)[2][0, 0].numpy() > 0, clip[1][1]) > 0.5


def test_a_click_on_what_was_tracked_and_is_not_the_object_leaves_the_rest(nano, clip):
    """A click says where the error is, not what the object is: without a box it would be anything."""
    stills = stills_of(nano, clip[0])
    too_much = clip[1][1] | (np.hypot(*(np.mgrid[:H, :W] - [[[300]], [[226]]])) < 10)
    logits = F.interpolate(torch.from_numpy(too_much).float()[None, None] * 20 - 10, (96, 96), mode="area")
    found = stills.answer(1, click(nano, 228, 300, 0), Marked(logits, Window.of_all(H, W)), tracked=True)
    assert iou(as_mask(found), clip[1][1][found.view.slices]) > max(0.85, iou(too_much, clip[1][1]))


def test_a_click_where_nothing_is_tracked_shows_the_object(nano, clip):
    stills = stills_of(nano, clip[0])
    nothing = Marked(torch.full((1, 1, 96, 96), -1024.0), Window.of_all(H, W))
    found = stills.answer(1, click(nano, 204, 300, 1), nothing, tracked=True)
    assert iou(as_mask(found), clip[1][1][found.view.slices]) > 0.85
    assert stills.answer(1, click(nano, 204, 300, 0), nothing, tracked=True) is None


def test_what_is_found_is_tracked_and_refined_by_a_click(clip):
    predictor, state, found = first_mask(clip)
    tracked = {frame: masks[0, 0].numpy() > 0 for frame, _, masks in predictor.propagate_in_video(state)}
    assert np.array_equal(tracked[0], found)
    predictor.reset_state(state)
    predictor.add_new_points_or_box(state, 0, 1, box=BOX)
    _, _, masks = predictor.add_new_points_or_box(state, 0, 1, points=[[200, 300]], labels=[1], clear_old_points=False)
    assert iou(masks[0, 0].numpy() > 0, clip[1][0]) > 0.85


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


def test_clicks_are_answered_one_after_another(nano, plain, clip):
    own, found = (clicked(predictor, clip, (200, 300, 1)) for predictor in (plain, nano))
    assert iou(found, clip[1][0]) > max(0.85, iou(own, clip[1][0]))
    assert iou(clicked(nano, clip, (200, 300, 1), (206, 306, 1), (230, 300, 0)), clip[1][0]) > 0.85


def test_clicks_given_at_once_and_one_after_another_mean_the_same(nano, clip):
    said = (200, 300, 1), (230, 300, 0)
    state = nano.init_state(clip[0])
    _, _, masks = nano.add_new_points_or_box(state, 0, 1, points=[s[:2] for s in said], labels=[s[2] for s in said])
    assert iou(masks[0, 0].numpy() > 0, clicked(nano, clip, *said)) > 0.9


def test_negative_clicks_alone_are_for_the_model_itself(nano, plain, clip):
    assert np.array_equal(clicked(nano, clip, (200, 300, 0)), clicked(plain, clip, (200, 300, 0)))


@pytest.mark.parametrize("labels", [[2], [3], [2, 1]])
def test_a_corner_without_its_other_corner_is_a_point(nano, clip, labels):
    state = nano.init_state(clip[0][:1])
    points = [[190.0, 290], [200.0, 300]][: len(labels)]
    assert nano.add_new_points_or_box(state, 0, 1, points=points, labels=labels)[2].shape == (1, 1, H, W)


def test_a_stream_asks_about_the_frame_that_it_holds(clip):
    *_, found = first_mask(clip)
    camera = build_sam2long_camera_predictor("nano", device="cpu")
    camera.load_first_frame(clip[0][0])
    _, _, masks = camera.add_new_prompt(frame_idx=0, obj_id=1, bbox=BOX)
    assert np.array_equal(masks[0, 0].numpy() > 0, found)


def test_a_stream_without_pictures_is_answered_by_the_model_itself(nano, plain, clip):
    """Nothing can be asked about features."""
    found = []
    for predictor in (nano, plain):
        state = predictor.init_stream(predictor.encode_frame(clip[0][0]))
        *_, first = predictor.add_new_points_or_box(state, 0, 1, box=BOX)
        rest = [out for t in (1, 2) for out in predictor.track(state, predictor.encode_frame(clip[0][t]))]
        found.append([first, *(masks for *_, masks in rest)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_other_models_and_plain_sam2_answer_themselves():
    predictor = build_sam2long_video_predictor("nano", device="cpu", sam2long=Sam2LongConfig.sam2())
    assert not any(predictor._says(setting) for setting in ("stills", "close_up"))
    with pytest.raises(ConfigError, match="stills"):
        Sam2LongConfig(stills="yes")

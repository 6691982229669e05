"""The embedded nano model and the script that trains it."""

import dataclasses
import json
import math
import random
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from eval import layouts
from eval.datasets import open_dataset
from sam2long import Sam2LongConfig, SAM2LongVideoPredictor
from sam2long.synthetic import generate

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "sam2long" / "models" / "nano.safetensors"
sys.path.insert(0, str(ROOT / "scripts"))

import train_nano  # noqa: E402
from nano import (  # noqa: E402
    clips,
    composed,
    curriculum,
    curves,
    forward,
    losses,
    network,
    optimisation,
    photos,
    prompts,
    scoring,
    stills,
    training,
)

GENERATED = {"generated": clips.Generated()}


@pytest.fixture(scope="module")
def model():
    return network.load(WEIGHTS)


def test_the_weights_fit_the_wheel_and_the_yaml(model):
    assert WEIGHTS.stat().st_size <= 18e6
    assert type(model).__module__ == "sam2.modeling.sam2_base"
    assert model.num_maskmem == 7 and model.pred_obj_scores and model.multimask_output_for_tracking


def test_frames_encoded_together_have_the_bits_of_frames_alone(model):
    """What the neck is for; the trunk keeps its bits on the processors that were at hand (Intel, AMD)."""
    torch.manual_seed(0)
    neck = model.image_encoder.neck
    with torch.inference_mode():
        levels = model.image_encoder.trunk(torch.randn(2, 3, 256, 256))
        together = neck(levels)[0]
        for at in range(2):
            alone = neck([level[at : at + 1] for level in levels])[0]
            assert all(torch.equal(one[at : at + 1], other) for one, other in zip(together, alone, strict=True))


def test_it_tracks_held_out_videos(model):
    run = scoring.track_clips(model, scoring.held_out_clips("easy", clips=4, frames=20, size=model.image_size))
    assert float(run.iou.mean()) > 0.5  # the model card has the real figure; this catches broken weights or paths


def test_it_tells_presence_from_absence(model):
    found = scoring.summary(
        scoring.track_clips(model, scoring.held_out_clips("occlusion", clips=3, frames=40, size=model.image_size))
    )
    assert found["visible"] < 1 and found["presence_auc"] > 0.8


def test_the_scripts_tracker_is_sam2s_own_predictor(model, tmp_path):
    """What is trained and scored is what `SAM2VideoPredictor` runs: the same masks, frame by frame."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    config = OmegaConf.load(network.MODELS / "nano.yaml").model
    config._target_ = "sam2.sam2_video_predictor.SAM2VideoPredictor"
    predictor = instantiate(config)
    predictor.load_state_dict(model.state_dict())
    predictor.eval()
    frames, seed = 12, 41
    scene = generate("easy", seed, frames, model.image_size)
    clip = layouts.Clip.of(scene)
    folder = layouts.write("davis17-val", tmp_path / "data", [clip]) / "JPEGImages/480p" / clip.name
    images, masks = clips.prepare(
        np.stack([[f.image for f in scene]]), np.stack([[f.ids for f in scene]]), torch.device("cpu")
    )
    state = predictor.init_state(str(folder), offload_video_to_cpu=True)
    state["images"] = images[0]  # the pixels themselves, not their JPEG
    with torch.inference_mode():
        predictor.add_new_mask(state, 0, 1, masks[0, 0])
        theirs = torch.stack([m[0, 0] > 0 for _, _, m in predictor.propagate_in_video(state)][1:])
        tracker = network.Tracker(model)
        bank = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        ours = []
        for t in range(frames):
            feats, pos, sizes = tracker.encode(images[:, t])
            if t == 0:
                out, _ = tracker.prompt(feats, sizes, masks[:1, 0], torch.zeros(1), random.Random(0))
                bank["cond_frame_outputs"][0] = tracker.remember(out, feats, sizes)
            else:
                out = tracker.track(t, bank, feats, pos, sizes)
                bank["non_cond_frame_outputs"][t] = tracker.remember(out, feats, sizes)
                ours.append(out["high"][0, 0] > 0)
        tracker.close()
    # not to the bit: the predictor keeps memories in bfloat16, and the prompt's from its mask at a quarter of the size
    assert (torch.stack(ours) != theirs).float().mean() < 5e-3


def test_a_perfect_mask_costs_almost_nothing_and_an_empty_one_much():
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., 2:6, 2:6] = 1
    loss, iou = losses.mask_losses(torch.cat([truth * 40 - 20, -20 * torch.ones_like(truth)], 1), truth)
    assert loss[0, 0] < 1e-3 < 1 < loss[0, 1]
    assert iou.tolist() == [[1.0, 0.0]]


def pulls(every_mask):
    """How hard each of four masks is pulled to the truth: the best, and three others; the last is the one on top."""
    truth = torch.zeros(1, 8, 8, dtype=torch.bool)
    truth[:, 2:6, 2:6] = True
    masks = torch.stack([truth.float() * 4 - 2, *[-torch.ones(1, 8, 8)] * 3], 1).requires_grad_()
    raws = [(masks, torch.tensor([[0.5, 0.5, 0.5, 0.9]]), torch.zeros(1, 1))]
    losses.losses(raws, truth, torch.tensor([True]), 1, every_mask)["mask"].backward()
    return masks.grad.abs().sum((0, 2, 3)).tolist()


def test_only_the_best_mask_is_pulled_towards_the_truth():
    best, *others = pulls(0.0)
    assert best > 0 and others == [0, 0, 0]


def test_of_a_shared_loss_every_mask_gets_the_same():
    best, *others = pulls(0.8)
    alone, *_ = pulls(0.0)
    assert others[0] > 0 and others == pytest.approx([others[0]] * 3)
    assert best == pytest.approx((0.2 + 0.8 / 4) * alone)


def test_the_order_of_the_predicted_ious_counts():
    """Beside how far off each of them is: here masks of true IoU 1, 0.5 and 0."""
    truth = torch.zeros(1, 8, 8)
    truth[:, :4] = 1
    half = truth * (torch.arange(8) < 4)
    masks = 40 * torch.stack([truth, half, torch.zeros_like(truth)], 1) - 20

    def beyond_l1(ious):
        part = losses.losses([(masks, torch.tensor([ious]), torch.ones(1, 1))], truth, torch.tensor([True]), 1)
        return float(part["iou"] - (torch.tensor(ious) - torch.tensor([1.0, 0.5, 0.0])).abs().mean())

    assert beyond_l1([1.0, 0.5, 0.0]) == pytest.approx(0, abs=1e-3)
    undecided = beyond_l1([0.75, 0.75, 0.0])
    assert beyond_l1([0.5, 1.0, 0.0]) > undecided == pytest.approx(losses.RANKING * math.log(2), rel=1e-3)


def test_an_absent_object_teaches_presence_only():
    masks, ious = torch.randn(2, 3, 8, 8, requires_grad=True), torch.rand(2, 3, requires_grad=True)
    logits = torch.zeros(2, 1, requires_grad=True)
    part = losses.losses([(masks, ious, logits)], torch.zeros(2, 8, 8), torch.zeros(2, dtype=torch.bool), 1)
    (part["mask"] + part["iou"] + part["presence"]).backward()
    assert masks.grad.abs().sum() == 0 and ious.grad.abs().sum() == 0 and logits.grad.min() > 0


def test_newton_schulz_brings_the_singular_values_together():
    x = torch.randn(3, 64, 128, generator=torch.Generator().manual_seed(0))
    for batch in (x, x.mT):
        values = torch.linalg.svdvals(optimisation.orthogonalise(batch))
        assert values.min() > 0.3 and values.max() < 1.3


def test_what_came_closer_or_went_away_has_a_figure_of_its_own():
    iou = torch.tensor([[0.9, 0.8, 0.4, 1.0]])
    three = iou[..., None].expand(-1, -1, 3)
    run = scoring.Run(
        iou=iou, predicted=three, true=three, logit=torch.ones(1, 4), area=torch.tensor([[100, 250, 400, 0]])
    )
    assert scoring.summary(run)["J_resized"] == pytest.approx(0.4)
    run.area[0, 1] = 30
    assert scoring.summary(run)["J_resized"] == pytest.approx(0.6)
    assert math.isnan(scoring.summary(dataclasses.replace(run, area=torch.full((1, 4), 9)))["J_resized"])


def test_auc_and_rank_correlation_by_hand():
    label = torch.tensor([True, True, False, False])
    assert scoring.auc(torch.tensor([3.0, 2.0, 1.0, 0.0]), label) == 1
    assert scoring.auc(torch.tensor([3.0, 0.0, 1.0, 2.0]), label) == 0.5
    assert scoring.rank_correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 20.0, 30.0])) == pytest.approx(1)


@pytest.mark.parametrize("centred", [0.0, 1.0])
def test_a_correction_clicks_where_the_mask_is_wrong(centred):
    want = torch.zeros(4, 8, 8, dtype=torch.bool)
    got = want.clone()
    want[0, 2, 3] = True  # missed
    got[1, 5, 6] = True  # too much
    want[2, 1, 1] = got[2, 1, 1] = True  # right
    points, labels = prompts.correction_points(want, got, random.Random(0), centred)
    assert points[:, 0].tolist() == [[3, 2], [6, 5], [1, 1], [0, 0]]
    assert labels[:, 0].tolist() == [1, 0, 1, -1]


def test_a_centred_correction_lies_in_the_middle_of_the_widest_error():
    want = torch.zeros(1, 32, 32, dtype=torch.bool)
    got = want.clone()
    want[0, 4:9, 10:15] = True  # 5 x 5, missed
    got[0, 20:22, :] = True  # 2 x 32: more pixels, but a thin strip
    points, labels = prompts.correction_points(want, got, random.Random(0), centred=1.0)
    assert points.tolist() == [[[12, 6]]] and labels.tolist() == [[1]]


def test_answers_of_one_and_of_three_masks_are_averaged_by_row():
    """The loss of both together is the mean over the rows of the loss of each."""
    torch.manual_seed(0)
    truth = torch.rand(3, 16, 16) > 0.5
    raws = [(torch.randn(n, k, 8, 8), torch.rand(n, k), torch.randn(n, 1)) for n, k in ((1, 1), (2, 3))]
    present = torch.ones(3, dtype=torch.bool)
    both = losses.losses(raws, truth, present, 1, 0.3)
    alone = [losses.losses([raw], truth[at], present[at], 1, 0.3)
             for raw, at in zip(raws, (slice(0, 1), slice(1, 3)), strict=True)]  # fmt: skip
    for name, value in both.items():
        assert float(value) == pytest.approx((float(alone[0][name]) + 2 * float(alone[1][name])) / 3, rel=1e-5)


def test_a_box_prompt_is_two_labelled_corners():
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[0, 3:7, 5:11] = True
    points, labels = prompts.box_points(mask, random.Random(0), jitter=0.0)
    assert points.tolist() == [[[5, 3], [11, 7]]] and labels.tolist() == [[2, 3]]
    points, _ = prompts.box_points(torch.ones(1, 30, 20, dtype=torch.bool), random.Random(0), jitter=0.0)
    assert points.tolist() == [[[0, 0], [20, 30]]]  # taller than it is wide


def test_the_curriculum_grows_and_ends_at_the_full_size():
    stages = curriculum.STAGES
    assert [s.until for s in stages] == sorted(s.until for s in stages)
    assert stages[0].size == 128 and stages[-1].size == curriculum.SIZE
    clips_only = [s for s in stages if not s.stills]
    for name, most in (("truth", True), ("frames", False), ("size", False)):
        values = [getattr(s, name) for s in clips_only]
        assert values == sorted(values, reverse=most)
    assert stages[-1].truth == 0
    assert curriculum.stage_at(0.0) is stages[0] and curriculum.stage_at(1.0).until > 1
    assert {curriculum.stage_at(0.75, turn).stills for turn in range(4)} == {False, True}  # they take turns
    assert not any(curriculum.stage_at(0.95, turn).stills for turn in range(4))  # MobileSAM answers prompts
    assert all(s.chunk <= s.frames for s in stages)


def test_without_photographs_there_are_no_stills():
    for position in (0.0, 0.2, 0.5, 0.7, 1.0):
        assert not any(curriculum.stage_at(position, turn, photos=False).stills for turn in range(6))


def test_the_pretrained_trunk_waits_until_the_heads_work():
    learns = [s.until for s in curriculum.STAGES if s.trunk]
    assert min(learns) > curriculum.STAGES[0].until and max(learns) > 1


def test_training_clips_never_use_held_out_videos(monkeypatch):
    splits = []
    monkeypatch.setattr(clips, "generate", lambda *a, **k: splits.append(k["split"]) or generate(*a, **k))
    rng = random.Random(3)
    for stage in (s for s in curriculum.STAGES if not s.stills):
        images, ids = clips.make_batch(rng, stage, 2, GENERATED)
        assert images.shape[:2] == ids.shape[:2] == (2, stage.frames)
        assert all((ids[:, 0] == k).any(axis=(1, 2)).all() for k in range(1, curriculum.OBJECTS + 1))
    assert splits and set(splits) == {"train"}


def trainer(folder, *options):
    if "--init" not in options and not (folder / "last.pt").exists():
        options = ("--init", str(WEIGHTS), *options)
    argv = ["train", "--out", str(folder), "--ranks", "1", "--device", "cpu", *options]
    return training.Trainer(0, train_nano.arguments(argv))


def test_in_bfloat16_the_next_chunk_of_a_clip_runs_on_the_stepped_weights(tmp_path):
    """Autocast keeps its casts of the weights as long as its context lasts, and one context holds a whole clip."""
    run = trainer(tmp_path)
    x = torch.randn(4, 128, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        first = run.model.obj_ptr_proj(x)
        run.backward(first.sum())
        second = run.model.obj_ptr_proj(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(second, run.model.obj_ptr_proj(x))
    assert not torch.equal(first, second)


def test_a_run_can_start_from_exported_weights_late_in_the_curriculum(tmp_path, album):
    run = trainer(tmp_path, "--init", str(WEIGHTS), "--begin", "0.9", "--minutes", "10", "--photos", str(album))
    shipped = network.read_weights(WEIGHTS)
    assert all(torch.equal(v, shipped[k]) for k, v in network.clean_state(run.model).items())
    assert all(torch.equal(a, b) for a, b in zip(run.ema, run.params, strict=True))
    assert run.share == 0 and run.position.value == 0.9
    run.tick(300)
    assert run.share == 0.5 and run.position.value == pytest.approx(0.95)
    run.save()
    again = trainer(tmp_path, "--minutes", "10")  # goes on where it stood, without being told where it began
    assert again.position.value == pytest.approx(0.95)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--begin", "0.9"], "give --init FILE"),
        (["--begin", "1.2", "--init", str(WEIGHTS)], "from 0 to below 1"),
        (["--init", "nowhere.safetensors"], "nowhere.safetensors is not there"),
    ],
)
def test_a_start_that_makes_no_sense_is_refused(options, message, capsys):
    with pytest.raises(SystemExit):
        train_nano.arguments(["train", *options])
    assert message in capsys.readouterr().err


def test_an_object_is_lost_where_it_is_in_view_and_said_to_be_elsewhere():
    truth = torch.zeros(4, 8, 8, dtype=torch.bool)
    truth[:3, :4, :4] = True
    found = torch.zeros_like(truth)
    found[0] = truth[0]  # found
    found[1, 4:, 4:] = True  # elsewhere
    assert forward.lost(found, truth).tolist() == [False, True, True, False]  # nothing said; nothing there


def test_a_lost_object_is_put_right_in_memory(model, monkeypatch):
    """With the chance at 1 the memory of every frame on which it is lost is made from the true mask, of no other."""
    stage = curriculum.Stage(until=1, clips=2, frames=4, chunk=4, truth=0.0, rescue=1.0, size=64)
    images, ids = clips.make_batch(random.Random(5), stage, 2, GENERATED)
    x, masks = clips.prepare(images, ids, torch.device("cpu"))
    network.set_size(model, 64)
    flags = iter(torch.tensor([[True, False, False, True]] * 3))
    monkeypatch.setattr(forward, "lost", lambda found, truth: next(flags))
    tracker, used = network.Tracker(model), []
    inner = tracker.remember
    monkeypatch.setattr(tracker, "remember", lambda *args: used.append(args[3:]) or inner(*args))
    try:
        forward.forward_clip(tracker, x, masks, stage, random.Random(0), lambda loss: None)
    finally:
        tracker.close()
        network.set_size(model, 256)
    for t, (memory_mask,) in enumerate(used[1:], start=1):
        from_truth = masks[:, t, None].float() * 20 - 10
        assert [torch.equal(memory_mask[r], from_truth[r]) for r in range(4)] == [True, False, False, True]


def test_a_long_clip_with_a_stride_never_repeats_a_frame():
    stage = curriculum.Stage(until=1, scenarios={"reappear": 1}, clips=1, frames=50, chunk=8, strides=(3,), size=64)
    images, _ = clips.Generated().clip(random.Random(2), stage)
    assert len({frame.tobytes() for frame in images}) == 50


def test_beside_a_gpu_one_process_takes_eight_times_the_clips():
    on_cpu, on_gpu = (train_nano.arguments(["train", "--device", device]) for device in ("cpu", "cuda"))
    assert (on_cpu.ranks, on_cpu.wide) == (2, 1) and (on_gpu.ranks, on_gpu.wide) == (1, 8)
    stage = curriculum.STAGES[-1]
    assert clips.clips_of(stage, on_gpu.wide / on_gpu.ranks) == 8 * stage.clips
    assert clips.clips_of(stage, 1 / 1000) == 1


def test_producers_make_the_batches_of_a_gpu_run(pictures, monkeypatch):
    short = curriculum.Stage(until=1.01, clips=1, frames=2, chunk=2, size=64)
    monkeypatch.setattr(curriculum, "STAGES", (short,))
    position = training.mp.Value("d", 0.5)
    made = clips.batches(1, 3.0, 2, position, clips.sources(pictures[:4]))
    (stage, images, ids), (_, other, _) = next(made), next(made)
    assert stage == short and images.shape == (3, 2, 64, 64, 3) and ids.shape == (3, 2, 64, 64)
    assert not np.array_equal(images, other)


@pytest.mark.slow
def test_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    short = curriculum.Stage(until=1.01, clips=2, frames=2, chunk=2, truth=0.5, size=64)
    monkeypatch.setattr(curriculum, "STAGES", (short,))
    monkeypatch.setattr(training, "held_out_clips", lambda *a: [])
    monkeypatch.setattr(training, "track_clips", lambda *a: scoring.Run(
        iou=torch.ones(1, 8), predicted=torch.rand(1, 8, 3), true=torch.rand(1, 8, 3), logit=torch.rand(1, 8),
        area=torch.ones(1, 8)))  # fmt: skip

    def run(minutes):
        monkeypatch.setattr("sys.argv", ["x", "train", "--out", str(tmp_path), "--ranks", "1", "--device", "cpu",
                                         "--minutes", str(minutes), "--log-every", "1",
                                         "--init", str(WEIGHTS)])  # fmt: skip
        train_nano.main()
        rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
        return [r["step"] for r in rows if "mask" in r]

    first = run(0.05)
    both = run(0.1)
    assert both[: len(first)] == first == list(range(1, len(first) + 1))
    assert both == list(range(1, len(both) + 1)) and len(both) > len(first)
    network.load(tmp_path / "ema.safetensors")


def test_the_learning_curves_are_drawn_from_any_log(tmp_path):
    from PIL import Image

    rows = [{"mask": 1.0, "iou": 0.2, "presence": 0.1, "J": 0.5, "J_prompt": 0.6, "minutes": m} for m in (1, 2)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))  # nothing scored yet
    curves.plot(tmp_path, tmp_path / "without.png")
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write(json.dumps({"whole_J": 0.7, "occlusion_J": 0.6, "occlusion_presence_auc": 0.9, "minutes": 2}) + "\n")
    curves.plot(tmp_path, tmp_path / "with.png")
    pictures = [np.asarray(Image.open(tmp_path / f"{name}.png").resize((300, 80))) for name in ("without", "with")]
    assert (pictures[0] != pictures[1]).any()


# ---- photographs ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """Five photographs: grey with a red square in the middle, masks as palette pictures; the last as a polygon."""
    folder = tmp_path_factory.mktemp("album")
    for name in ("images", "masks", "labels"):
        (folder / name).mkdir()
    for k in range(5):
        image, ids = np.full((120, 160, 3), 110 + 5 * k, np.uint8), np.zeros((120, 160), np.uint8)
        ids[30:90, 50:110] = 1
        image[ids > 0] = (200, 10, 10)
        Image.fromarray(image).save(folder / "images" / f"{k}.png")
        if k < 4:
            Image.fromarray(ids).save(folder / "masks" / f"{k}.png")
    corners = [(50, 30), (109, 30), (109, 89), (50, 89)]
    (folder / "labels" / "4.txt").write_text("0 " + " ".join(f"{x / 160} {y / 120}" for x, y in corners))
    return folder


@pytest.fixture(scope="module")
def pictures(album):
    return photos.read_photos([album])


def test_photographs_come_with_palette_masks_or_polygons(pictures):
    assert [p.name for p in pictures] == ["0", "1", "2", "3", "4"]
    for photo in pictures:
        assert photo.objects == [1] and (photo.ids > 0).sum() == 60 * 60
        assert (photo.image[photo.ids > 0] == (200, 10, 10)).all()


@pytest.mark.parametrize("source", ["cutouts", "whole"])
def test_a_composed_clip_marks_the_object_where_it_paints_it(pictures, source):
    found = clips.sources(pictures[:4])[source]
    stage = curriculum.Stage(until=1, clips=1, frames=6, chunk=6, size=96, hard=False)
    for seed in range(4):
        images, ids = found.clip(random.Random(seed), stage)
        assert images.shape == (6, 96, 96, 3) and ids.shape == (6, 96, 96) and images.dtype == ids.dtype == np.uint8
        assert all((ids[0] == k).any() for k in range(1, curriculum.OBJECTS + 1))
        red = images[..., 0].astype(int) - images[..., 1] > 60
        assert red[ids > 0].mean() > 0.95  # all but a soft edge; a background's own square may be red as well
        again = found.clip(random.Random(seed), stage)
        assert np.array_equal(images, again[0]) and np.array_equal(ids, again[1])


def test_a_path_comes_closer_goes_away_or_comes_by():
    rng = np.random.default_rng(0)
    paths = [path for _ in range(300) if (path := composed.approach(rng, 16, 22.0)).any()]
    assert 0.3 < len(paths) / 300 < 0.5
    largest = np.exp([path.max() for path in paths])
    assert 1.4 < largest.min() < 1.8 and 5 < largest.max() <= 6 and all(path.min() >= 0 for path in paths)
    ways = {(path[0] > path.mean(), path[-1] > path.mean()) for path in paths}
    assert ways == {(False, True), (True, False), (False, False), (True, True)}
    assert not composed.approach(rng, 16, 1.2).any()  # no room to come closer
    assert max(np.exp(composed.approach(rng, 16, 2.0).max()) for _ in range(50)) <= 2.0


@pytest.mark.parametrize(("source", "at"), [("cutouts", -1), ("whole", 0)])
def test_objects_come_closer_and_go_away_in_composed_clips(pictures, source, at, monkeypatch):
    """As a car that drives up does: a model that never saw it keeps a mask of the old size."""
    found = clips.sources(pictures[:4])[source]

    def times(chance: float) -> np.ndarray:
        """How many times as large something gets, in 20 clips: a cut-out, or all that the camera sees."""
        monkeypatch.setattr(composed, "NEARER", chance)
        layers = [found.layers(np.random.default_rng(seed), 16, 96, True)[at] for seed in range(20)]
        return np.array([layer.scale.max() / layer.scale.min() for layer in layers])

    assert times(0.0).max() < 2
    assert times(1.0).mean() > 1.4 * times(0.0).mean()
    assert max(composed.TIMES) / 2 < times(1.0).max() or source == "whole"  # the camera comes no nearer than all fit


def test_two_cut_outs_that_are_glued_are_one_object(pictures, monkeypatch):
    source = clips.sources(pictures[:4])["cutouts"]
    for seed in range(8):
        rng = np.random.default_rng(seed)
        image, mask, cover = source.glued(rng, 96)
        assert image.shape == (*mask.shape, 3) and mask.shape == cover.shape and image.dtype == mask.dtype == np.uint8
        assert len(np.unique(cv2.connectedComponents((mask > 127).astype(np.uint8))[1])) == 2  # the ground, and one
        one = source.cut(np.random.default_rng(seed), 96)[1]
        assert (mask > 127).sum() >= (one > 127).sum() and not (cover < mask).any()
    monkeypatch.setattr(composed, "GLUED", 1.0)
    stage = curriculum.Stage(until=1, clips=1, frames=6, chunk=6, size=96)
    images, ids = source.clip(random.Random(0), stage)
    assert ((images[..., 0].astype(int) - images[..., 1] > 40)[ids > 0]).mean() > 0.9


def test_objects_leave_and_return_in_long_composed_clips(pictures):
    found = clips.sources(pictures[:4])["cutouts"]
    stage = curriculum.Stage(until=1, clips=1, frames=24, chunk=8, size=64)
    returns = 0
    for seed in range(12):
        _, ids = found.clip(random.Random(seed), stage)
        for k in range(1, curriculum.OBJECTS + 1):
            shown = (ids == k).any((1, 2))
            returns += bool((~shown).any() and shown[int(np.argmin(shown)) :].any())
    assert returns >= 3


def test_some_clips_cut_away_to_another_scene_in_which_nothing_is_tracked(pictures, monkeypatch):
    stage = curriculum.Stage(until=1, clips=1, frames=12, chunk=12, size=64)
    source = clips.sources(pictures[:4])["whole"]
    monkeypatch.setattr(composed, "CUT", 0.0)
    plain = source.clip(random.Random(4), stage)
    monkeypatch.setattr(composed, "CUT", 1.0)
    images, ids = source.clip(random.Random(4), stage)
    away = ~(images == plain[0]).all((1, 2, 3))
    assert 2 <= away.sum() <= 6 and not away[0] and not away[-1] and not ids[away].any()
    assert np.array_equal(ids[~away], plain[1][~away])


def test_held_out_clips_are_a_data_set_that_eval_reads(album, pictures, tmp_path, monkeypatch):
    root = tmp_path / "composed"
    flags = ["--held-out", "0.5", "--clips", "2", "--frames", "3", "--to", str(root)]
    monkeypatch.setattr(sys, "argv", ["train_nano.py", "clips", "--photos", str(album), *flags])
    train_nano.main()
    dataset = open_dataset("davis17-val", root)
    assert dataset.names() == ["cutouts_00", "cutouts_01", "whole_00", "whole_01"] and dataset.check() == []
    (_, again) = scoring.held_out_clips("cutouts", 2, 3, photos.split(pictures, 0.5)[1])[1]
    masks = sorted(next(root.rglob("Annotations")).rglob("cutouts_01/*.png"))
    assert len(masks) == 3
    for path, ids in zip(masks, again, strict=True):
        with Image.open(path) as image:
            assert np.array_equal(np.array(image), ids)


def test_held_out_photographs_are_spread_and_not_trained_on(pictures, album):
    learned, kept_out = photos.split(pictures, 0.5)
    assert [p.name for p in learned] == ["0", "2", "4"] and [p.name for p in kept_out] == ["1", "3"]
    assert photos.split(pictures, 0) == (pictures, [])
    run = train_nano.arguments(["train", "--photos", str(album), str(album), "--held-out", "0.2"])
    learned, kept_out = training.split_photos(run)
    assert [p.name for p in kept_out] == ["4", "4"] and len(learned) == 8


# ---- stills --------------------------------------------------------------------------------------------------------


def test_a_still_marks_the_object_where_it_shows_it_at_every_scale(pictures, monkeypatch):
    monkeypatch.setattr(stills, "shade", lambda rng, image: image)
    monkeypatch.setattr(stills, "PER_PICTURE", 1)
    source, rng = stills.Stills(pictures), random.Random(0)
    shares = []
    for _ in range(60):
        image, masks = source.still(rng, 96)
        assert image.shape == (96, 96, 3) and image.dtype == np.uint8 and masks.dtype == bool
        red = image[..., 0].astype(int) - image[..., 1] > 60
        assert red[masks.any(0)].mean() > 0.9
        shares.append(masks[0].mean())
    assert min(shares) < 0.1 and max(shares) > 0.4  # the square is a fifth of its photograph


def test_a_batch_of_stills_says_which_picture_each_mask_is_of(pictures):
    stage = curriculum.Stage(until=1, stills=True, clips=3, frames=1, chunk=1, size=64)
    images, masks, of = clips.make_batch(random.Random(0), stage, 3, clips.sources(pictures))
    assert images.shape == (3, 64, 64, 3) and masks.shape == (len(of), 64, 64) and set(of) == {0, 1, 2}
    assert masks.any((1, 2)).all()


def test_objects_without_enough_pixels_are_no_stills():
    ids = np.zeros((40, 40), np.uint8)
    ids[:5, :5] = 1
    speck = photos.Photo("speck", np.zeros((40, 40, 3), np.uint8), ids)
    assert stills.Stills([speck]).photos == []


def test_an_object_is_sometimes_meant_with_what_touches_it(monkeypatch):
    ids = np.zeros((80, 80), np.uint8)
    ids[20:60, 20:40], ids[20:60, 40:60] = 1, 2
    source = stills.Stills([photos.Photo("pair", np.zeros((80, 80, 3), np.uint8), ids)])
    monkeypatch.setattr(stills, "WHOLE", 1.0)
    for chance, share in ((0.0, 0.125), (1.0, 0.25)):
        monkeypatch.setattr(stills, "WIDER", chance)
        _, masks = source.crop(random.Random(0), 80)
        assert masks[0].mean() == pytest.approx(share, abs=0.01)


def test_stills_teach_prompts_and_leave_memory_alone(pictures, tmp_path, monkeypatch):
    """Six steps on the same picture: the loss falls; nothing that makes or reads memories moves."""
    monkeypatch.setattr(stills, "ROUNDS", {2: 1})
    run = trainer(tmp_path, "--lr", "1e-3")
    network.set_size(run.model, 64)
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    stage = curriculum.Stage(until=1.01, stills=True, clips=2, frames=1, chunk=1, size=64)
    shots = clips.make_batch(random.Random(1), stage, 2, clips.sources(pictures))
    run.choose(stage)
    logs = [run.learn(stage, list(shots), random.Random(2)) for _ in range(6)]
    assert all(math.isfinite(v) for log in logs for v in log.values())
    assert logs[-1]["still_mask"] < logs[0]["still_mask"] and run.step == 6
    moved = {k for k, v in run.model.state_dict().items() if not torch.equal(v, before[k])}
    assert any(k.startswith("sam_mask_decoder") for k in moved)
    assert not any("memory" in k or "maskmem" in k or "obj_ptr" in k or "trunk" in k for k in moved)


def test_the_best_weights_are_kept_beside_the_last(tmp_path, monkeypatch):
    run = trainer(tmp_path)
    monkeypatch.setattr(training, "held_out_clips", lambda *a: [])
    scores = iter([0.5, 0.4, 0.6])
    monkeypatch.setattr(training, "track_clips", lambda *a: None)
    monkeypatch.setattr(
        training, "summary", lambda r: dict.fromkeys(("J", "J_last_quarter", "presence_auc"), next(scores))
    )
    kept = []
    for _ in range(3):
        with torch.no_grad():
            run.ema[0].add_(1.0)
        run.score()
        kept.append((tmp_path / "best.safetensors").read_bytes() == (tmp_path / "ema.safetensors").read_bytes())
    assert kept == [True, False, True] and run.best == 0.6


def test_davis_and_other_folders_that_will_not_do_are_refused(album, tmp_path, monkeypatch):
    davis = tmp_path / "frames"
    for name in ("blackswan", "camel", "cows"):
        (davis / "JPEGImages" / "480p" / name).mkdir(parents=True)
    (tmp_path / "DAVIS" / "images").mkdir(parents=True)
    (tmp_path / "flat" / "images").mkdir(parents=True)
    for name in ("blackswan", "bmx-trees", "cows"):
        (tmp_path / "flat" / "images" / f"{name}_00000.jpg").touch()
    (tmp_path / "empty" / "images").mkdir(parents=True)
    for folder, message in (
        (davis, "for evaluation only"),
        (tmp_path / "DAVIS", "for evaluation only"),
        (tmp_path / "flat", "for evaluation only"),
        (tmp_path / "empty", "holds no photographs"),
        (tmp_path / "nowhere", "holds no photographs"),
        (album, "no object is left"),
    ):
        argv = ["x", "train", "--photos", str(folder), "--held-out", "0.9", "--out", str(tmp_path / "out")]
        monkeypatch.setattr("sys.argv", argv)
        with pytest.raises(SystemExit, match=message):
            train_nano.main()
    assert not (tmp_path / "out").exists()


def test_the_log_has_the_mean_over_the_batches_that_have_a_figure(tmp_path):
    log = training.Log(tmp_path / "log.jsonl", every=3)
    for figures in ({"J": 0.5}, {"still_J": 0.8, "norm": 1.0}, {"J": 0.7, "norm": 3.0}):
        log.add(figures, {"step": 3})
    (row,) = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert row == {"J": 0.6, "still_J": 0.8, "norm": 2.0, "step": 3}


def test_two_weights_are_mixed(model, tmp_path, monkeypatch):
    before, after = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    network.export(model, before)
    weights = network.read_weights(before)
    later = network.load(before)
    later.load_state_dict({name: value + 0.5 for name, value in weights.items()}, strict=False)
    network.export(later, after)
    said = [str(before), str(after), "--share", "0.25", "--to", str(tmp_path / "c.safetensors")]
    monkeypatch.setattr(sys, "argv", ["train_nano.py", "mix", *said])
    train_nano.main()
    mixed = network.read_weights(tmp_path / "c.safetensors")
    assert mixed.keys() == weights.keys()
    for name, value in weights.items():
        torch.testing.assert_close(mixed[name], value + 0.125, rtol=2e-3, atol=2e-3)


def test_prompts_on_photographs_are_judged_by_the_objects_size(model, pictures):
    found = scoring.prompt_photos(model, pictures[-2:])
    assert found["objects"] == 2 and found["box_large"] == found["box"] > 0.7  # a red square on grey
    assert 0 <= found["click_top"] <= found["click_best"] <= 1 and found["click_best"] > 0.7
    assert "box_small" not in found and "outside_small" not in found
    ids = np.zeros((400, 400), np.uint8)
    ids[100:130, 50:90] = 3  # 0.75 % of the picture
    image = np.full((400, 400, 3), 90, np.uint8)
    image[ids > 0] = (220, 30, 30)
    found = scoring.prompt_photos(model, [photos.Photo("small", image, ids)])
    assert found["objects"] == found["objects_small"] == 1 and found["box"] == found["box_small"]
    assert 0 <= found["outside_small"] <= 1
    of_user = [
        scoring.asked_photos(
            SAM2LongVideoPredictor.from_sam2(model, Sam2LongConfig(stills=stills)),
            [photos.Photo("small", image, ids)],
        )
        for stills in (False, True)
    ]
    assert of_user[1]["box_small"] > 0.8 and of_user[1]["box"] >= of_user[0]["box"]
    assert of_user[1]["click_top"] > 0.7 and of_user[1]["five_clicks"] > 0.8


def test_the_folded_trunk_is_the_network_that_it_comes_from():
    """timm's EfficientNet-Lite0 with BatchNorm, statistics drawn at random, against ours with everything folded in."""
    import timm
    from nano import imagenet

    from sam2long.models.efficientnet import LEVELS, EfficientNetLite0

    torch.manual_seed(0)
    full = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    for norm in (m for m in full.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, std=0.2)
        torch.nn.init.normal_(norm.running_mean, std=0.2)
        torch.nn.init.uniform_(norm.running_var, 0.5, 1.5)
    body = timm.create_model("tf_efficientnet_lite0", pretrained=False, features_only=True, out_indices=(1, 2, 3, 4))
    body.load_state_dict({k: full.state_dict()[k] for k in body.state_dict()})
    ours = EfficientNetLite0()
    ours.load_state_dict(imagenet.fold_trunk(full))
    for size in ((64, 64), (75, 90)):
        picture = torch.randn(2, 3, *size)
        with torch.no_grad():
            for theirs, folded, scale in zip(body.eval()(picture), ours(picture), LEVELS.values(), strict=True):
                torch.testing.assert_close(folded * scale, theirs, rtol=1e-4, atol=1e-4 * float(theirs.std()))


def test_a_frozen_trunk_is_not_moved(tmp_path):
    run = trainer(tmp_path)
    trunk = run.model.image_encoder.trunk
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    for learning in (False, True):
        trunk.requires_grad_(learning)
        features = run.model.forward_image(torch.randn(1, 3, 64, 64))["backbone_fpn"]
        run.backward(sum(f.square().mean() for f in features))
        moved = {k for k, v in run.model.state_dict().items() if not torch.equal(v, before[k])}
        assert any("trunk" in k for k in moved) == learning and any("neck" in k for k in moved)


# ---- drawn anew ------------------------------------------------------------------------------------------------------


def test_objects_are_drawn_anew_where_their_box_is_understood(tmp_path, capsys):
    """A disc that somebody marked with a square becomes a disc; what MobileSAM sees otherwise, or not, stays."""
    rng = np.random.default_rng(0)
    image = rng.integers(60, 120, (240, 320, 3), dtype=np.uint8)
    disc = np.hypot(*(np.mgrid[:240, :320] - [[[120]], [[100]]])) < 40
    image[disc] = (220, 20, 20)
    ids = np.zeros((240, 320), np.uint8)
    ids[80:160, 60:140] = 1
    ids[20:24, 290:294] = 2  # too small to be looked at
    ids[:, :8] = photos.VOID
    folder = tmp_path / "shapes"
    for name, array in (("images/one.png", image), ("masks/one.png", ids)):
        (folder / name).parent.mkdir(parents=True)
        Image.fromarray(array).save(folder / name)
    args = train_nano.arguments(["draw", "--photos", str(folder), "--to", str(tmp_path / "drawn")])
    args.run(args)
    (found,) = photos.read_photos([tmp_path / "drawn" / "shapes"])
    overlap = lambda a, b: (a & b).sum() / (a | b).sum()  # noqa: E731
    assert overlap(found.ids == 1, disc) > 0.95 > overlap(ids == 1, disc)
    assert ((found.ids == 2) == (ids == 2)).all() and ((found.ids == photos.VOID) == (ids == photos.VOID)).all()
    assert "1 objects drawn anew" in capsys.readouterr().out
    with pytest.raises(photos.PhotosError, match="there already"):
        args.run(args)

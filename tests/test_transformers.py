"""The back end of transformers: their own sessions when everything is off, sam2's decisions on the same weights."""

import json

import numpy as np
import pytest
import torch

from eval import trackers
from eval.datasets.base import Prompt, Video
from eval.trackers import TrackerSpec
from sam2long import Sam2LongConfig, SAM2LongVideoPredictor, build_sam2long_video_predictor
from sam2long.errors import ConfigError, ModelError
from sam2long.network import transformers_loading
from sam2long.synthetic import generate
from tests.fakes import MASK, OTHER, SIDE, jpeg_folder, noise_clip, noise_video, run
from tests.transformers_models import KINDS, converted, model_of, pixels, predictor_of

pytest.importorskip("transformers")

VIDEO = noise_video(40)
CLOSE = 1e-4  # logits; the same sums in another order


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return model_of(request.param)


def their_session(model, video):
    import sys

    name = type(model).__name__.replace("Model", "InferenceSession")
    return getattr(sys.modules[type(model).__module__], name)(pixels(model, video), SIDE, SIDE, dtype=torch.float32)


def theirs(model, video, prompts):
    """Low-resolution logits [N, 1, h, w] of each frame, from transformers' own loop."""
    session = their_session(model, video)
    for obj_id, said in prompts:
        at = session.obj_id_to_idx(obj_id)
        if "mask" in said:
            session.add_mask_inputs(at, 0, torch.from_numpy(said["mask"])[None, None].float())
        else:
            points, labels = (torch.tensor(said[name])[None, None] for name in ("points", "labels"))
            session.add_point_inputs(at, 0, {"point_coords": points.float(), "point_labels": labels})
        session.obj_with_new_inputs.append(obj_id)
    return {out.frame_idx: out.pred_masks for out in model.propagate_in_video_iterator(session, start_frame_idx=0)}


MASKED = [(1, {"mask": MASK})]
CLICKED = [(1, {"points": [[30.0, 40.0]], "labels": [1]})]
CLICKS = [(1, {"points": [[30.0, 40.0], [5.0, 5.0]], "labels": [1, 0]})]
BOXED = [(1, {"points": [[10.0, 12.0], [50.0, 44.0]], "labels": [2, 3]})]
SEVERAL = [(1, {"mask": MASK}), (2, {"mask": OTHER})]


def ours(predictor, video, prompts):
    state = predictor.init_state(video)
    for obj_id, said in prompts:
        if "mask" in said:
            predictor.add_new_mask(state, 0, obj_id, said["mask"])
        elif said["labels"] == [2, 3]:
            predictor.add_new_points_or_box(state, 0, obj_id, box=np.ravel(said["points"]))
        else:
            predictor.add_new_points_or_box(state, 0, obj_id, **said)
    low = {masks.frame: masks.masks for masks in state.session.propagate(0, len(video) - 1, 1)}
    absent = state.session.model.absent()
    return {frame: torch.cat([absent if m is None else m for m in masks]) for frame, masks in low.items()}


@pytest.mark.parametrize(
    "prompts", [MASKED, CLICKED, CLICKS, BOXED, SEVERAL], ids=["mask", "click", "clicks", "box", "several"]
)
def test_with_everything_off_it_is_their_own_session(model, prompts):
    predictor = SAM2LongVideoPredictor.from_transformers(model, sam2long=Sam2LongConfig.sam2())
    expected, got = theirs(model, VIDEO, prompts), ours(predictor, VIDEO, prompts)
    assert list(got) == list(expected) == list(range(40))
    shares = {round(float((masks > 0).float().mean()), 3) for masks in expected.values()}
    assert len(shares) > 3 and max(shares) > 0, "the masks never change: the comparison would prove little"
    for frame, masks in expected.items():
        # Two objects share a batch: other sums, and memories in bfloat16 then round the other way here and there.
        allowed = CLOSE if len(prompts) == 1 else 20 * CLOSE
        assert (got[frame] - masks.reshape(got[frame].shape)).abs().max() < allowed, frame


def test_pathways_part_and_memories_are_chosen(model):
    predictor = SAM2LongVideoPredictor.from_transformers(model)
    state = predictor.init_state(VIDEO)
    predictor.add_new_mask(state, 0, 1, MASK)
    frames = [frame for frame, _, _ in predictor.propagate_in_video(state)]
    report = predictor.track_report(state)
    assert frames == list(range(40))
    assert report.pathways.max() == 3 and {"visible", "uncertain"} <= set(report.status)
    assert state.encoder_passes == 40


@pytest.fixture(scope="module")
def nano():
    # transformers always makes prompted masks binary before they are remembered, and fills no holes.
    # Frames come in the model's size: the two resize differently.
    overrides = ["++model.binarize_mask_from_pts_for_mem_enc=true", "++model.image_size=256"]
    return build_sam2long_video_predictor(
        "nano",
        device="cpu",
        apply_postprocessing=False,
        hydra_overrides_extra=overrides,
        sam2long=Sam2LongConfig(stills=False, redraw=False),
    )


@pytest.mark.parametrize(
    "kept_in, close",
    [("float32", CLOSE), pytest.param("bfloat16", 500 * CLOSE, marks=pytest.mark.slow)],
)
def test_nanos_weights_decide_the_same_in_transformers(nano, monkeypatch, kept_in, close):
    """The whole tree, 60 frames: logits within 1e-4, every decision equal.

    Both keep memories in bfloat16; where sums in another order round the other way, logits differ by a few 1e-3.
    """
    if kept_in == "float32":
        monkeypatch.setattr(torch, "bfloat16", torch.float32)  # looked up by both when they write a memory
    scene = generate("occlusion", seed=3, num_frames=60, size=256)
    video = np.stack([frame.image for frame in scene])
    rows, columns = np.nonzero(scene.frame(0).ids == 1)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    results, reports = [], []
    for predictor in (nano, SAM2LongVideoPredictor.from_transformers(converted(nano))):
        state = predictor.init_state(video)
        predictor.add_new_points_or_box(state, 0, 1, box=box)
        results.append({frame: masks for frame, _, masks in predictor.propagate_in_video(state)})
        reports.append(predictor.track_report(state))
    in_sam2, in_transformers = results
    assert max(float(masks.max()) for masks in in_sam2.values()) > 2, "the object is never there"
    assert max(float((in_sam2[frame] - in_transformers[frame]).abs().max()) for frame in in_sam2) < close
    same = ["frame", "obj_id", "status", "pathways", "memory_frames"]
    assert reports[0][same].equals(reports[1][same])
    assert reports[0].pathways.max() > 1


def test_a_model_folder_is_loaded_by_name(tmp_path, model):
    model.save_pretrained(tmp_path / "model")
    predictor = build_sam2long_video_predictor(f"hf:{tmp_path / 'model'}", device="cpu")
    alike = SAM2LongVideoPredictor.from_transformers(model)
    one, other = (run(p, VIDEO[:6]) for p in (predictor, alike))
    assert max(float((one[frame] - other[frame]).abs().max()) for frame in other) < CLOSE


def folder_of(model, path):
    model.save_pretrained(path)
    return f"hf:{path}"


def test_the_command_line_tracks_and_resumes_with_one(tmp_path, model, monkeypatch, capsys):
    from sam2long.cli import main

    clip, out, name = noise_clip(tmp_path / "clip.mp4", 12, 10), tmp_path / "run", folder_of(model, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    assert (
        main(["track", clip, "--box", "10,12,50,44", "--model", "hf:model", "--device", "cpu", "--out", str(out)]) == 0
    )
    record = json.loads((out / "run.json").read_text())
    assert record["settings"]["model"] == name and record["status"] == "complete"
    assert len((out / "masks.jsonl").read_text().splitlines()) >= 12
    capsys.readouterr()
    for flags in (["--auto"], ["--checkpoint", clip], ["--compile"]):
        where = [] if flags == ["--auto"] else ["--box", "10,12,50,44"]
        command = ["track", clip, *where, "--model", name, *flags, "--out", str(tmp_path / "other")]
        assert main(command) == 2
        assert capsys.readouterr().err.rstrip().splitlines()[-1].startswith("sam2long: ")


def test_benchmarks_run_it_beside_its_own_session(tmp_path, model):
    """`eval run --model hf:... --baseline sam2`: with everything off the two give the same masks."""
    folder = jpeg_folder(tmp_path / "jpegs", VIDEO[:16])
    video = Video(name="clip", frame_names=tuple(f"{i:05d}" for i in range(16)), size=(SIDE, SIDE), saved=())
    prompts = [Prompt(obj=1, label="1", frame=0, mask=MASK), Prompt(obj=2, label="2", frame=4, mask=OTHER)]
    name, found = folder_of(model, tmp_path / "model"), []
    for method, config in (("sam2", {}), ("sam2long", Sam2LongConfig.sam2().to_dict())):
        tracker = trackers.build(TrackerSpec(method=method, model=name, sam2long=config, device="cpu"))
        found.append(list(tracker.track(folder, video, prompts)))
        assert len(tracker.object_logits()) == 16 + 12
    for (frame, theirs), (same_frame, got) in zip(*found, strict=True):
        assert frame == same_frame
        assert np.abs(theirs - got).max() < 100 * CLOSE, frame
    assert trackers.checkpoint_hash(TrackerSpec(model=name)) is not None


def test_frames_are_made_ready_as_the_processor_says():
    import transformers

    processor = transformers.Sam2VideoVideoProcessor(size={"height": 48, "width": 48}, image_mean=[0.1, 0.2, 0.3])
    treatment = transformers_loading.frame_treatment(None, processor)
    assert treatment["mean"] == (0.1, 0.2, 0.3) and treatment["resize"] == "bilinear"
    # And the resize is theirs, but for one step of 255 in rounding.
    from sam2long.video import to_model_input

    image = noise_video(1, side=96)[0]
    seen = processor(videos=[torch.from_numpy(image).permute(2, 0, 1)[None]], do_normalize=False, return_tensors="pt")
    theirs = (seen.pixel_values_videos[0, 0] * 255).permute(1, 2, 0).numpy()
    assert np.abs(theirs - to_model_input(image, 48, "bilinear")).max() <= 1.01


def test_half_precision_weights_are_computed_in_as_they_are():
    predictor = SAM2LongVideoPredictor.from_transformers(model_of("sam2").to(torch.bfloat16))
    assert predictor.compute_dtype() == torch.bfloat16
    masks = run(predictor, VIDEO[:8])
    assert len(masks) == 8 and all(bool(torch.isfinite(m).all()) and m.dtype == torch.float32 for m in masks.values())
    with pytest.raises(ConfigError, match="bfloat16"):
        SAM2LongVideoPredictor.from_transformers(predictor.network, dtype="float32")


def test_what_these_models_do_not_have_is_said(tmp_path):
    with pytest.raises(ConfigError, match="sparse"):
        predictor_of("sam2", sam2long=Sam2LongConfig(memory_tokens="sparse"))
    with pytest.raises(ConfigError, match="compile"):
        predictor_of("sam2").compile_model()
    with pytest.raises(ModelError, match="Linear, which has no"):
        SAM2LongVideoPredictor.from_transformers(torch.nn.Linear(1, 1))
    with pytest.raises(ModelError, match="training mode"):
        SAM2LongVideoPredictor.from_transformers(model_of("sam2").train())
    with pytest.raises(ConfigError, match="takes no checkpoint"):
        build_sam2long_video_predictor("hf:somewhere", "weights.pt")
    with pytest.raises(ConfigError, match="takes no compile"):
        build_sam2long_video_predictor("hf:somewhere", compile=True)
    with pytest.raises(ModelError, match="no model at .*hub id"):
        build_sam2long_video_predictor(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="'bert' model"):
        build_sam2long_video_predictor(f"hf:{tmp_path}")

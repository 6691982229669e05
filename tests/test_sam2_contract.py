"""What we take from sam2, pinned: a release that moved something fails here first."""

import inspect
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.build_sam import build_sam2_video_predictor
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor

from sam2long import Sam2LongConfig, SAM2LongVideoPredictor
from sam2long.errors import ConfigError
from sam2long.method.memory import FrameMemory, read, remember
from sam2long.network.bank import assemble, numbers
from sam2long.network.batched import Batched
from sam2long.network.install import KNOWN_SETTINGS, NEEDED
from sam2long.network.sam2 import Sam2Network
from sam2long.tracking.frames import FrameReader
from sam2long.tracking.track import with_settings
from sam2long.video import open_source
from tests.back_ends import BACK_ENDS, back_end
from tests.fakes import MASK, OTHER, THIRD, collect, jpeg_folder, noise_video, run, same, tiny_predictor

PLAIN = Sam2LongConfig.sam2()


@pytest.fixture(scope="module", params=[256, pytest.param(512, marks=pytest.mark.slow)], ids=["256px", "512px"])
def sam2_tiny(request):
    """sam2's own predictor: SAM 2.1 tiny with random weights, spread so that the object is there."""
    torch.manual_seed(3)
    predictor = build_sam2_video_predictor(
        "configs/sam2.1/sam2.1_hiera_t.yaml",
        device="cpu",
        apply_postprocessing=False,
        hydra_overrides_extra=[f"++model.image_size={request.param}"],
    )
    with torch.no_grad():
        predictor.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
        predictor.sam_mask_decoder.iou_prediction_head.layers[-1].weight.mul_(30)
        for head in predictor.sam_mask_decoder.output_hypernetworks_mlps:
            head.layers[-1].weight.mul_(20)
    return predictor


@pytest.fixture
def jpegs(tmp_path, sam2_tiny):
    """A folder that sam2 reads, at another size than the model's."""
    return jpeg_folder(tmp_path / "frames", noise_video(6, seed=5), size=(120, 96))


def filled(top, left, bottom, right):
    mask = np.zeros((96, 120), bool)
    mask[top:bottom, left:right] = True
    return mask


HERE, THERE, ELSEWHERE = filled(20, 30, 70, 90), filled(5, 5, 40, 30), filled(50, 80, 90, 118)


def assert_object_is_there(masks):
    share = [float((mask > 0).float().mean()) for mask in masks.values()]
    assert min(share) > 0 and max(share) < 1, "the weights make no mask: the comparison would prove nothing"
    assert len({round(s, 4) for s in share}) > 1, "the masks never change: the comparison would prove little"


@pytest.mark.parametrize("backwards", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("kind", ["jpeg", "array"])
def test_one_pathway_without_selection_and_weights_is_sam2_to_the_bit(sam2_tiny, jpegs, kind, backwards):
    ours = SAM2LongVideoPredictor.from_sam2(sam2_tiny, PLAIN)
    prompts = [(5 if backwards else 0, 1, HERE)]
    theirs = run(sam2_tiny, str(jpegs), prompts, reverse=backwards)
    frames = np.stack([np.array(Image.open(path)) for path in sorted(jpegs.iterdir())])
    masks = run(ours, str(jpegs) if kind == "jpeg" else frames, prompts, reverse=backwards)
    assert_object_is_there(theirs)
    assert same(masks, theirs)


def test_clicks_and_boxes_are_sam2s_to_the_bit(sam2_tiny, jpegs):
    ours = SAM2LongVideoPredictor.from_sam2(sam2_tiny, PLAIN)
    rounds = [
        {"points": [[60, 45]], "labels": [1]},
        {"points": [[10, 10]], "labels": [0], "clear_old_points": False},
        {"box": [20, 15, 100, 80]},
        {"box": [20, 15, 100, 80], "points": [[60, 45], [5, 5]], "labels": [1, 0]},
        {"points": [[0.5, 0.5]], "labels": [1], "normalize_coords": False},
    ]
    results = []
    for predictor in (sam2_tiny, ours):
        state = predictor.init_state(str(jpegs))
        prompted = [predictor.add_new_points_or_box(state, 0, 1, **said)[2].clone() for said in rounds]
        results.append((prompted, collect(predictor, state)))
    (their_prompted, theirs), (our_prompted, masks) = results
    assert all(torch.equal(a, b) for a, b in zip(their_prompted, our_prompted, strict=True))
    assert same(masks, theirs)


ONE_CLICK = {"points": [[60, 45]], "labels": [1]}  # contradicts nothing that these weights track
TWO_CLICKS = {"points": [[60, 45], [5, 90]], "labels": [1, 0]}


@pytest.mark.parametrize("there, said", [(True, ONE_CLICK), (False, TWO_CLICKS)], ids=["in sight", "absent"])
def test_clicks_on_tracked_frames_are_sam2s_to_the_bit(sam2_tiny, jpegs, monkeypatch, there, said):
    """Also the second one: until the next pass, both correct what the last pass said."""
    predict = sam2_tiny.sam_mask_decoder.predict_masks

    def predict_masks(*args, **kwargs):
        *out, logits = predict(*args, **kwargs)
        clicked = kwargs["sparse_prompt_embeddings"].shape[1] > 2  # two are one click, or nothing
        return *out, logits if there or clicked else logits - 500

    ours = SAM2LongVideoPredictor.from_sam2(sam2_tiny, PLAIN)
    monkeypatch.setattr(sam2_tiny.sam_mask_decoder, "predict_masks", predict_masks)
    results = []
    for predictor in (sam2_tiny, ours):
        state = predictor.init_state(str(jpegs))
        predictor.add_new_mask(state, 0, 1, HERE)
        tracked = collect(predictor, state)
        assert bool((tracked[4] > 0).any()) == there
        click = predictor.add_new_points_or_box
        clicks = [click(state, at, 1, **said)[2].clone() for at in (2, 4, 1)]
        more = click(state, 4, 1, points=[[10, 10]], labels=[0], clear_old_points=False)[2].clone()
        results.append([*clicks, more])
    assert_object_is_there(dict(enumerate(results[0])))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_three_objects_in_one_batch_are_sam2s_loop(sam2_tiny, jpegs):
    ours = SAM2LongVideoPredictor.from_sam2(sam2_tiny, PLAIN)
    prompts = [(0, 1, HERE), (0, 2, THERE), (0, 3, ELSEWHERE)]
    theirs, masks = (run(predictor, str(jpegs), prompts) for predictor in (sam2_tiny, ours))
    assert list(theirs) == list(masks)
    for frame, reference in theirs.items():
        assert (masks[frame] - reference).abs().max() < 1e-4
        flipped = (masks[frame] > 0) != (reference > 0)
        assert (reference[flipped].abs() < 1e-3).all()


def test_our_builder_hydra_override_and_wrapping_give_the_same_masks(sam2_tiny, jpegs):
    from sam2long import build_sam2long_video_predictor

    size = f"++model.image_size={sam2_tiny.image_size}"
    config = Sam2LongConfig(num_pathways=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        built = build_sam2long_video_predictor(
            "configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu", apply_postprocessing=False,
            hydra_overrides_extra=[size], sam2long=config,
        )  # fmt: skip
    overridden = build_sam2_video_predictor(
        "configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu", apply_postprocessing=False,
        hydra_overrides_extra=[
            size, "++model._target_=sam2long.predictor.SAM2LongVideoPredictor", "++model.sam2long.num_pathways=2",
        ],
    )  # fmt: skip
    built.load_state_dict(sam2_tiny.state_dict())
    overridden.load_state_dict(sam2_tiny.state_dict())
    wrapped = SAM2LongVideoPredictor.from_sam2(sam2_tiny, config)
    assert overridden.sam2long == wrapped.sam2long == built.sam2long
    masks = [run(predictor, str(jpegs), [(0, 1, HERE)]) for predictor in (wrapped, built, overridden)]
    assert same(masks[0], masks[1]) and same(masks[0], masks[2])


def test_wrapping_leaves_the_original_as_it_was(sam2_tiny, jpegs):
    attributes = {name: id(value) for name, value in vars(sam2_tiny).items()}
    before = run(sam2_tiny, str(jpegs), [(0, 1, HERE)])
    ours = SAM2LongVideoPredictor.from_sam2(sam2_tiny, Sam2LongConfig())
    run(ours, str(jpegs), [(0, 1, HERE)])
    assert type(sam2_tiny) is SAM2VideoPredictor
    assert {name: id(value) for name, value in vars(sam2_tiny).items()} == attributes
    assert same(run(sam2_tiny, str(jpegs), [(0, 1, HERE)]), before)
    assert all(a is b for a, b in zip(ours.parameters(), sam2_tiny.parameters(), strict=True))


@pytest.mark.parametrize("backwards", [False, True], ids=["forward", "reverse"])
def test_the_assembled_bank_is_what_sam2_feeds_to_memory_attention(sam2_tiny, jpegs, backwards, monkeypatch):
    """On consecutive frames; ours is rebuilt from sam2's own entries, all of them taken as reliable."""
    fed = []
    original = sam2_tiny.memory_attention.forward

    def recording(**bank):
        fed.append((bank["memory"], bank["memory_pos"], bank["num_obj_ptr_tokens"]))
        return original(**bank)

    monkeypatch.setattr(sam2_tiny.memory_attention, "forward", recording)
    state = sam2_tiny.init_state(str(jpegs))
    start, sign = (5, -1) if backwards else (0, 1)
    sam2_tiny.add_new_mask(state, start, 1, HERE)
    list(sam2_tiny.propagate_in_video(state, reverse=backwards))
    outputs = state["output_dict_per_obj"][0]

    network = Sam2Network(sam2_tiny)
    config = Sam2LongConfig(iou_threshold=0.0, object_aware_memory=False, modulation=(1, 1))
    rules = with_settings(network.rules(num_frames=6), config)
    table = network.memory_positions(torch.float32)

    def entry(time, out):
        return FrameMemory(
            time=time, mask_features=out["maskmem_features"], object_ptr=out["obj_ptr"], iou=1.0, object_logit=5.0
        )

    prompted = {start * sign: entry(start * sign, outputs["cond_frame_outputs"][start])}
    memories = ()
    for steps, (memory, memory_pos, tokens) in enumerate(fed, start=1):
        time = start * sign + steps
        with torch.inference_mode():
            reading = read(time, memories, prompted, rules)
            ours = assemble(network, table, [reading], rules.num_pointers, numbers([reading]))
        assert ours.pointer_tokens == tokens
        # sam2 feeds [L, R, C].
        assert torch.equal(ours.memory, memory.transpose(0, 1))
        assert torch.equal(ours.positions, memory_pos.transpose(0, 1))
        memories = remember(memories, entry(time, outputs["non_cond_frame_outputs"][time * sign]), rules)
    assert len(fed) == 5


@pytest.mark.slow
def test_image_predictor_and_mask_generator_still_work():
    """At 1024 px: sam2's image predictor has that size written into it."""
    torch.manual_seed(3)
    sam2_full_size = build_sam2_video_predictor("configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu")
    image = noise_video(1, side=64, seed=9)[0]
    masks = []
    for model in (sam2_full_size, SAM2LongVideoPredictor.from_sam2(sam2_full_size).network):
        predictor = SAM2ImagePredictor(model)
        predictor.set_image(image)
        masks.append(predictor.predict(point_coords=np.array([[30, 30]]), point_labels=np.array([1]))[2])
        generator = SAM2AutomaticMaskGenerator(
            model, points_per_side=2, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0
        )
        masks.append(np.array([entry["area"] for entry in generator.generate(image)]))
    assert np.array_equal(masks[0], masks[2]) and np.array_equal(masks[1], masks[3])
    assert len(masks[1]) > 0


def test_the_names_we_rely_on_are_there():
    assert all(callable(getattr(SAM2Base, name)) for name in NEEDED)
    assert set(inspect.signature(SAM2Base.__init__).parameters) == KNOWN_SETTINGS
    assert list(inspect.signature(SAM2Base._encode_new_memory).parameters)[1:] == [
        "current_vision_feats", "feat_sizes", "pred_masks_high_res", "object_score_logits", "is_mask_from_pts",
    ]  # fmt: skip
    assert list(inspect.signature(SAM2Base._use_multimask).parameters)[1:] == ["is_init_cond_frame", "point_inputs"]


PUBLIC = (  # of sam2's predictor
    "init_state", "add_new_points_or_box", "add_new_points", "add_new_mask", "propagate_in_video",
    "propagate_in_video_preflight", "clear_all_prompts_in_frame", "remove_object", "reset_state",
)  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_public_methods_take_sam2s_parameters(name):
    theirs = inspect.signature(getattr(SAM2VideoPredictor, name)).parameters
    ours = inspect.signature(getattr(SAM2LongVideoPredictor, name)).parameters
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]


def test_no_public_method_of_sam2s_is_missing():
    own = {name for name in vars(SAM2VideoPredictor) if not name.startswith("_")}
    assert own - {"from_pretrained"} == set(PUBLIC) and all(hasattr(SAM2LongVideoPredictor, name) for name in own)


@pytest.mark.parametrize("network", BACK_ENDS)
def test_every_public_method_works_on_every_network(network):
    predictor, called = back_end(network), set()

    def call(name, *args, **options):
        called.add(name)
        return getattr(predictor, name)(*args, **options)

    state = call("init_state", noise_video(4))
    frame, ids, masks = call("add_new_points", state, 0, 1, points=[[30, 30]], labels=[1])
    assert (frame, ids, tuple(masks.shape)) == (0, [1], (1, 1, 64, 64))
    call("add_new_points_or_box", state, 0, 2, box=[5, 5, 40, 40])
    call("add_new_mask", state, 1, 3, MASK)
    assert call("propagate_in_video_preflight", state) is None
    assert [frame for frame, _, _ in call("propagate_in_video", state)] == [0, 1, 2, 3]
    assert call("clear_all_prompts_in_frame", state, 0, 2)[1] == [1, 2, 3]
    assert call("remove_object", state, 2)[0] == [1, 3]
    call("reset_state", state)
    assert state["obj_ids"] == [] and called == set(PUBLIC)


@pytest.mark.parametrize("network", BACK_ENDS)
def test_masks_do_not_overlap_on_any_network_when_that_is_asked_for(network):
    predictor = back_end(network)
    prompts = [(0, 1, MASK), (0, 2, MASK)]
    assert any(bool(((masks > 0).sum(0) > 1).any()) for masks in run(predictor, noise_video(3), prompts).values())
    predictor.non_overlap_masks = True
    try:
        for masks in run(predictor, noise_video(3), prompts).values():
            assert ((masks > 0).sum(0) <= 1).all()
            assert torch.equal(masks, predictor_of_sam2()._apply_non_overlapping_constraints(masks))
    finally:
        predictor.non_overlap_masks = False


def predictor_of_sam2():
    return SAM2VideoPredictor.__new__(SAM2VideoPredictor)


def test_what_sam2_has_is_found_and_set_on_the_network(tiny):
    ours = SAM2LongVideoPredictor.from_sam2(tiny)
    assert ours.network is tiny.network and isinstance(ours.network, SAM2VideoPredictor)
    assert ours.sam_prompt_encoder is tiny.network.sam_prompt_encoder and ours.num_maskmem == 7
    assert ours.state_dict().keys() == ours.network.state_dict().keys()
    before = ours.network.only_obj_ptrs_in_the_past_for_eval
    ours.only_obj_ptrs_in_the_past_for_eval = not before
    assert ours.network.only_obj_ptrs_in_the_past_for_eval is not before
    ours.only_obj_ptrs_in_the_past_for_eval = before
    with pytest.raises(AttributeError):
        ours._obj_id_to_idx  # noqa: B018 - it works on sam2's states alone
    assert ours.to("cpu") is ours and ours.eval() is ours and not list(ours.parameters())[0].is_cuda


def test_options_that_cannot_be_honoured_are_refused(tiny):
    for option in ("clear_non_cond_mem_around_input=true", "num_maskmem=1"):
        with pytest.raises(ConfigError, match=option.partition("=")[0]):
            tiny_predictor(overrides=(f"++model.{option}",))


def test_batched_rows_equal_rows_one_by_one(tiny):
    model = Batched(Sam2Network(tiny.network))
    reader = FrameReader(open_source(noise_video(8)), model)
    rules = with_settings(model.network.rules(num_frames=8), Sam2LongConfig(iou_threshold=0.0))
    readings = []
    with model.running():
        for seed, mask in enumerate((MASK, OTHER, THIRD)):
            features = reader.features(seed)
            resized = torch.from_numpy(mask)
            out = model.prompt(features, mask=resized.float()[None, None])
            stored = model.remember_prompt(features, out)
            memories = tuple(
                FrameMemory(
                    time=f,
                    mask_features=(stored.float() + 0.1 * f).bfloat16(),
                    object_ptr=out.object_ptr * (1 + 0.1 * f),
                    iou=0.9,
                    object_logit=1.0 + seed - f,
                )
                for f in range(1, 4 + (seed == 2))
            )
            prompt = FrameMemory(time=0, mask_features=stored, object_ptr=out.object_ptr, iou=1.0, object_logit=10.0)
            readings.append(read(5, memories, {0: prompt}, rules))
        features = reader.features(5)
        together = model.propose(features, readings, rules.num_pointers)
        alone = [model.propose(features, [reading], rules.num_pointers) for reading in readings]
        model.row_budget = 1  # one row at a time, whatever the shapes
        split = model.propose(features, readings, rules.num_pointers)
    assert len({reading.layout for reading in readings}) > 1, "rows of different bank shapes belong to this test"
    for row, single in enumerate(alone):
        assert torch.equal(split.masks[row], single.masks[0])
        assert (together.masks[row] - single.masks[0]).abs().max() < 1e-4
        assert np.allclose(together.verdicts[row].ious, single.verdicts[0].ious, atol=1e-5)
        assert together.verdicts[row].object_logit == pytest.approx(single.verdicts[0].object_logit, abs=1e-4)


def test_lively_models_are_what_the_other_tests_need(tiny):
    state = tiny.init_state(noise_video())
    tiny.add_new_mask(state, 0, 1, MASK)
    masks = collect(tiny, state)
    report = tiny.track_report(state)
    share = [float((mask > 0).float().mean()) for mask in masks.values()]
    assert max(share) < 1 and len({round(s, 3) for s in share if s}) > 10
    assert {"uncertain", "visible"} <= set(report.status)
    assert report.pathways.max() == 3
    assert (report.object_logit <= 0).any() and (report.object_logit > 0).any()

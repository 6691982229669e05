"""compile=True: the same masks, few graphs, and eager where it cannot be done. Without a C++ compiler: dynamo alone."""

import warnings

import pytest
import torch

from sam2long import Sam2LongConfig, SAM2LongVideoPredictor
from sam2long.network.compiled import STEADY, Compiled, Steadied, bucket, compiled
from sam2long.network.sam2 import Parts
from tests.fakes import MASK, OTHER, noise_video, run, tiny_predictor

VIDEO = noise_video(40)
PROMPTS = ((0, 1, MASK), (3, 2, OTHER))


@pytest.fixture
def graphs():
    """How many graphs dynamo has made so far."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield lambda: torch._dynamo.utils.counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


def captured(predictor) -> SAM2LongVideoPredictor:
    """The same weights with every part through dynamo, whose graphs run eagerly."""
    ours = SAM2LongVideoPredictor.from_sam2(predictor, Sam2LongConfig())
    ours._parts = compiled(Parts.of(ours.network), ours.device, backend="eager")
    return ours


@pytest.mark.slow
def test_the_same_masks_and_nothing_is_compiled_once_the_banks_are_full(tiny, graphs):
    predictor = captured(tiny)
    state = predictor.init_state(VIDEO)
    for frame, obj_id, mask in PROMPTS:
        predictor.add_new_mask(state, frame, obj_id, mask)
    masks, made = {}, {}
    for frame, _, logits in predictor.propagate_in_video(state):
        masks[frame], made[frame] = logits.clone(), graphs()
    eager = run(tiny, VIDEO, PROMPTS)
    assert all((masks[frame] - eager[frame]).abs().max() < 1e-3 for frame in eager)
    assert 4 <= made[39] <= 40
    steady = sum(count > STEADY for count in predictor._parts.attend.seen.values())
    assert steady >= 1 and made[39] - made[25] <= steady, "full banks must cost no graph but one per steady size"
    run(predictor, VIDEO[:20], PROMPTS)
    more = sum(count > STEADY for count in predictor._parts.attend.seen.values()) - steady
    assert graphs() - made[39] <= more, "another state must use the same graphs"


def test_rows_are_filled_up_to_a_few_sizes_and_the_masks_are_those_of_eager(tiny):
    """Static shapes without a compiler: what the parts are given, and what comes of it."""
    shapes: dict[str, set[int]] = {"attend": set(), "decode": set(), "write": set()}

    def noting(name, function, rows_of):
        def part(*args, **kwargs):
            shapes[name].add(rows_of(*args, **kwargs))
            return function(*args, **kwargs)

        return part

    eager = Parts.of(tiny.network)
    predictor = SAM2LongVideoPredictor.from_sam2(tiny, Sam2LongConfig(num_pathways=5, certainty_threshold=1e9))
    predictor._parts = Parts(
        eager.encode,
        noting("attend", eager.attend, lambda current, position, memory, *_: len(memory)),
        noting("decode", eager.decode, lambda **given: len(given["image_embeddings"])),
        noting("write", eager.write, lambda **given: len(given["pred_masks_high_res"])),
        filled_up=bucket,
    )
    masks = run(predictor, VIDEO[:20], PROMPTS)
    for seen in (shapes["attend"], shapes["decode"]):
        assert max(seen) > 4 and seen <= {1, 2, 3, 4, 6, 8, 12}
    expected = run(
        SAM2LongVideoPredictor.from_sam2(tiny, Sam2LongConfig(num_pathways=5, certainty_threshold=1e9)),
        VIDEO[:20], PROMPTS,
    )  # fmt: skip
    assert masks.keys() == expected.keys()
    assert all((masks[frame] - expected[frame]).abs().max() < 1e-3 for frame in expected)


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 6), (6, 6), (7, 8), (9, 12), (13, 16)])
def test_buckets(rows, size):
    assert bucket(rows) == size


def test_a_bank_of_one_size_gets_a_graph_of_its_own(graphs):
    """While banks fill, one dynamic graph serves; what is read again and again is compiled for its shape."""
    read = Steadied(lambda current, position, memory, memory_pos, n: current + memory.sum(1, keepdim=True) + n,
                    "the read", "eager", replayed=False)  # fmt: skip
    one = torch.ones(1, 4, 2)
    for tokens in range(2, 12):
        assert read(one, one, torch.ones(2, tokens, 2), one, 1).shape == (2, 4, 2)
    filling = graphs()
    assert filling <= 3
    for _ in range(2 * STEADY):
        assert read(one, one, torch.ones(2, 11, 2), one, 1)[0, 0, 0] == 13
    assert graphs() == filling + 1


def test_what_cannot_be_compiled_runs_eagerly_after_one_warning(graphs):
    def broken(graph, inputs):
        raise RuntimeError("no compiler on this machine")

    double = Compiled(lambda x: x * 2, "the doubling", broken, dynamic=False)
    with pytest.warns(UserWarning, match="the doubling cannot be compiled here and runs eagerly"):
        assert double(torch.ones(2)).tolist() == [2, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert double(torch.ones(3)).tolist() == [2, 2, 2]


def test_errors_of_the_function_itself_are_not_swallowed(graphs):
    def failing(x):
        return x.reshape(7, 7)

    part = Compiled(failing, "a part", "eager", dynamic=False)
    with pytest.raises(RuntimeError):
        part(torch.ones(3))


def test_the_builder_compiles_on_request():
    predictor = tiny_predictor(compile=True)
    assert isinstance(predictor._parts.attend, Compiled)
    assert tiny_predictor()._parts is None


def test_plain_sam2_is_not_touched_by_a_compiled_copy(tiny):
    ours = captured(tiny)
    assert ours._parts is not None and tiny._parts is None

"""The memory read: shared where it can be, sparse where it is asked to be."""

import itertools
from dataclasses import replace

import torch

from sam2long import Sam2LongConfig, config
from sam2long.method.memory import FrameMemory, keep_tokens
from sam2long.network import bank
from sam2long.network.batched import Batched
from sam2long.network.sam2 import Sam2Network
from sam2long.network.sam2_attention import most_attended
from tests.fakes import MASK, OTHER, collect, noise_video, reconfigured, same

VIDEO = noise_video(30)
SPARSE = Sam2LongConfig(memory_tokens="sparse")


def started(predictor, prompts=((0, 1, MASK), (0, 2, OTHER))):
    state = predictor.init_state(VIDEO)
    for frame, obj_id, mask in prompts:
        predictor.add_new_mask(state, frame, obj_id, mask)
    return state


def keeping(monkeypatch, share):
    """Sparse memories keep this share of their tokens."""
    monkeypatch.setattr(config, "SPARSE_SHARE", share)


def test_all_rows_share_the_first_self_attention(tiny, monkeypatch):
    seen = []
    for depth, layer in enumerate(tiny.memory_attention.layers):
        inner = layer._forward_sa

        def recording(tgt, query_pos, inner=inner, depth=depth):
            seen.append((depth, len(tgt)))
            return inner(tgt, query_pos)

        monkeypatch.setattr(layer, "_forward_sa", recording)
    collect(tiny, started(tiny))
    assert {rows for depth, rows in seen if depth == 0} == {1}
    assert max(rows for depth, rows in seen if depth == 1) > 2


def test_keeping_every_token_sparsely_is_the_exact_read(tiny, monkeypatch):
    """The sparse read's gathering, rotating and weighting against sam2's own layers."""
    exact = collect(tiny, started(tiny))
    keeping(monkeypatch, 0.999)
    predictor = reconfigured(tiny, SPARSE)
    state = started(predictor)
    assert bank.kept(state.session.model.network, 0.999) == 16  # of 4 x 4
    sparse = collect(predictor, state)
    readings = state.session.objects[1].tracks[1].readings(len(VIDEO))
    assert any(not read.whole for reading in readings for read in reading.spatial)
    for frame, masks in exact.items():
        assert (sparse[frame] - masks).abs().max() < 1e-3


def test_a_sparse_read_skips_tokens_and_changes_masks(tiny):
    state = started(reconfigured(tiny, SPARSE))
    sparse = collect(reconfigured(tiny, SPARSE), state)
    assert not same(sparse, collect(tiny, started(tiny)))
    network = state.session.model.network
    full = max(state.session.objects[1].tracks[1].readings(len(VIDEO)), key=lambda reading: len(reading.spatial))
    whole = [read.whole for read in full.spatial]
    assert full.spatial[0].prompted and whole == [True, *[False] * (len(whole) - 2), True]
    assert bank.kept(network, full.sparse_share) == 1
    pointers = network.hidden_dim // network.mem_dim * len(full.pointers)
    assert bank.tokens(network, full) == 2 * 16 + (len(whole) - 2) * 1 + pointers


def test_the_tokens_that_are_kept_are_those_that_got_the_attention():
    """Against softmax(q k) written out, for one layer and head count as it comes."""
    torch.manual_seed(0)
    q, k = torch.randn(2, 2, 16, 8), torch.randn(2, 2, 40, 8)
    tokens = most_attended(q, k, slice(20, 36), kept=4)
    share = torch.zeros(2, 16)
    for row, head, query in itertools.product(range(2), range(2), range(16)):
        scores = torch.stack([q[row, head, query] @ key for key in k[row, head]]) / 8**0.5
        share[row] += torch.softmax(scores, 0)[20:36]
    assert tokens.shape == (2, 4)
    for row in range(2):
        assert set(tokens[row].tolist()) == set(share[row].argsort(descending=True)[:4].tolist())


def test_only_the_newest_memory_learns_which_tokens_matter():
    entries = [FrameMemory(time=f, mask_features=None, object_ptr=None, iou=1.0, object_logit=1.0) for f in range(3)]
    kept = keep_tokens(entries, torch.tensor([[1]]))
    assert [entry.kept_tokens is not None for entry in kept] == [False, False, True]
    assert keep_tokens(entries, None) == tuple(entries) and keep_tokens((), torch.tensor([[1]])) == ()


def test_a_sparse_state_can_be_left_saved_and_gone_on_with(tiny, tmp_path):
    predictor = reconfigured(tiny, SPARSE)
    whole = collect(predictor, started(predictor))
    state = started(predictor)
    first = collect(predictor, state, max_frame_num_to_track=14)
    predictor.save_state(state, tmp_path / "state")
    again = predictor.load_state(tmp_path / "state", VIDEO)
    second = collect(predictor, again, start_frame_idx=15)
    assert same(first | second, whole)


def test_a_correction_replays_the_sparse_reads(tiny):
    predictor = reconfigured(tiny, SPARSE)
    state = started(predictor)
    before = collect(predictor, state)
    predictor.add_new_mask(state, 20, 1, OTHER)
    after = collect(predictor, state)
    assert same({f: after[f] for f in range(20)}, {f: before[f] for f in range(20)})


def test_the_batch_is_split_by_layout_and_budget_without_changing_masks(tiny):
    predictor = reconfigured(tiny, SPARSE)
    whole = collect(predictor, started(predictor))
    state = started(predictor)
    state.session.model.row_budget = 1
    for frame, masks in collect(predictor, state).items():
        assert (masks - whole[frame]).abs().max() < 1e-3


def test_objects_with_banks_of_different_sizes_share_one_run_of_the_decoder(tiny):
    model = Batched(Sam2Network(tiny.network))
    state = started(tiny)
    collect(tiny, state)
    track = state.session.objects[1].tracks[1]
    long = track.readings(len(VIDEO))[0]
    short = replace(long, spatial=long.spatial[:2], pointers=long.pointers[:2])
    features = state.session.reader.features(0)
    rows = [long, short, replace(long, pointers=long.pointers[:1])]
    with model.running():
        alone = [model.propose(features, [row], 16) for row in rows]
        calls = counted(model)
        together = model.propose(features, rows, 16)
        assert calls == [3]
        model.row_budget = 1
        calls.clear()
        split = model.propose(features, rows, 16)
        assert calls == [1, 1, 1]
    for at, one in enumerate(alone):
        for several in (together, split):
            assert (several.masks[several.places[at]] - one.masks[0]).abs().max() < 1e-3


def counted(model):
    """How many rows each run of the decoder has."""
    calls, inner = [], model.network.decode

    def decode(features, conditioned):
        calls.append(len(conditioned))
        return inner(features, conditioned)

    model.network.decode = decode
    return calls

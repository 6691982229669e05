"""The tree, the memory rules and the tracker on whatever numbers a network may say (hypothesis)."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2long import Sam2LongConfig
from sam2long.method import tree
from sam2long.method.memory import BankRules, FrameMemory, read, remember
from sam2long.method.tree import Verdict
from sam2long.tracking.track import Prompted, Track, step
from tests.fakes import ScriptedModel

# The same examples in every run: a failure on one machine is a failure on all.
always_the_same = settings(derandomize=True, deadline=None, max_examples=200)

scores = st.floats(-50, 0)
ious = st.floats(0, 1)
logits = st.floats(-20, 20)


@st.composite
def pathways(draw):
    """Scores of P pathways, and the verdict of each on K masks."""
    count, masks = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    verdict = st.builds(Verdict, st.tuples(*[ious] * masks), logits)
    return draw(st.lists(scores, min_size=count, max_size=count)), [draw(verdict) for _ in range(count)]


# ---- the tree ----------------------------------------------------------------------------------------------------


@always_the_same
@given(pathways())
def test_every_candidate_is_ranked_once_best_first(given_pathways):
    before, verdicts = given_pathways
    ranked = tree.expand(before, verdicts)
    every = {(p, k) for p, verdict in enumerate(verdicts) for k in range(len(verdict.ious))}
    assert len(ranked) == len(every) and {(c.parent, c.mask) for c in ranked} == every
    assert all(one.score >= other.score for one, other in zip(ranked, ranked[1:], strict=False))
    assert all(c.score <= before[c.parent] + 1e-4 and math.isfinite(c.score) for c in ranked), "an IoU is at most 1"


@always_the_same
@given(pathways(), st.integers(1, 5), st.booleans())
def test_what_is_kept_is_the_best_first_and_no_more_than_there_is_room_for(given_pathways, width, certain):
    ranked = tree.expand(*given_pathways)
    kept = tree.keep(ranked, width, certain)
    assert kept[0] == ranked[0] and 1 <= len(kept) <= width
    assert len({(c.parent, c.mask) for c in kept}) == len(kept)
    if certain:
        assert kept == ranked[:width]


@always_the_same
@given(pathways(), st.integers(1, 5))
def test_on_an_uncertain_frame_masks_differ_and_room_that_is_left_goes_to_the_childless(given_pathways, width):
    ranked = tree.expand(*given_pathways)
    kept = tree.keep(ranked, width, certain=False)
    every_value = {round(c.signed_iou, 2) for c in ranked}
    distinct = {round(c.signed_iou, 2) for c in kept}
    assert len(distinct) == min(width, len(every_value))
    if len(kept) < width:  # nothing is left out but children of a parent that has one, with a value that is kept
        assert {c.parent for c in kept} == {c.parent for c in ranked} and distinct == every_value


@always_the_same
@given(pathways(), st.integers(1, 5), st.booleans())
def test_the_margin_is_never_negative(given_pathways, width, certain):
    ranked = tree.expand(*given_pathways)
    kept = tree.keep(ranked, width, certain)
    assert tree.margin(ranked, kept, rows=range(len(given_pathways[0]))) >= 0


@always_the_same
@given(st.integers(1, 4), st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), max_size=12), st.data())
def test_frames_are_settled_when_all_agree_or_when_the_bound_says_so(count, frames, data):
    lineages = [[frame[p] for frame in frames] for p in range(count)]
    agreed = tree.settled(lineages)
    assert all(len({lineage[at] for lineage in lineages}) == 1 for at in range(agreed))
    assert agreed == len(frames) or len({lineage[agreed] for lineage in lineages}) > 1
    bound = data.draw(st.integers(0, 15))
    assert len(frames) - tree.settled(lineages, bound) <= bound
    assert tree.settled(lineages, bound) >= agreed


# ---- the memory bank ---------------------------------------------------------------------------------------------

rules = st.builds(
    BankRules,
    num_spatial=st.integers(1, 6), num_pointers=st.integers(2, 8), use_pointers=st.booleans(),
    pointers_from_past_only=st.booleans(), signed_positions=st.booleans(), stride=st.integers(1, 3),
    iou_threshold=st.sampled_from([0.0, 0.3, 0.7]), object_aware=st.booleans(), max_prompted=st.integers(1, 4),
)  # fmt: skip
history = st.lists(st.tuples(ious, logits), max_size=40)  # of each frame after the prompt


def entry(time, iou=1.0, logit=10.0):
    one = torch.zeros(1)
    return FrameMemory(time=time, mask_features=one, object_ptr=one, iou=iou, object_logit=logit)


def reading(frame, memories, prompted, bank_rules):
    found = read(frame, memories, prompted, bank_rules)
    assert all(each.memory.mask_features is not None for each in found.spatial), "forgotten too early"
    spatial = [(each.memory.time, each.slot, each.prompted) for each in found.spatial]
    return spatial, [(each.memory.time, each.position) for each in found.pointers]


@always_the_same
@given(rules, history)
def test_a_bounded_bank_reads_like_the_whole_history(bank_rules, said):
    every, bank = [], ()
    for frame, verdict in enumerate(said, start=1):
        prompts = {0: entry(0)}
        assert reading(frame, bank, prompts, bank_rules) == reading(frame, every, prompts, bank_rules)
        prompts[frame] = entry(frame)  # a frame that is prompted is not in the bank, and the next one is read
        assert reading(frame + 1, bank, prompts, bank_rules) == reading(frame + 1, every, prompts, bank_rules)
        every.append(entry(frame, *verdict))
        bank = remember(bank, every[-1], bank_rules)
        whole = [memory for memory in bank if memory.mask_features is not None]
        assert len(whole) <= bank_rules.num_spatial + 1 and len(bank) <= bank_rules.num_pointers + len(whole)


@always_the_same
@given(rules, st.sets(st.integers(0, 60), min_size=1), st.integers(0, 60))
def test_of_many_prompts_the_nearest_is_always_read(bank_rules, frames, now):
    found = [at for at, _, prompted in reading(now, (), {at: entry(at) for at in frames}, bank_rules)[0] if prompted]
    assert found == sorted(found) and len(found) == min(len(frames), bank_rules.max_prompted)
    assert min(abs(at - now) for at in found) == min(abs(at - now) for at in frames)
    assert min(frames) in found or bank_rules.max_prompted == 1


# ---- the tracker on a scripted model -----------------------------------------------------------------------------

worlds = st.integers(0, 10**6)
lengths = st.integers(1, 9)


def sayings(world):
    """What a network says in this world: values that are often alike, and often of an absent object."""

    def say(frame, pathway):
        chance = random.Random(f"{world} {frame} {pathway}")
        return Verdict(tuple(chance.randint(0, 10) / 10 for _ in range(3)), chance.uniform(-4, 4))

    return say


def tracked(world, length, **options):
    """(frame, what it was on when this came out, its mask's pathway or None) in order, and the track."""
    start = torch.tensor([[0]])
    root = FrameMemory(time=0, mask_features=start, object_ptr=start, iou=1.0, object_logit=10.0)
    prompt = Prompted(mask=start, object_logit=10.0, memory=root, seen_from_before=False)
    track = Track(BankRules(num_spatial=3, num_pointers=5), Sam2LongConfig(**options), prompts={0: prompt})
    model, out = ScriptedModel(sayings(world)), []
    for frame in range(length + 1):
        step(model, [track], frame, lambda _, frame=frame: frame)
        if frame == length:
            track.flush()
        out += [(at, frame, None if h.mask is None else int(h.mask)) for at, h in track.ready]
        track.ready.clear()
    return out, track


def best_paths(world, length, width, twins):
    """The masks of the pathway that is best after each frame, from whole histories; None: absent."""
    say, certain_above = sayings(world), Sam2LongConfig().certainty_threshold
    alive, bests = [(0.0, [0], [True])], []
    for frame in range(1, length + 1):
        said = [say(frame, path[-1]) for _, path, _ in alive]
        ranked = tree.expand([score for score, _, _ in alive], said)
        certain = tree.is_certain([verdict.object_logit for verdict in said], certain_above)
        kept = tree.keep(ranked, width, certain)
        if frame == 1 and twins == "keep":  # the released program begins with P copies of the best mask
            kept = [replace(ranked[0], score=0.0)] * width
        grown = []
        for one in kept:
            _, path, seen = alive[one.parent]
            number = path[-1] * ScriptedModel.children + one.mask + 1
            grown.append((one.score, [*path, number], [*seen, said[one.parent].object_logit > 0]))
        alive = grown
        bests.append([mask if there else None for mask, there in zip(*alive[0][1:], strict=True)])
    return bests


@always_the_same
@given(worlds, lengths, st.integers(1, 4), st.sampled_from(["keep", "merge"]))
def test_settled_masks_are_those_of_the_pathway_that_is_best_in_the_end(world, length, width, twins):
    out, track = tracked(world, length, num_pathways=width, max_lag=None, twins=twins)
    assert [at for at, _, _ in out] == list(range(length + 1))
    assert [mask for _, _, mask in out] == best_paths(world, length, width, twins)[-1]
    assert not track.now.waiting


@always_the_same
@given(worlds, lengths, st.integers(1, 4), st.sampled_from(["keep", "merge"]))
def test_online_masks_are_those_of_the_pathway_that_is_best_so_far(world, length, width, twins):
    out, _ = tracked(world, length, num_pathways=width, emit="online", twins=twins)
    assert [(at, now) for at, now, _ in out] == [(at, at) for at in range(length + 1)]
    assert [mask for _, _, mask in out[1:]] == [path[-1] for path in best_paths(world, length, width, twins)]


@always_the_same
@given(worlds, lengths, st.integers(0, 4))
def test_no_mask_waits_longer_than_the_bound(world, length, max_lag):
    out, _ = tracked(world, length, max_lag=max_lag)
    assert [at for at, _, _ in out] == list(range(length + 1))
    assert all(now - at <= max_lag for at, now, _ in out)

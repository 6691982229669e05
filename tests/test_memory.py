from dataclasses import replace

import pytest
import torch

from sam2long import Sam2LongConfig
from sam2long.method.memory import BankRules, FrameMemory, read, remember

RULES = BankRules(num_spatial=2, num_pointers=5)  # at most four selected, two of them spatial


def entry(time, iou=0.9, logit=5.0):
    return FrameMemory(
        time=time, mask_features=torch.zeros(1, 1, 1, 1), object_ptr=torch.zeros(1, 1), iou=iou, object_logit=logit
    )


def bank(entries, rules=RULES):
    memories = ()
    for one in entries:
        memories = remember(memories, one, rules)
    return memories


PROMPT = {0: entry(0)}


def spatial(reading):
    return [(r.memory.time, r.slot) for r in reading.spatial]


def pointers(reading):
    return [(r.memory.time, r.position) for r in reading.pointers]


def test_the_frame_after_the_prompt_reads_the_prompt_alone():
    reading = read(1, (), PROMPT, RULES)
    assert (spatial(reading), pointers(reading)) == ([(0, 2)], [(0, 1)])


def test_two_frames_after_the_prompt_there_is_one_pointer_and_two_spatial_memories():
    reading = read(2, bank([entry(1)]), PROMPT, RULES)
    assert spatial(reading) == [(0, 2), (1, 0)]
    assert pointers(reading) == [(0, 2)]  # the oldest of the selected is left out: a quirk of the reference


def test_selection_is_by_rank_newest_first_and_skips_the_unreliable():
    memories = bank([entry(1), entry(2, iou=0.3), entry(3), entry(4, logit=0.0), entry(5), entry(6)])
    reading = read(7, memories, PROMPT, RULES)
    assert spatial(reading) == [(0, 2), (5, 1), (6, 0)]
    assert pointers(reading) == [(0, 7), (6, 1), (5, 2), (3, 3)]  # 1 is the oldest selected


def test_the_frame_before_is_always_read():
    memories = bank([entry(1), entry(2), entry(3, iou=0.0)])
    reading = read(4, memories, PROMPT, RULES)
    assert spatial(reading) == [(0, 2), (2, 1), (3, 0)]
    assert pointers(reading) == [(0, 4), (3, 1), (2, 2)]


def test_after_a_second_prompt_only_the_reliable_are_read():
    """The frame before the next one is the prompted one; what was lost before it is not to be read instead."""
    memories = bank([entry(1), entry(2), entry(3, logit=-5.0)])
    reading = read(5, memories, PROMPT | {4: entry(4)}, RULES)
    assert spatial(reading) == [(0, 2), (4, 2), (1, 1), (2, 0)]
    assert pointers(reading) == [(0, 5), (4, 1), (2, 1)]
    assert spatial(read(5, bank([entry(3, logit=-5.0)]), PROMPT | {4: entry(4)}, RULES)) == [(0, 2), (4, 2)]


def test_with_the_frame_before_there_can_be_one_pointer_more():
    memories = bank([*(entry(t) for t in range(1, 7)), entry(7, logit=-1.0)])
    reading = read(8, memories, PROMPT, RULES)
    assert pointers(reading) == [(0, 8), (7, 1), (6, 2), (5, 3), (4, 4)]


def test_a_long_absence_loses_nothing():
    memories = bank([entry(1), entry(2), *(entry(t, logit=-5.0) for t in range(3, 500))])
    assert [m.time for m in memories] == [1, 2, 499]
    assert spatial(read(500, memories, PROMPT, RULES)) == [(0, 2), (2, 1), (499, 0)]


def test_the_bank_never_grows_beyond_what_can_be_read():
    memories = bank([entry(t) for t in range(1, 100)])
    assert [m.time for m in memories] == [95, 96, 97, 98, 99]
    assert [m.time for m in memories if m.mask_features is not None] == [97, 98, 99]


@pytest.mark.parametrize("history", [[0.9] * 12, [0.9, 0.1] * 6, [0.1] * 6 + [0.9] * 6, [0.9] * 3 + [0.1] * 9])
def test_a_trimmed_bank_reads_like_the_whole_history(history):
    entries = [entry(t, iou=iou) for t, iou in enumerate(history, start=1)]
    whole = read(13, entries, PROMPT, RULES)
    assert spatial(read(13, bank(entries), PROMPT, RULES)) == spatial(whole)
    assert pointers(read(13, bank(entries), PROMPT, RULES)) == pointers(whole)


def test_a_short_video_has_fewer_pointers():
    short = replace(RULES, num_pointers=3)
    reading = read(6, bank([entry(t) for t in range(1, 6)], short), PROMPT, short)
    assert pointers(reading) == [(0, 6), (5, 1)]


def test_plain_sam2_reads_the_latest_frames_whatever_their_quality():
    plain = replace(RULES, object_aware=False)
    memories = bank([entry(1), entry(2, iou=0.0), entry(3, logit=-9.0)], plain)
    reading = read(4, memories, PROMPT, plain)
    assert spatial(reading) == [(0, 2), (2, 1), (3, 0)]
    assert pointers(reading) == [(0, 4), (3, 1), (2, 2), (1, 3)]


def test_plain_sam2_with_a_stride_reads_every_other_frame():
    strided = replace(RULES, object_aware=False, num_spatial=3, stride=2)
    memories = bank([entry(t) for t in range(1, 10)], strided)
    assert spatial(read(10, memories, PROMPT, strided)) == [(0, 3), (6, 2), (8, 1), (9, 0)]
    assert spatial(read(9, memories[:-1], PROMPT, strided)) == [(0, 3), (4, 2), (6, 1), (8, 0)]


def test_prompted_frames_ahead_are_seen_but_their_pointers_are_not():
    prompted = {0: entry(0), 9: entry(9)}
    assert spatial(read(4, (), prompted, RULES)) == [(0, 2), (9, 2)]
    assert pointers(read(4, (), prompted, RULES)) == [(0, 4)]
    seen = replace(RULES, pointers_from_past_only=False)
    assert pointers(read(4, (), prompted, seen)) == [(0, 4), (9, -5)]
    unsigned = replace(seen, signed_positions=False)
    assert pointers(read(4, (), prompted, unsigned)) == [(0, 4), (9, 5)]


def test_many_prompted_frames_are_capped_to_the_first_and_the_nearest():
    prompted = {t: entry(t) for t in (50, 10, 20, 30, 40)}
    capped = replace(RULES, max_prompted=3)
    assert [r.memory.time for r in read(45, (), prompted, capped).spatial] == [10, 40, 50]
    assert [r.memory.time for r in read(60, (), prompted, capped).spatial] == [10, 40, 50]
    assert [r.memory.time for r in read(28, (), prompted, replace(RULES, max_prompted=1)).spatial] == [30]
    everything = replace(RULES, max_prompted=Sam2LongConfig(max_prompted_frames=None).most_prompted)
    assert len(read(28, (), prompted, everything).spatial) == len(prompted)


def test_without_pointers_only_spatial_memories_are_read():
    assert read(3, bank([entry(1), entry(2)]), PROMPT, replace(RULES, use_pointers=False)).pointers == ()

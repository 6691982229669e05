import math

import pytest

from sam2long.tracking.report import COLUMNS, FrameReport, TrackLog, to_frame


def report(frame, slot=0, certain=True, logit=3.0, reads=(0,)):
    return FrameReport(
        frame=frame,
        slot=slot,
        iou=0.5,
        object_logit=logit,
        certain=certain,
        pathways=1,
        margin=math.inf,
        memory_frames=reads,
    )


def log_of(frames, limit=None):
    log = TrackLog(limit)
    for frame in frames:
        log.write(report(frame, slot=frame % 3, reads=tuple(range(frame % 4))))
    return log


@pytest.mark.parametrize(
    ("frames", "direction"), [([0, 1, 2, 5, 6, 9], 1), ([9, 6, 5, 2, 1, 0], -1), ([4], 1), ([], 1)]
)
def test_a_frame_is_found_whatever_the_direction_and_the_gaps(frames, direction):
    log = log_of(frames)
    assert [log.slot_of(frame) for frame in frames] == [frame % 3 for frame in frames]
    assert all(log.slot_of(frame) is None for frame in set(range(-1, 12)) - set(frames))
    assert [r.memory_frames for r in log] == [tuple(range(frame % 4)) for frame in frames]
    assert [log.at(frame) for frame in frames] == list(log) and log.at(7) is None


def test_a_frame_is_written_once():
    log = log_of([1, 2])
    log.write(report(2, slot=1))
    assert len(log) == 2 and log.slot_of(2) == 2


def test_truncating_drops_what_is_later():
    log = log_of(range(6))
    log.truncate(3, 1)
    assert log.frames() == [0, 1, 2, 3] and not log.reaches_beyond(3, 1) and log.reaches_beyond(2, 1)
    log.write(report(7, reads=(5, 6)))
    assert [r.memory_frames for r in log][-2:] == [(0, 1, 2), (5, 6)]
    back = log_of([5, 4, 3, 2])
    back.truncate(4, -1)
    assert back.frames() == [5, 4]


def test_a_copy_goes_its_own_way():
    log = log_of(range(3))
    other = log.copy()
    other.truncate(0, 1)
    assert len(log) == 3 and len(other) == 1


def test_a_stream_keeps_the_latest_reports():
    log = log_of(range(1000), limit=100)
    assert 100 <= len(log) < 200 and log.frames()[-1] == 999
    assert log.slot_of(999) == 0 and log.slot_of(3) is None
    assert [r.memory_frames for r in log][-1] == (0, 1, 2)


def test_a_log_survives_json():
    log = log_of([3, 4, 5])
    assert list(TrackLog.from_json(log.to_json())) == list(log)


def test_the_table_is_sorted_by_frame_and_then_as_objects_came():
    table = to_frame([(10, [report(1), report(0)]), (2, [report(0, certain=False), report(1, logit=-3.0)])])
    assert list(table.columns) == list(COLUMNS)
    assert table[["frame", "obj_id"]].values.tolist() == [[0, 10], [0, 2], [1, 10], [1, 2]]
    assert table.status.tolist() == ["visible", "uncertain", "visible", "absent"]

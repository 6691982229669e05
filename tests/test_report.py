import math

import pytest

from sam2long.tracking.report import COLUMNS, FrameReport, TrackLog, to_frame


def report(time, rank=0, certain=True, logit=3.0, memory_times=(0,)):
    return FrameReport(
        time=time,
        rank=rank,
        iou=0.5,
        object_logit=logit,
        certain=certain,
        pathways=1,
        margin=math.inf,
        memory_times=memory_times,
    )


def log_of(times, limit=None):
    log = TrackLog(limit)
    for time in times:
        log.write(report(time, rank=time % 3, memory_times=tuple(range(time % 4))))
    return log


@pytest.mark.parametrize("times", [[0, 1, 2, 5, 6, 9], [-9, -6, -5, -2, -1, 0], [4], []])
def test_a_frame_is_found_whatever_the_gaps(times):
    log = log_of(times)
    assert [log.rank_at(time) for time in times] == [time % 3 for time in times]
    assert all(log.rank_at(time) is None for time in set(range(-12, 12)) - set(times))
    assert [r.memory_times for r in log] == [tuple(range(time % 4)) for time in times]
    assert [log.at(time) for time in times] == list(log) and log.at(7) is None
    assert (log.first(), log.last()) == ((times[0], times[-1]) if times else (None, None))


def test_a_frame_is_written_once():
    log = log_of([1, 2])
    log.write(report(2, rank=1))
    assert len(log) == 2 and log.rank_at(2) == 2


def test_truncating_drops_what_is_later():
    log = log_of(range(6))
    log.truncate(3)
    assert log.times() == [0, 1, 2, 3]
    log.write(report(7, memory_times=(5, 6)))
    assert [r.memory_times for r in log][-2:] == [(0, 1, 2), (5, 6)]
    log.truncate(-1)
    assert len(log) == 0 and list(log) == []


def test_a_stream_keeps_the_latest_reports():
    log = log_of(range(1000), limit=100)
    assert 100 <= len(log) < 200 and log.times()[-1] == 999
    assert log.rank_at(999) == 0 and log.rank_at(3) is None
    assert [r.memory_times for r in log][-1] == (0, 1, 2)


def test_a_log_survives_json():
    log = log_of([3, 4, 5])
    assert list(TrackLog.from_json(log.to_json())) == list(log)


def test_the_table_is_sorted_by_frame_and_then_as_objects_came():
    table = to_frame([(10, 1, [report(0), report(1)]), (2, 1, [report(0, certain=False), report(1, logit=-3.0)])])
    assert list(table.columns) == list(COLUMNS)
    assert table[["frame", "obj_id"]].values.tolist() == [[0, 10], [0, 2], [1, 10], [1, 2]]
    assert table.status.tolist() == ["visible", "uncertain", "visible", "absent"]


def test_the_table_names_frames_whichever_way_time_ran():
    table = to_frame([(1, -1, [report(-5, memory_times=(-6, -8)), report(-4, memory_times=(-5,))])])
    assert table.frame.tolist() == [4, 5] and table.memory_frames.tolist() == [(5,), (6, 8)]

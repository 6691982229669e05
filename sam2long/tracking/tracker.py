"""The streaming core: one frame at a time, all objects and pathways in one batch, never the length of the video.

Read it beside the method: `step` is a frame's way through memory read, decoder, tree and memory write; what one
object's pathways make of it is in track.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from sam2long.method.memory import Reading
from sam2long.network.features import FrameFeatures
from sam2long.network.tracker_model import Proposals, TrackerModel
from sam2long.tracking.track import Decision, Track


def step(model: TrackerModel, tracks: Sequence[Track], frame: int, features: FrameFeatures) -> None:
    """Take every track over one frame. Afterwards `track.ready` holds what has settled.

    All unique pathways of all tracks go through the network as one batch; the decoder's numbers reach the
    CPU in one transfer, and every decision after it is plain Python.
    """
    running: list[Track] = []
    for track in tracks:
        if frame in track.prompts:
            track.restart(frame)
        elif track.pathways:
            running.append(track)
        else:
            track.skip(frame)
    if not running:
        return
    readings = [track.readings(frame) for track in running]
    rows_of = _row_ranges(readings)
    proposals: Proposals = model.propose(
        features, [reading for track_readings in readings for reading in track_readings], running[0].rules.num_pointers
    )
    verdicts = [proposals.verdicts[rows.start : rows.stop] for rows in rows_of]
    decisions = [track.decide(said) for track, said in zip(running, verdicts, strict=True)]
    kept = _kept(rows_of, decisions)
    remembered = dict(zip(kept, model.remember(features, proposals, kept), strict=True))
    for track, rows, decision, track_readings, said in zip(
        running, rows_of, decisions, readings, verdicts, strict=True
    ):
        own = {(row - rows.start, k): entry for (row, k), entry in remembered.items() if row in rows}
        tokens = proposals.kept_tokens[rows.start : rows.stop]
        track.grow(frame, decision, track_readings, said, own, tokens)


def _kept(rows_of: Sequence[range], decisions: Sequence[Decision]) -> list[tuple[int, int]]:
    """(network row, k) of every node that was kept, track by track."""
    return [
        (rows.start + row, k) for rows, decision in zip(rows_of, decisions, strict=True) for row, k in decision.unique()
    ]


def _row_ranges(readings: Sequence[Sequence[Reading]]) -> list[range]:
    ranges, start = [], 0
    for track_readings in readings:
        ranges.append(range(start, start + len(track_readings)))
        start += len(track_readings)
    return ranges

"""Sessions on disk, in the format of packing.py."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import deque
from pathlib import Path
from typing import Any

from torch import Tensor

from sam2long.config import Sam2LongConfig
from sam2long.errors import StateError
from sam2long.export.atomic import replacing
from sam2long.network.tracker_model import PromptOutput
from sam2long.tracking.checkpoints import Checkpoints
from sam2long.tracking.packing import Reader, Writer
from sam2long.tracking.report import TrackLog
from sam2long.tracking.session import Session
from sam2long.tracking.track import Prompted, Track
from sam2long.tracking.tracked_object import TrackedObject, UserPrompt, contradicts

SAVED_CHECKPOINTS = 8  # the file holds no more: programs save often, and what is missing only costs time later


def save_session(session: Session, path: str | os.PathLike) -> None:
    """Write a session to one file, all or nothing."""
    writer = Writer()
    content = {
        "config": session.config.to_dict(),
        "hole_area": session.hole_area,
        "video": _video(session),
        "revision": session.revision,
        "next_frame": {str(direction): list(value) for direction, value in session.next_frame.items()},
        "objects": [_pack_object(writer, obj_id, obj) for obj_id, obj in session.objects.items()],
    }
    try:
        with replacing(Path(path)) as partial:
            partial.write_bytes(writer.bytes(content))
    except OSError as error:
        raise StateError(f"cannot write the state to {path}: {error.strerror}") from None


def load_session(session: Session, path: str | os.PathLike) -> None:
    """Fill a new session, made with the same video and model, from a file."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise StateError(f"cannot read the state {path}: {error.strerror}") from None
    reader = Reader(data, session.model.device, session.storage, str(path))
    content = reader.content
    saved, ours = content["video"], _video(session)
    different = {key for key in saved.keys() | ours.keys() if saved.get(key) != ours.get(key)}
    if different == {"dtype"}:
        theirs, here = (video["dtype"].removeprefix("torch.") for video in (saved, ours))
        raise StateError(
            f'{path} was computed in {theirs}, and this predictor computes in {here}; build it with dtype="{theirs}"'
        )
    if different:
        there, here = (", ".join(f"{key} {of.get(key)}" for key in sorted(different)) for of in (saved, ours))
        raise StateError(
            f"{path} was saved with another video or model: {there} there, and {here} here; use those it was saved with"
        )
    session.config = Sam2LongConfig.from_mapping(content["config"])
    session.model.read_as(session.config)
    session.hole_area = content["hole_area"]
    session.revision = content["revision"]
    session.next_frame = {int(direction): tuple(value) for direction, value in content["next_frame"].items()}
    for packed in content["objects"]:
        _unpack_object(reader, session, packed)


def _video(session: Session) -> dict[str, Any]:
    """What must be the same for a saved state to fit."""
    model = session.model
    return {
        "frames": session.source.num_frames,
        "height": session.source.height,
        "width": session.source.width,
        "image_size": model.image_size,
        "hidden_dim": model.hidden_dim,
        "mem_dim": model.mem_dim,
        "weights": _fingerprint(model.telling_weights),
        "dtype": str(model.dtype),
    }


def _fingerprint(parameter: Tensor) -> str:
    """Trained weights differ in every parameter, so one tells them apart."""
    return hashlib.sha256(parameter.detach().float().cpu().numpy().tobytes()).hexdigest()[:16]


def _pack_object(writer: Writer, obj_id: Any, obj: TrackedObject) -> dict[str, Any]:
    if not isinstance(obj_id, (int, str)):
        raise StateError(f"object id {obj_id!r} cannot be saved; use integers or strings as ids")
    return {
        "id": obj_id,
        "prompts": [
            {
                "frame": frame,
                "coords": writer.tensor(prompt.points and prompt.points[0]),
                "labels": writer.tensor(prompt.points and prompt.points[1]),
                "mask": writer.tensor(prompt.mask),
                "out_mask": writer.tensor(prompt.output.mask),
                "out_ptr": writer.tensor(prompt.output.object_ptr),
                "out_logit": writer.tensor(prompt.output.object_logit),
                "object_logit": prompt.object_logit,
                "seen_from_before": prompt.seen_from_before,
                "corrects": prompt.corrects,
                "tracked": writer.tensor(prompt.tracked),
                "features": writer.tensor(prompt.mask_features),
            }
            for frame, prompt in obj.prompts.items()
        ],
        "tracks": [_pack_track(writer, track, obj.checkpoints[direction]) for direction, track in obj.tracks.items()],
        "replaced": [
            _pack_track(writer, *past) | {"prompts": _pack_prompted(writer, past[0])} for past in obj.replaced.values()
        ],
    }


def _pack_prompted(writer: Writer, track: Track) -> list[dict[str, Any]]:
    """The prompts of a track that has been replaced: they need not be the object's any more."""
    return [
        {
            "frame": frame,
            "mask": writer.tensor(prompt.mask),
            "object_logit": prompt.object_logit,
            "memory": writer.memory(prompt.memory),
            "seen_from_before": prompt.seen_from_before,
            "starts_afresh": prompt.starts_afresh,
        }
        for frame, prompt in track.prompts.items()
    ]


def _pack_track(writer: Writer, track: Track, checkpoints: Checkpoints) -> dict[str, Any]:
    return {
        "direction": track.rules.direction,
        "head": track.head,
        "at_root": track.at_root,
        "last_slot": track.last_slot,
        "next_node": track.next_node,
        "pathways": writer.pathways(track.pathways),
        "before": writer.leads(track.before),
        "latest": track.latest and writer.hypothesis(track.latest),
        "frames": list(track.frames),
        "waiting": [[node, writer.hypothesis(value)] for node, value in track.waiting.items()],
        "ready": [[frame, writer.hypothesis(value)] for frame, value in track.ready],
        "log": track.log.to_json(),
        "spacing": checkpoints.spacing,
        "checkpoints": [
            [frame, writer.snapshot(checkpoints.data(frame))] for frame in checkpoints.few(SAVED_CHECKPOINTS)
        ],
    }


def _unpack_object(reader: Reader, session: Session, packed: dict[str, Any]) -> None:
    device = reader.device
    obj = TrackedObject()
    for p in packed["prompts"]:
        points = None
        if p["coords"] is not None:
            points = reader.tensor(p["coords"], device), reader.tensor(p["labels"], device)
        output = PromptOutput(*(reader.tensor(p[name], device) for name in ("out_mask", "out_ptr", "out_logit")))
        tracked = reader.tensor(p["tracked"], device)
        obj.prompts[p["frame"]] = UserPrompt(
            points=points,
            mask=reader.tensor(p["mask"], device),
            output=output,
            object_logit=p["object_logit"],
            seen_from_before=p["seen_from_before"],
            corrects=p["corrects"],
            tracked=tracked,
            contradicts=contradicts(output.mask, tracked),
            mask_features=reader.tensor(p["features"], reader.storage),
        )
    session.objects[packed["id"]] = obj
    for t in packed["tracks"]:
        obj.tracks[t["direction"]], obj.checkpoints[t["direction"]] = _unpack_track(reader, session, t)
    for t in packed.get("replaced", ()):  # older files do not have it
        track, checkpoints = _unpack_track(reader, session, t)
        track.prompts = {p["frame"]: _unpack_prompted(reader, p) for p in t["prompts"]}
        obj.replaced[t["direction"]] = track, checkpoints


def _unpack_prompted(reader: Reader, packed: dict[str, Any]) -> Prompted:
    return Prompted(
        mask=reader.tensor(packed["mask"], reader.device),
        object_logit=packed["object_logit"],
        memory=reader.memories[packed["memory"]],
        seen_from_before=packed["seen_from_before"],
        starts_afresh=packed["starts_afresh"],
    )


def _unpack_track(reader: Reader, session: Session, packed: dict[str, Any]) -> tuple[Track, Checkpoints]:
    empty, checkpoints = session.new_track(packed["direction"])
    track = dataclasses.replace(
        empty,
        pathways=reader.pathways(packed["pathways"]),
        at_root=packed["at_root"],
        head=packed["head"],
        frames=deque(packed["frames"]),
        waiting={node: reader.hypothesis(value) for node, value in packed["waiting"]},
        ready=deque((frame, reader.hypothesis(value)) for frame, value in packed["ready"]),
        log=TrackLog.from_json(packed["log"]),
        next_node=packed["next_node"],
        last_slot=packed["last_slot"],
        latest=packed["latest"] and reader.hypothesis(packed["latest"]),
        before=reader.leads(packed["before"]),
    )
    checkpoints.spacing = packed["spacing"]
    for frame, name in packed["checkpoints"]:
        checkpoints.put(frame, reader.tensors[name].numpy().tobytes())
    return track, checkpoints

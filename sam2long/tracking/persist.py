"""Sessions on disk, in the format of packing.py."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import deque
from pathlib import Path
from typing import Any

from torch import Tensor

from sam2long.atomic import replacing
from sam2long.config import Sam2LongConfig
from sam2long.errors import StateError
from sam2long.network.protocol import PromptOutput
from sam2long.tracking.checkpoints import Checkpoints
from sam2long.tracking.close_up import scattered
from sam2long.tracking.packing import Packer, Unpacker, packed_view, unpacked_view
from sam2long.tracking.report import TrackLog
from sam2long.tracking.session import Session
from sam2long.tracking.track import Prompted, Track
from sam2long.tracking.tracked_object import TrackedObject, UserPrompt, contradicts

SAVED_CHECKPOINTS = 8  # the file holds no more: programs save often, and what is missing only costs time later


def save_session(session: Session, path: str | os.PathLike) -> None:
    """Write a session to one file, all or nothing."""
    packer = Packer()
    content = {
        "config": session.config.to_dict(),
        "hole_area": session.hole_area,
        "redraw": session.redraw is not None,
        "close_up": session.close_up is not None,
        "video": _video(session),
        "revision": session.revision,
        "next_time": {str(direction): list(value) for direction, value in session.next_time.items()},
        "objects": [_pack_object(packer, obj_id, obj) for obj_id, obj in session.objects.items()],
    }
    try:
        with replacing(Path(path)) as partial:
            partial.write_bytes(packer.bytes(content))
    except OSError as error:
        raise StateError(f"cannot write the state to {path}: {error.strerror}") from None


def load_session(session: Session, path: str | os.PathLike) -> None:
    """Fill a new session, made with the same video and model, from a file."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise StateError(f"cannot read the state {path}: {error.strerror}") from None
    unpacker = Unpacker(data, session.model.device, session.storage, str(path))
    content = unpacker.content
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
    session.hole_area = content["hole_area"]
    session.draw_again(content.get("redraw", False))
    session.look_closely(content.get("close_up", False))
    session.revision = content["revision"]
    session.next_time = {int(direction): tuple(value) for direction, value in content["next_time"].items()}
    for packed in content["objects"]:
        _unpack_object(unpacker, session, packed)


def _video(session: Session) -> dict[str, Any]:
    """What must be the same for a saved state to fit."""
    network = session.model.network
    return {
        "frames": session.source.num_frames,
        "height": session.source.height,
        "width": session.source.width,
        "image_size": network.image_size,
        "hidden_dim": network.hidden_dim,
        "mem_dim": network.mem_dim,
        "weights": _fingerprint(network.telling_weights),
        "dtype": str(session.model.dtype),
    }


def _fingerprint(parameter: Tensor) -> str:
    """Trained weights differ in every parameter, so one tells them apart."""
    return hashlib.sha256(parameter.detach().float().cpu().numpy().tobytes()).hexdigest()[:16]


def _pack_object(packer: Packer, obj_id: Any, obj: TrackedObject) -> dict[str, Any]:
    if not isinstance(obj_id, (int, str)):
        raise StateError(f"object id {obj_id!r} cannot be saved; use integers or strings as ids")
    return {
        "id": obj_id,
        "prompts": [
            {
                "frame": frame,
                "coords": packer.tensor(prompt.points and prompt.points[0]),
                "labels": packer.tensor(prompt.points and prompt.points[1]),
                "mask": packer.tensor(prompt.mask),
                "out_mask": packer.tensor(prompt.output.mask),
                "out_ptr": packer.tensor(prompt.output.object_ptr),
                "out_logit": packer.tensor(prompt.output.object_logit),
                "object_logit": prompt.object_logit,
                "seen_from_before": prompt.seen_from_before,
                "corrects": prompt.corrects,
                "tracked": packer.tensor(prompt.tracked),
                "features": packer.tensor(prompt.mask_features),
                "view": packed_view(prompt.view),
            }
            for frame, prompt in obj.prompts.items()
        ],
        "last_seen": list(obj.last_seen.items()),
        "tracks": [_pack_track(packer, track, obj.checkpoints[direction]) for direction, track in obj.tracks.items()],
    }


def _pack_prompted(packer: Packer, track: Track) -> list[dict[str, Any]]:
    """The prompts that a track went by: they need not be the object's any more."""
    return [
        {
            "time": time,
            "mask": packer.tensor(prompt.mask),
            "object_logit": prompt.object_logit,
            "memory": packer.memory(prompt.memory),
            "seen_from_before": prompt.seen_from_before,
            "starts_afresh": prompt.starts_afresh,
            "view": packed_view(prompt.view),
        }
        for time, prompt in track.prompts.items()
    ]


def _pack_track(packer: Packer, track: Track, checkpoints: Checkpoints) -> dict[str, Any]:
    return {
        "direction": track.direction,
        "prompts": _pack_prompted(packer, track),
        "now": packer.standing(track.now),
        "next_node": track.next_node,
        "latest": track.latest and packer.hypothesis(track.latest),
        "ready": [[time, packer.hypothesis(value)] for time, value in track.ready],
        "log": track.log.to_json(),
        "stale_after": track.stale_after,
        "spacing": checkpoints.spacing,
        "checkpoints": [
            [time, packer.checkpoint(checkpoints.data(time))] for time in checkpoints.few(SAVED_CHECKPOINTS)
        ],
    }


def _unpack_object(unpacker: Unpacker, session: Session, packed: dict[str, Any]) -> None:
    device = unpacker.device
    obj = TrackedObject(last_seen=dict(packed.get("last_seen", ())))
    for p in packed["prompts"]:
        points = None
        if p["coords"] is not None:
            points = unpacker.tensor(p["coords"], device), unpacker.tensor(p["labels"], device)
        output = PromptOutput(*(unpacker.tensor(p[name], device) for name in ("out_mask", "out_ptr", "out_logit")))
        tracked, view = unpacker.tensor(p["tracked"], device), unpacked_view(p)
        obj.prompts[p["frame"]] = UserPrompt(
            points=points,
            mask=unpacker.tensor(p["mask"], device),
            output=output,
            object_logit=p["object_logit"],
            seen_from_before=p["seen_from_before"],
            corrects=p["corrects"],
            tracked=tracked,
            contradicts=contradicts(output.mask, tracked),
            mask_features=unpacker.tensor(p["features"], unpacker.storage),
            view=view,
            scattered=scattered(output.mask, view),
        )
    session.objects[packed["id"]] = obj
    for t in packed["tracks"]:
        obj.tracks[t["direction"]], obj.checkpoints[t["direction"]] = _unpack_track(unpacker, session, t)


def _unpack_prompted(unpacker: Unpacker, packed: dict[str, Any]) -> Prompted:
    mask, view = unpacker.tensor(packed["mask"], unpacker.device), unpacked_view(packed)
    return Prompted(
        mask=mask,
        object_logit=packed["object_logit"],
        memory=unpacker.memories[packed["memory"]],
        seen_from_before=packed["seen_from_before"],
        starts_afresh=packed["starts_afresh"],
        view=view,
        scattered=scattered(mask, view),
    )


def _unpack_track(unpacker: Unpacker, session: Session, packed: dict[str, Any]) -> tuple[Track, Checkpoints]:
    empty, checkpoints = session.new_track(packed["direction"])
    track = dataclasses.replace(
        empty,
        prompts={p["time"]: _unpack_prompted(unpacker, p) for p in packed["prompts"]},
        now=unpacker.standing(packed["now"]),
        ready=deque((time, unpacker.hypothesis(value)) for time, value in packed["ready"]),
        log=TrackLog.from_json(packed["log"]),
        next_node=packed["next_node"],
        latest=packed["latest"] and unpacker.hypothesis(packed["latest"]),
        stale_after=packed["stale_after"],
    )
    checkpoints.spacing = packed["spacing"]
    for time, name in packed["checkpoints"]:
        checkpoints.put(time, unpacker.tensors[name].numpy().tobytes())
    return track, checkpoints

"""Tracks as bytes: tensors as safetensors, everything else as JSON in its header; versioned, no pickle."""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sam2long.errors import StateError
from sam2long.method.memory import FrameMemory
from sam2long.network.devices import HOST, Outgoing, moved, settle
from sam2long.tracking.report import FrameReport, TrackLog
from sam2long.tracking.track import Hypothesis, Pathway, Standing, WaitingFrame
from sam2long.tracking.window import Window

VERSION = 3
READABLE = (2, VERSION)  # before 3 there were no views
KEY = "sam2long"


class Packer:
    """Collects tensors under short names; a memory, or a tensor, that several pathways share is written once."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.names: dict[int, tuple[str, Tensor]] = {}  # id() -> (name, the tensor, kept alive)
        self.memories: dict[int, tuple[int, FrameMemory]] = {}  # id() -> (number, the memory, kept alive)
        self.entries: list[dict[str, Any]] = []
        self.checkpoints: dict[bytes, str] = {}

    def tensor(self, value: Tensor | None) -> str | None:
        if value is None:
            return None
        if id(value) not in self.names:
            name = str(len(self.tensors))
            self.names[id(value)] = name, value
            self.tensors[name] = value
        return self.names[id(value)][0]

    def checkpoint(self, data: bytes) -> str:
        if data not in self.checkpoints:
            name = self.tensor(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            assert name is not None  # there is a tensor
            self.checkpoints[data] = name
        return self.checkpoints[data]

    def memory(self, value: FrameMemory) -> int:
        if id(value) not in self.memories:
            self.memories[id(value)] = len(self.entries), value
            self.entries.append(
                {
                    "time": value.time,
                    "features": self.tensor(value.mask_features),
                    "ptr": self.tensor(value.object_ptr),
                    "iou": value.iou,
                    "logit": value.object_logit,
                    "kept": self.tensor(value.kept_tokens),
                }
            )
        return self.memories[id(value)][0]

    def standing(self, standing: Standing) -> dict[str, Any]:
        return {
            "time": standing.time,
            "at_root": standing.at_root,
            "last_rank": standing.last_rank,
            "view": packed_view(standing.view),
            "waiting": [
                [frame.time, [[node, self.hypothesis(one)] for node, one in frame.hypotheses.items()]]
                for frame in standing.waiting
            ],
            "order": [pathway.node for pathway in standing.pathways],
            "nodes": [
                {
                    "node": p.node,
                    "parent": p.parent,
                    "rank": p.rank,
                    "score": p.score,
                    "lineage": list(p.lineage),
                    "memories": [self.memory(m) for m in p.memories],
                }
                for p in standing.leaves()
            ],
        }

    def hypothesis(self, hypothesis: Hypothesis) -> dict[str, Any]:
        log = TrackLog()
        if hypothesis.report is not None:
            log.write(hypothesis.report)
        return {
            "mask": self.tensor(hypothesis.mask),
            "report": log.to_json(),
            "view": packed_view(hypothesis.view),
        }

    def arrived(self, outgoing: Outgoing) -> bool:
        """Whether all tensors are on the host; those that are not are sent there, those that are stay for `bytes`."""
        copies = {name: outgoing.on_host(value) for name, value in self.names.values()}
        if any(copy is None for copy in copies.values()):
            return False
        self.tensors = copies
        return True

    def bytes(self, content: dict[str, Any]) -> bytes:
        """Everything; what has not `arrived` is waited for."""
        header = {"version": VERSION, "content": content, "memories": self.entries}
        on_host = {name: moved(value, HOST) for name, value in self.tensors.items()}
        for device in {value.device for value in self.tensors.values()}:
            settle(device)
        apart = {name: value.contiguous().clone() for name, value in on_host.items()}
        return save(apart or {"empty": torch.zeros(1)}, metadata={KEY: json.dumps(header)})


class Unpacker:
    """The other way round. Pointers go to the compute device, spatial memories to their storage."""

    def __init__(self, data: bytes, device: torch.device, storage: torch.device | None, source: str) -> None:
        self.device = device
        self.storage = storage or device
        try:
            length = int.from_bytes(data[:8], "little")
            header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][KEY])
            self.tensors = load(data)
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise StateError(f"{source} is not a state saved by sam2long ({error})") from None
        if header.get("version") not in READABLE:
            raise StateError(
                f"{source} has state version {header.get('version')!r}; this sam2long reads version {VERSION}"
            )
        self.content = header["content"]
        self.memories = [
            FrameMemory(
                time=entry["time"],
                mask_features=self.tensor(entry["features"], self.storage),
                object_ptr=self.tensor(entry["ptr"], self.device),
                iou=entry["iou"],
                object_logit=entry["logit"],
                kept_tokens=self.tensor(entry["kept"], self.device),
            )
            for entry in header["memories"]
        ]

    def tensor(self, name: str | None, device: torch.device) -> Tensor | None:
        if name is not None and self.tensors[name].device != device:
            self.tensors[name] = self.tensors[name].to(device)  # one tensor for all who share it
        return None if name is None else self.tensors[name]

    def standing(self, packed: dict[str, Any]) -> Standing:
        nodes = {
            entry["node"]: Pathway(
                node=entry["node"],
                parent=entry["parent"],
                rank=entry["rank"],
                score=entry["score"],
                memories=tuple(self.memories[number] for number in entry["memories"]),
                lineage=tuple(entry["lineage"]),
            )
            for entry in packed["nodes"]
        }
        return Standing(
            time=packed["time"],
            pathways=tuple(nodes[node] for node in packed["order"]),
            at_root=packed["at_root"],
            view=unpacked_view(packed),
            last_rank=packed["last_rank"],
            waiting=tuple(
                WaitingFrame(time, {node: self.hypothesis(one) for node, one in hypotheses})
                for time, hypotheses in packed["waiting"]
            ),
        )

    def hypothesis(self, packed: dict[str, Any]) -> Hypothesis:
        reports: list[FrameReport] = list(TrackLog.from_json(packed["report"]))
        mask = self.tensor(packed["mask"], torch.device("cpu"))
        return Hypothesis(mask, reports[0] if reports else None, unpacked_view(packed))


def packed_view(view: Window | None) -> list[int] | None:
    return None if view is None else [view.left, view.top, view.width, view.height]


def unpacked_view(packed: dict[str, Any]) -> Window | None:
    """The view of what was packed with one."""
    view = packed.get("view")
    return None if view is None else Window(*view)


def unpack_standing(data: bytes, device: torch.device, storage: torch.device | None) -> Standing:
    unpacker = Unpacker(data, device, storage, "a checkpoint")
    return unpacker.standing(unpacker.content)

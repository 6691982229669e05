"""What tests/rehearsal shows on a pretended CUDA device, asked of a real one: one line for each promise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import bench
import torch

from sam2long import Sam2LongConfig, SAM2LongVideoPredictor

MOST_COPIES = 4  # a frame, both ways together
ALIKE = 0.98  # of the pixels, in float32: kernels add in another order
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize", "hipStreamSynchronize",
         "hipEventSynchronize", "hipDeviceSynchronize")  # fmt: skip


@dataclass(frozen=True)
class Promise:
    """One promise; `kept` is None where this device has nothing to say to it."""

    name: str
    kept: bool | None
    said: str

    def __str__(self) -> str:
        mark = {True: "kept", False: "BROKEN", None: "not asked"}[self.kept]
        return f"{mark}: {self.name}: {self.said}"


@dataclass(frozen=True)
class Traced:
    """What torch's profiler saw of a number of frames, per frame."""

    waits: float
    copies: float
    pageable: float

    @classmethod
    def of(cls, names: Iterable[str], frames: int) -> Traced:
        """names: of all events, those of the runtime and those of the device."""
        count = Counter(names)
        waits = sum(count[name] for name in WAITS)
        copies = [name for name in count.elements() if name.startswith(("Memcpy HtoD", "Memcpy DtoH"))]
        return cls(waits / frames, len(copies) / frames, sum("Pageable" in name for name in copies) / frames)


def check(model: str, device: str, objects: tuple[int, ...], frames: int = 12) -> list[Promise]:
    """All promises of one model, full banks, for one object and for several."""
    found = [masks_alike(model, device)]
    for many in objects:
        found += counted(model, device, many, frames)
    return found


def masks_alike(model: str, device: str, frames: int = 24) -> Promise:
    name = "the CPU's masks in float32"
    if torch.device(device).type == "cpu":
        return Promise(name, None, "this is the CPU")
    ((images, ids),) = bench.clips(frames, 2)
    masks = []
    for place in ("cpu", device):
        predictor = bench.build(model, None, place, "float32")
        state = bench.prompted(predictor, images, ids[0], 2)
        masks.append([logits.cpu() > 0 for _, _, logits in predictor.propagate_in_video(state)])
    least = min(float((one == other).float().mean()) for one, other in zip(*masks, strict=True))
    return Promise(name, least >= ALIKE, f"{100 * least:.2f} % of the pixels of the worst of {frames} frames")


def counted(model: str, device: str, objects: int, frames: int) -> list[Promise]:
    """Waits and copies by torch's profiler."""
    of = "one object" if objects == 1 else f"{objects} objects"
    names = {
        f"the host waits once a frame, {of}": lambda t: (t.waits <= 1, f"{t.waits:.2f}"),
        f"at most {MOST_COPIES} copies a frame, {of}": lambda t: (t.copies <= MOST_COPIES, f"{t.copies:.2f}"),
        f"no copy from or to pageable memory, {of}": lambda t: (t.pageable == 0, f"{t.pageable:.2f}"),
    }
    if torch.device(device).type != "cuda":
        return [Promise(name, None, f"{device} is no CUDA device") for name in names]
    traced = trace(model, device, objects, frames)
    return [Promise(name, *judge(traced)) for name, judge in names.items()]


def trace(model: str, device: str, objects: int, frames: int) -> Traced:
    built = bench.build(model, None, device, "auto")
    predictor = SAM2LongVideoPredictor.from_sam2(built, Sam2LongConfig(emit="online"), "auto")
    ((images, ids),) = bench.clips(bench.POINTERS + frames + 2, objects)
    run = predictor.propagate_in_video(bench.prompted(predictor, images, ids[0], objects))
    for _ in range(bench.POINTERS):
        next(run)
    return profiled(lambda: next(run), frames)


def profiled(step: Callable[[], object], frames: int) -> Traced:
    """The profiler itself waits for the device when it begins and when it ends: that is seen without a frame, and
    taken off."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    names = []
    for count in (0, frames):
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=activities) as profile:
            for _ in range(count):
                step()
        names.append(Counter(event.name for event in profile.events()))
    own, with_frames = names
    return Traced.of((with_frames - own).elements(), frames)

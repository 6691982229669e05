"""Many settings of SAM2Long on a data set in one go: a run folder each, as `python -m eval run` would leave it.

Every video is tracked by all settings together (see eval/sweep_tracker.py), which costs a fraction of one run after
the other. Two things tell such a run from a single one: its manifest has `sweep`, the number of settings it was
started with, and its records share their seconds (`settings`), so that they say nothing of one setting's speed. Masks
may differ from a single run's where the last bit of a number decides: batches are put together differently.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from eval import manifest, one_video, runner
from eval.datasets.base import Dataset
from eval.one_video import InOrder, VideoRecord
from eval.outputs import VideoWriter
from eval.progress import Progress
from eval.runner import RunResult
from eval.trackers import TrackerSpec
from sam2long.errors import ConfigError
from sam2long.network import transformers_loading
from sam2long.runs import processes


def of_one_model(spec: TrackerSpec) -> TrackerSpec:
    """What settings must have in common to go over a video together: all but the settings."""
    return replace(spec, sam2long={})


def run(dataset: Dataset, specs: Mapping[Path, TrackerSpec], *, workers: int = 1) -> dict[Path, RunResult]:
    """Run what is not yet done, of every folder. One video that fails is reported and the rest goes on.

    Args:
        specs: run folder -> what to run there, sam2long settings of one model.
        workers: processes of this machine.
    Raises:
        DataError: the data set has faults, or a folder holds another run.
    """
    if len({repr(of_one_model(spec)) for spec in specs.values()}) > 1 or any(
        (spec.method, spec.prompt) != ("sam2long", "mask") for spec in specs.values()
    ):
        raise ConfigError("a sweep takes sam2long settings of one model; run the others one by one")
    if any(transformers_loading.names_one(spec.model) for spec in specs.values()):
        raise ConfigError("a sweep takes models of sam2's package; run settings of a model hf:... with --no-sweep")
    runner.require_sound(dataset)
    names = dataset.names()
    for out, spec in specs.items():
        manifest.claim(out, manifest.describe(dataset, spec, names) | {"sweep": len(specs)})
    _export_gt(dataset, list(specs))
    todo = {out: [n for n in names if not one_video.record_path(out, n).exists()] for out in specs}
    missing = runner.longest_first(dataset, [n for n in names if any(n in left for left in todo.values())])
    failed: dict[Path, dict[str, str]] = {out: {} for out in specs}
    if missing:
        total = sum(len(dataset.video(n).frame_names) for n in missing)
        job = _Job(dataset, specs)
        with Progress(total, len(missing), label=f"{dataset.name}, {len(specs)} settings") as progress:
            for name, record, why in processes.each(job, missing, workers, progress.frame):
                if why is None:
                    progress.video(name, record)
                    continue
                progress.failure(name, why)
                for out in specs:
                    if not one_video.record_path(out, name).exists():
                        failed[out][name] = why
    for out in specs:
        runner.write_failures(out, failed[out])
    return {
        out: RunResult(
            [n for n in todo[out] if n not in failed[out]], [n for n in names if n not in todo[out]], failed[out]
        )
        for out in specs
    }


@dataclass
class _Job:
    """All settings on one video after the other."""

    dataset: Dataset
    specs: Mapping[Path, TrackerSpec]

    def start(self) -> None:
        from eval.sweep_tracker import Sweep

        spec = of_one_model(next(iter(self.specs.values())))
        self.sweep = Sweep(replace(spec, device=processes.own_device(spec.device)))

    def run(self, video: str, on_frame: Callable[[], None]) -> VideoRecord:
        outs = [out for out in self.specs if not one_video.record_path(out, video).exists()]
        return _run_video(self.dataset, self.sweep, video, {out: self.specs[out] for out in outs}, on_frame)


def _run_video(
    dataset: Dataset, sweep, name: str, specs: Mapping[Path, TrackerSpec], on_frame: Callable[[], None]
) -> VideoRecord:
    """One video for all settings that lack it. A setting has the whole video afterwards, or nothing of it."""
    from sam2long import Sam2LongConfig

    started = time.perf_counter()
    configs = {out: Sam2LongConfig.from_mapping(spec.sam2long) for out, spec in specs.items()}
    with one_video.opened(dataset, name) as (video, prompts, folder), ExitStack() as abandoned:
        sweep.reset_peak_memory()
        writers, orders = {}, {}
        for out in specs:
            writers[out] = VideoWriter(one_video.predictions_folder(out), video, prompts, dataset.per_object)
            abandoned.callback(writers[out].abandon)
            orders[out] = InOrder(video, prompts)
        encoded, leading = _Encoded(), orders[next(iter(specs))].expected
        for _ in range(leading):
            on_frame()
        encode = next(iter(writers.values())).encode
        for out, frame, masks in sweep.track(folder, video, prompts, configs):
            orders[out].take(frame)
            pngs = encoded.get(frame, masks, lambda masks: encode(sweep.logits(masks, video.size)))
            writers[out].put(frame, pngs)
            slowest = min(order.expected for order in orders.values())
            encoded.drop_before(slowest)
            for _ in range(slowest - leading):
                on_frame()
            leading = slowest
        for order in orders.values():
            order.finish()
        record = VideoRecord(
            video=name,
            frames=len(video.frame_names),
            objects=len(prompts),
            seconds=round(time.perf_counter() - started, 3),
            peak_memory_bytes=sweep.peak_memory(),
            settings=len(specs),
        )
        for out, writer in writers.items():
            writer.close()
            one_video.write_logits(out, video, prompts, sweep.object_logits(out))
            one_video.write_record(out, replace(record, tree=sweep.tree_counts(out)))
    return record


class _Encoded:
    """PNGs of masks that another setting had on the same frame, for as long as one may still come to it."""

    def __init__(self) -> None:
        self._frames: dict[int, dict[tuple[int, ...], tuple]] = {}

    def get(self, frame: int, masks: tuple, encode: Callable[[tuple], list[bytes]]) -> list[bytes]:
        known = self._frames.setdefault(frame, {})
        key = tuple(map(id, masks))
        if key not in known:
            known[key] = masks, encode(masks)  # the masks stay, or their ids would mean something else
        return known[key][1]

    def drop_before(self, frame: int) -> None:
        for old in [at for at in self._frames if at < frame]:
            del self._frames[old]


def _export_gt(dataset: Dataset, outs: list[Path]) -> None:
    """Ground truth of a generated data set: made once, linked into the other run folders."""
    if not hasattr(dataset, "export_gt"):
        return
    have = next((out for out in outs if (out / "gt").is_dir()), None)
    if have is None:
        have = outs[0]
        runner.export_gt(dataset, have / "gt")
    for out in outs:
        if not (out / "gt").is_dir():
            part = out / ".gt.part"
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(have / "gt", part, copy_function=_link_or_copy)
            part.rename(out / "gt")


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)

"""Videos over several processes of this machine: `--workers N`, N = 1 being this process.

Each process loads the model once and takes the next video when it has finished one. A process that is lost costs the
videos that were under way; starting the same command again does those and no others.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol

from sam2long.errors import Sam2LongError, sentence

Outcome = tuple[str, Any, str | None]  # video, result, what went wrong


class Job(Protocol):
    """What a process does; it is pickled to get there."""

    def start(self) -> None:
        """Load what all videos need."""

    def run(self, video: str, on_frame: Callable[[], None]) -> Any: ...


def each(job: Job, videos: Sequence[str], workers: int = 1, on_frame: Callable[[], None] = lambda: None) -> (
    Iterator[Outcome]
):  # fmt: skip
    """Run the job on every video, in this order; results come as they are ready.

    Args:
        workers: processes; with more than one, each computes on its share of the cores.
        on_frame: called after each frame, of any process.
    """
    workers = min(workers, len(videos))
    if workers > 1:
        yield from _in_pool(job, videos, workers, on_frame)
        return
    if videos:
        job.start()
    for video in videos:
        yield _attempt(job, video, on_frame)


def _attempt(job: Job, video: str, on_frame: Callable[[], None]) -> Outcome:
    try:
        return video, job.run(video, on_frame), None
    except Exception as error:  # whatever is wrong with one video must not cost the others
        return video, None, reason(error)


def reason(error: BaseException) -> str:
    """What went wrong, in a line."""
    if isinstance(error, Sam2LongError):
        return str(error)
    if isinstance(error, OSError):
        return sentence(error)
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" at {Path(last[0].filename).name}:{last[0].lineno}" if last else ""
    return f"{type(error).__name__}: {error}{where}"


def _in_pool(job: Job, videos: Sequence[str], workers: int, on_frame: Callable[[], None]) -> Iterator[Outcome]:
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")  # a fork would take over torch's thread pools in a broken state
    frames, numbers = context.SimpleQueue(), context.Value("i", 0)
    listener = threading.Thread(target=_listen, args=(frames, on_frame), daemon=True)
    listener.start()
    with ProcessPoolExecutor(workers, context, _prepare, (job, threads, frames, numbers)) as pool:
        pending = {pool.submit(_run, video): video for video in videos}
        try:
            for future in as_completed(pending):
                try:
                    yield future.result()
                except BrokenProcessPool:
                    yield pending[future], None, "its process was lost (out of memory?); start the same command again"
        except KeyboardInterrupt:  # at once: what is under way would be waited for
            for process in multiprocessing.active_children():
                process.kill()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            frames.put(False)
            listener.join()


def _listen(frames: Any, on_frame: Callable[[], None]) -> None:
    while frames.get():
        on_frame()


def own_device(device: str | None) -> str | None:
    """The device that this process computes on: several workers share out the GPUs, unless one was named."""
    import torch

    if _Worker.job is None or device not in (None, "cuda") or torch.cuda.device_count() < 2:
        return device
    return f"cuda:{_Worker.number % torch.cuda.device_count()}"


class _Worker:
    """What a worker process holds between videos."""

    job: Job | None = None
    started = False
    number = 0
    frames: Any = None  # where the parent hears of frames


def _prepare(job: Job, threads: int, frames: Any, numbers: Any) -> None:
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _Worker.job, _Worker.frames = job, frames
    with numbers.get_lock():
        _Worker.number = numbers.value
        numbers.value += 1


def _leave_with_parent() -> None:
    """Without its parent a worker would wait for ever."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)


def _run(video: str) -> Outcome:
    job = _Worker.job
    assert job is not None  # `_prepare` has run
    try:
        if not _Worker.started:
            job.start()
            _Worker.started = True
    except Exception as error:  # here and not in `_prepare`, where it would only break the pool
        return video, None, reason(error)
    return _attempt(job, video, lambda: _Worker.frames.put(True))

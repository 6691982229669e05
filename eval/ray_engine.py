"""`--engine ray`: one actor per GPU holds the model, videos are tasks, longest first. Needs the extra `ray`.

Files are those of the single process: the same function runs a video, on whichever machine. `out` and the data set
must be at the same path on every machine of a cluster (a shared file system).
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from eval.datasets.base import Dataset
from eval.progress import Progress
from eval.trackers import TrackerSpec
from sam2long.errors import ConfigError

TRIES = 3  # a video whose worker is lost this often is given up
_REPOSITORY = Path(__file__).parents[1]


def _worker_class(ray):
    class Worker:
        """Holds the model between videos."""

        def __init__(self, spec: TrackerSpec):
            from eval import trackers

            self.tracker = trackers.build(spec)

        def run(self, dataset: Dataset, name: str, out: Path):
            from eval import one_video
            from sam2long.runs import processes

            try:
                return one_video.run_video(dataset, self.tracker, name, out), None
            except Exception as error:
                return None, processes.reason(error)

    return ray.remote(Worker)


def _start(address: str | None):
    try:
        import ray
    except ImportError:
        raise ConfigError(
            "--engine ray needs the package ray; install the extra: pip install 'sam2long[ray]'"
        ) from None
    if not ray.is_initialized():
        environment = {"env_vars": {"PYTHONPATH": _python_path(), "TQDM_DISABLE": "1"}}
        try:
            ray.init(
                address=address,
                runtime_env=environment,
                log_to_driver=False,
                include_dashboard=False if not address else None,
            )
        except ConnectionError as error:
            raise ConfigError(
                f"no ray cluster answers at --address {address} ({error}); start one or leave it out"
            ) from None
    return ray


def _python_path() -> str:
    return os.pathsep.join(p for p in (str(_REPOSITORY), os.environ.get("PYTHONPATH", "")) if p)


def _kind_of_worker(ray, spec: TrackerSpec, workers: int | None) -> tuple[int, dict]:
    """How many workers, and what each of them takes."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if gpus and (spec.device or "cuda").startswith("cuda"):
        return min(workers or gpus, gpus), {"num_gpus": 1}
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    return min(workers or 1, cpus), {"num_cpus": 1}  # more would wait for ever


def run_videos(
    dataset: Dataset, spec: TrackerSpec, out: Path, todo: list[str], progress: Progress, *, address: str | None,
    workers: int | None,
) -> dict[str, str]:  # fmt: skip
    """Run the videos; returns those that failed, with the reason.

    A lost worker is replaced and costs its current video another try, no other.
    """
    ray = _start(address)
    if (spec.device or "").startswith("cuda:"):
        spec = replace(spec, device="cuda")  # each worker sees the GPU that it was given, and no other
    count, needs = _kind_of_worker(ray, spec, workers)
    worker_class = _worker_class(ray).options(**needs, max_restarts=0)
    length = {n: len(dataset.video(n).frame_names) for n in todo}
    waiting = sorted(todo, key=lambda n: -length[n])
    tries = dict.fromkeys(todo, 0)
    failed: dict[str, str] = {}
    running: dict = {}  # task -> (worker, video)
    idle = [worker_class.remote(spec) for _ in range(min(count, len(waiting)))]
    while waiting or running:
        while waiting and idle:
            worker, name = idle.pop(), waiting.pop(0)
            tries[name] += 1
            running[worker.run.remote(dataset, name, out.resolve())] = (worker, name)
        finished, _ = ray.wait(list(running), num_returns=1, timeout=5.0)
        for task in finished:
            worker, name = running.pop(task)
            try:
                record, why = ray.get(task)
            except ray.exceptions.RayError as error:
                idle.append(worker_class.remote(spec))
                if tries[name] < TRIES:
                    waiting.insert(0, name)
                    time.sleep(0.1)
                else:
                    failed[name] = f"its worker was lost {TRIES} times: {str(error).splitlines()[0]}"
                    progress.failure(name, failed[name])
                continue
            idle.append(worker)
            progress.frame(length[name])
            if why is None:
                progress.video(name, record)
            else:
                failed[name] = why
                progress.failure(name, why)
    for worker in idle:
        ray.kill(worker)
    return failed

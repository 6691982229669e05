"""The rules side by side on a data set; each is kept as soon as it is through a video, so that a run goes on where it
broke off."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from eval import manifest, pngs
from eval.datasets.base import Dataset
from eval.interact.clips import clips
from eval.interact.corrected import Clip, Corrected
from eval.interact.rules import FORWARD_ONLY, RULES, looked_at
from eval.one_video import record_path
from eval.trackers import Sam2Long, TrackerSpec

Round = dict[str, Any]  # see `_state`
Rounds = dict[str, dict[str, list[Round]]]  # rule -> clip -> rounds


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    rules: tuple[str, ...]
    rounds: int = 5
    start: str = "box"  # mask, box or click
    correction: str = "mask"  # or clicks, or boxes
    seed: int = 0  # of the random frames


class Forks:
    """A clip after the corrections that have been tried on it: what two rules have in common is tracked once."""

    def __init__(self, predictor: Any, clip: Clip, plan: Plan) -> None:
        self.plan, self.features = plan, {}
        begun = Corrected(predictor, clip, self.features)
        begun.begin(plan.start)
        self._known: dict[tuple[bool, tuple[int, ...]], Corrected] = {(True, ()): begun}

    def after(self, frames: tuple[int, ...], both_ways: bool = True) -> Corrected:
        """The clip once these frames have been corrected, in this order."""
        if not frames:
            return self._known[True, ()]
        key = both_ways, frames
        if key not in self._known:
            video = self.after(frames[:-1], both_ways).fork()
            video.both_ways = both_ways
            video.correct(frames[-1], self.plan.correction)
            self._known[key] = video
        return self._known[key]

    def rounds(self, rule: str) -> list[Round]:
        """What each round of a rule led to; the first entry is the track before any correction."""
        frames: tuple[int, ...] = ()
        rng, both_ways = random.Random(f"{self.plan.seed} {self.after(()).clip.name}"), rule not in FORWARD_ONLY
        found = [_state(self.after(()), rule, None)]
        for _ in range(self.plan.rounds):
            video = self.after(frames, both_ways)
            open_frames = [frame for frame in video.clip.shown if frame not in video.prompts]
            frame = RULES[rule](video, open_frames, rng) if open_frames else None
            if frame is None:
                break
            frames = (*frames, frame)
            found.append(_state(self.after(frames, both_ways), rule, frame))
        return found


def _state(video: Corrected, rule: str, frame: int | None) -> Round:
    return {
        "frame": frame,
        "J&F": round(video.j_and_f(), 3),
        "J&F of others": round(video.j_and_f(but=list(video.prompts)), 3),  # of the frames that nobody corrected
        "clicks": video.clicks,
        "frames looked at": looked_at(rule, video),
        "frames tracked": video.frames_tracked,
    }


def measure(dataset: Dataset, spec: TrackerSpec, plan: Plan, out: Path) -> Rounds:
    """Correct every object of a data set by every rule.

    Args:
        spec: of sam2long, or of sam2: this package's predictor with everything switched off, which is SAM 2.
        out: the run's folder; what it holds already of the same run is not done again.
    Returns:
        rule -> what each round led to, by clip.
    Raises:
        DataError: the folder holds another run, or a frame has no true mask.
    """
    from sam2long import Sam2LongConfig

    if spec.method == "sam2":
        spec = replace(spec, method="sam2long", sam2long=Sam2LongConfig.sam2().to_dict())
    names = dataset.names()
    content = manifest.describe(dataset, spec, names)
    content["tracker"]["interact"] = {k: v for k, v in asdict(plan).items() if k != "rules"}
    out.mkdir(parents=True, exist_ok=True)
    manifest.claim(out, content)
    predictor = None
    for name in names:
        path = record_path(out, name)
        done: Rounds = json.loads(path.read_text()) if path.exists() else {}
        if all(rule in done for rule in plan.rules):
            continue
        predictor = predictor or Sam2Long(spec).predictor
        tried = {clip.name: Forks(predictor, clip, plan) for clip in clips(dataset, name)}
        for rule in plan.rules:
            if rule not in done:
                done[rule] = {clip: forks.rounds(rule) for clip, forks in tried.items()}
                path.parent.mkdir(exist_ok=True)
                pngs.write_whole(path, (json.dumps(done, indent=1) + "\n").encode())
                said = ", ".join(f"{clip} {_curve(rounds)}" for clip, rounds in done[rule].items())
                print(f"{rule}: {said}", flush=True)
    return read(out)


def read(out: Path) -> Rounds:
    """Rule -> clip -> what each round led to, of a run's folder."""
    found: Rounds = {}
    for name in manifest.read(out)["dataset"]["videos"]:
        path = record_path(out, name)
        for rule, by_clip in (json.loads(path.read_text()) if path.exists() else {}).items():
            found.setdefault(rule, {}).update(by_clip)
    return found


def _curve(rounds: Sequence[Round]) -> str:
    return " ".join(f"{each['J&F']:.1f}" for each in rounds)

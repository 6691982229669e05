"""What a run says: J&F after each round, gains over random frames with intervals, work until J&F 75 and 85."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eval import bootstrap, machine, manifest, report_figures
from eval.interact.annotator import MOST_CLICKS
from eval.interact.measure import Round, Rounds, read
from eval.prompting import CORRECTIONS
from eval.report import markdown_table
from sam2long.errors import DataError

SHOWN = (1, 3, 5, 8)  # rounds that the tables show
GOALS = (75, 85)  # J&F
MEASURES = {"rounds": "rounds", "clicks": "clicks", "looked": "frames looked at"}
BASE = "random"


def after(rounds: list[Round], number: int, what: str = "J&F") -> float:
    """After so many rounds; a rule that named no more frames stays where it was."""
    return rounds[min(number, len(rounds) - 1)][what]


def area(rounds: list[Round], most: int) -> float:
    """Mean J&F over the rounds: the area under the curve."""
    return float(np.mean([after(rounds, number) for number in range(most + 1)]))


class Work(NamedTuple):
    """What it takes an annotator to reach a goal."""

    rounds: int
    clicks: int
    looked: int  # frames
    reached: bool


def until(rule: str, rounds: list[Round], goal: float, most: int, clicks_each: int = MOST_CLICKS) -> Work:
    """Work until J&F reaches a goal; where it never does, as much as there can be counts.

    Args:
        most: rounds of the run. clicks_each: the most clicks on a frame.
    """
    for number, each in enumerate(rounds):
        if each["J&F"] >= goal:
            return Work(number, each["clicks"], each["frames looked at"], True)
    video = rounds[0]["frames tracked"]  # frames after the first prompt
    looked = {"online": video, "oracle": most * video}.get(rule, most)
    return Work(most, most * clicks_each, looked, False)


def works(rule: str, by_clip: dict[str, list[Round]], goal: float, plan: dict) -> dict[tuple[str, str], Work]:
    """The work on each object."""
    each = 0 if plan["correction"] == "mask" else MOST_CLICKS
    return {_key(clip): until(rule, rounds, goal, plan["rounds"], each) for clip, rounds in by_clip.items()}


def _key(clip: str) -> tuple[str, str]:
    """As `bootstrap.paired` takes it."""
    video, _, label = clip.partition("/")
    return video, label


def by_object(found: dict[str, list[Round]], number: int) -> dict[tuple[str, str], float]:
    """J&F after so many rounds."""
    return {_key(clip): after(rounds, number) for clip, rounds in found.items()}


def text(out: Path, against: Path | None = None) -> str:
    """The tables in markdown. against: another run's folder, whose work is taken from this one's."""
    found, content = read(out), manifest.read(out)
    plan = content["tracker"]["interact"]
    most, shown = plan["rounds"], [n for n in SHOWN if n <= plan["rounds"]]
    clips = set.intersection(*(set(by_clip) for by_clip in found.values()))
    found = {rule: {clip: rounds[clip] for clip in sorted(clips)} for rule, rounds in found.items()}
    parts = [_head(content, len(clips)), _curves(found, most, shown)]
    if BASE in found:
        parts.append(_gains(found, shown))
    parts.append(_work(found, plan))
    if against is not None:
        parts.append(_against(found, plan, against))
    return "\n\n".join(parts) + "\n"


def _head(content: dict, count: int) -> str:
    plan, weights = content["tracker"]["interact"], content["checkpoint_sha256"] or ""
    return (
        f"{content['dataset']['name']}, {count} objects; each begins with one {plan['start']}, a correction is "
        f"{CORRECTIONS[plan['correction']]}. Model "
        f"{content['tracker']['model']}, weights {weights[:12]}, commit {(content['commit'] or 'unknown')[:12]}; "
        f"{machine.describe()}."
    )


def _curves(found: Rounds, most: int, shown: list[int]) -> str:
    rows = []
    for rule, by_clip in found.items():
        means = [np.mean([after(rounds, n) for rounds in by_clip.values()]) for n in (0, *shown)]
        under = np.mean([area(rounds, most) for rounds in by_clip.values()])
        rows.append([rule, *(f"{mean:.1f}" for mean in means), f"{under:.1f}"])
    return markdown_table(["J&F after rounds", "0", *map(str, shown), "area"], rows)


def _gains(found: Rounds, shown: list[int]) -> str:
    rows = []
    for rule in (rule for rule in found if rule != BASE):
        row = [rule]
        for number in shown:
            d = bootstrap.paired(by_object(found[BASE], number), by_object(found[rule], number))
            row.append(f"{d.mean:+.1f} [{d.low:+.1f}, {d.high:+.1f}]")
        rows.append(row)
    return markdown_table([f"J&F minus {BASE}'s, rounds", *map(str, shown)], rows)


def _work(found: Rounds, plan: dict) -> str:
    rows = []
    for rule, by_clip in found.items():
        row = [rule]
        for goal in GOALS:
            each = list(works(rule, by_clip, goal, plan).values())
            row += [f"{np.mean([getattr(work, what) for work in each]):.1f}" for what in MEASURES]
            row.append(f"{sum(work.reached for work in each)} of {len(each)}")
        rows.append(row)
    header = [f"{what} to {goal}" for goal in GOALS for what in (*MEASURES.values(), "reached")]
    header = [name.replace("reached to", "reached") for name in header]
    return markdown_table(["", *header], rows)


def _against(found: Rounds, plan: dict, other: Path) -> str:
    """Work of this run minus that of another one, on the objects that both have."""
    content = manifest.read(other)
    theirs = content["tracker"]["interact"]
    if wrong := [name for name in ("rounds", "start", "correction") if plan[name] != theirs[name]]:
        raise DataError(
            f"{other} has {wrong[0]} {theirs[wrong[0]]} and this run {plan[wrong[0]]}; compare runs of one plan"
        )
    rows = []
    for rule, by_clip in found.items():
        for other_rule, other_clips in read(other).items():
            row = [f"{rule} - {other_rule}"]
            for goal in GOALS:
                a, b = works(other_rule, other_clips, goal, theirs), works(rule, by_clip, goal, plan)
                for what in MEASURES:
                    d = bootstrap.paired(*({key: float(getattr(w, what)) for key, w in x.items()} for x in (a, b)))
                    row.append(f"{d.mean:+.1f} [{d.low:+.1f}, {d.high:+.1f}]")
            rows.append([*row, str(d.objects)])
    header = [f"{what} to {goal}" for goal in GOALS for what in MEASURES.values()]
    return markdown_table([f"against {other.name}", *header, "objects"], rows)


def write(out: Path, against: Path | None = None) -> str:
    """Write `interact.md`, `interact.json` and `interact.png` into a run's folder; returns the text."""
    said = text(out, against)
    (out / "interact.md").write_text(said, encoding="utf-8")
    found, content = read(out), manifest.read(out)
    figures = {
        "weights_sha256": content["checkpoint_sha256"], "commit": content["commit"], "tracker": content["tracker"],
        "dataset": content["dataset"]["name"],
        "curves": {
            rule: [round(float(np.mean([after(r, n) for r in by_clip.values()])), 2)
                   for n in range(content["tracker"]["interact"]["rounds"] + 1)]
            for rule, by_clip in found.items()
        },
    }  # fmt: skip
    report_figures.corrections(figures["curves"], figures["dataset"], out / "interact.png")
    (out / "interact.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return said

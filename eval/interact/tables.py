"""What a run says: J&F after each round, gains over random frames with intervals, work until J&F 75 and 85."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from eval import bootstrap, machine, manifest, report_figures
from eval.interact.measure import Round, Rounds, read
from eval.report import markdown_table

SHOWN = (1, 3, 5, 8)  # rounds that the tables show
GOALS = (75, 85)  # J&F
BASE = "random"


def after(rounds: list[Round], number: int, what: str = "J&F") -> float:
    """After so many rounds; a rule that named no more frames stays where it was."""
    return rounds[min(number, len(rounds) - 1)][what]


def area(rounds: list[Round], most: int) -> float:
    """Mean J&F over the rounds: the area under the curve."""
    return float(np.mean([after(rounds, number) for number in range(most + 1)]))


def until(rounds: list[Round], goal: float, most: int) -> tuple[int, int, bool]:
    """Rounds and clicks until J&F reaches a goal, and whether it did; otherwise all rounds count."""
    for number, each in enumerate(rounds):
        if each["J&F"] >= goal:
            return number, each["clicks"], True
    return most, rounds[-1]["clicks"], False


def by_object(found: dict[str, list[Round]], number: int) -> dict[tuple[str, str], float]:
    """J&F after so many rounds, as `bootstrap.paired` takes it."""
    return {(*clip.partition("/")[::2],): after(rounds, number) for clip, rounds in found.items()}  # type: ignore[misc]


def text(out: Path) -> str:
    """The tables in markdown."""
    found, content = read(out), manifest.read(out)
    plan = content["tracker"]["interact"]
    most, shown = plan["rounds"], [n for n in SHOWN if n <= plan["rounds"]]
    clips = set.intersection(*(set(by_clip) for by_clip in found.values()))
    found = {rule: {clip: rounds[clip] for clip in sorted(clips)} for rule, rounds in found.items()}
    parts = [_head(content, len(clips)), _curves(found, most, shown)]
    if BASE in found:
        parts.append(_gains(found, shown))
    parts.append(_work(found, most))
    return "\n\n".join(parts) + "\n"


def _head(content: dict, count: int) -> str:
    plan, weights = content["tracker"]["interact"], content["checkpoint_sha256"] or ""
    return (
        f"{content['dataset']['name']}, {count} objects; each begins with one {plan['start']}, a correction is "
        f"{'the true mask' if plan['correction'] == 'mask' else 'up to three clicks'}. Model "
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


def _work(found: Rounds, most: int) -> str:
    rows = []
    for rule, by_clip in found.items():
        row = [rule]
        for goal in GOALS:
            each = [until(rounds, goal, most) for rounds in by_clip.values()]
            reached = sum(there for _, _, there in each)
            row += [f"{np.mean([n for n, _, _ in each]):.2f}", f"{np.mean([c for _, c, _ in each]):.2f}",
                    f"{reached} of {len(each)}"]  # fmt: skip
        rows.append(row)
    header = [f"{what} {goal}" for goal in GOALS for what in ("rounds to", "clicks to", "reached")]
    return markdown_table(["", *header], rows)


def write(out: Path) -> str:
    """Write `interact.md`, `interact.json` and `interact.png` into a run's folder; returns the text."""
    said = text(out)
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

"""`python -m eval report`: scored runs beside the published numbers, and where one is better than the other."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from eval import bootstrap, manifest, pngs, presence, report_figures
from sam2long.errors import DataError
from sam2long.runs.settings import read_yaml

# columns of objects.csv that make up an object's headline score, and what brings them to percent
_HEADLINE = {
    "davis": (("J-Mean", "F-Mean"), 100),
    "davis2016": (("J-Mean", "F-Mean"), 100),
    "lvos": (("J-Mean", "F-Mean"), 100),
    "lvos-2023": (("J-Mean", "F-Mean"), 100),
    "vost": (("J-Mean",), 100),
    "sav": (("J", "F"), 1),
    "vos-benchmark": (("J", "F"), 1),
    "mosev2": (("J", "F_new"), 1),
    "box": (("AUC",), 1),
}
_SIZE_LIMITS = (32**2, 96**2)  # SA-V's buckets of the mean mask area
_METHODS = {"sam2": "SAM 2 (ours, baseline)", "sam2long": "SAM2Long (ours)"}


@dataclass(frozen=True)
class Run:
    """A scored run folder."""

    folder: Path
    protocol: str

    @property
    def label(self) -> str:
        return self.folder.name

    @cached_property
    def manifest(self) -> dict:
        return manifest.read(self.folder)

    @property
    def scores_folder(self) -> Path:
        return self.folder / "scores" / self.protocol

    @cached_property
    def summary(self) -> dict:
        return json.loads((self.scores_folder / "scores.json").read_text(encoding="utf-8"))["reported"]["global"]

    @cached_property
    def objects(self) -> pd.DataFrame:
        table = pd.read_csv(self.scores_folder / "objects.csv", dtype={"video": str, "object": str})
        columns, factor = _HEADLINE[self.protocol]
        table["score"] = table[list(columns)].mean(axis=1) * factor
        return table

    @cached_property
    def frames(self) -> pd.DataFrame:
        table = pd.read_csv(self.scores_folder / "frames.csv", dtype={"video": str, "object": str, "frame": str})
        measures = [c for c in ("J", "F") if c in table.columns and self.protocol != "vost"] or ["J"]
        table["score"] = table[measures].mean(axis=1) * 100 if "J" in table.columns else table["iou"] * 100
        return table

    def by_object(self) -> dict[tuple[str, str], float]:
        return {(r.video, r.object): r.score for r in self.objects.itertuples()}

    @cached_property
    def records(self) -> pd.DataFrame:
        files = sorted((self.folder / "videos").glob("*.json"))
        return pd.DataFrame([json.loads(f.read_text(encoding="utf-8")) for f in files])


def open_runs(folders: list[Path], protocol: str | None) -> list[Run]:
    """Raises DataError when a folder is no run, is not scored, or the runs are of different data sets."""
    scored = []
    for folder in folders:
        manifest.read(folder)
        have = pngs.subfolders(folder / "scores")
        if not have:
            raise DataError(
                f"{folder} has not been scored; run it again with --score, or score its predictions with "
                f"--out {folder}/scores/<protocol>"
            )
        scored.append(set(have))
    common = sorted(set.intersection(*scored))
    if protocol is None:
        if len(common) != 1:
            raise DataError(f"the runs share the protocols {common or 'none'}; say which one to report with --protocol")
        protocol = common[0]
    if lacking := [str(f) for f, have in zip(folders, scored, strict=True) if protocol not in have]:
        raise DataError(f"not scored with protocol {protocol}: {pngs.some(lacking)}; score them first")
    runs = [Run(folder, protocol) for folder in folders]
    if len({r.manifest["dataset"]["name"] for r in runs}) > 1:
        raise DataError("the runs are of different data sets; report one data set at a time")
    return runs


def published(dataset: str, protocol: str) -> list[dict]:
    table = read_yaml(Path(__file__).with_name("published.yaml"))
    return table.get(dataset, {}).get(protocol, [])


def markdown_table(header: list[str], rows: list[list[object]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join(lines + [f"| {' | '.join(str(c) for c in row)} |" for row in rows])


def difference_line(ours: Path, baseline: Path, protocol: str) -> str:
    """One line: our run against the baseline run, with its interval."""
    a, b = open_runs([baseline, ours], protocol)
    return f"{ours.name} minus {baseline.name}: {bootstrap.paired(a.by_object(), b.by_object())}"


def _speed(run: Run) -> tuple[str, str]:
    """Frames per second and peak memory; a video that several settings went over together says nothing of one."""
    records = run.records
    if "settings" in records.columns:
        records = records[records["settings"].fillna(1) == 1]
    if records.empty:
        return "-", "-"
    per_second = records["frames"].sum() / max(records["seconds"].sum(), 1e-9)
    return f"{per_second:.1f}", f"{records['peak_memory_bytes'].max() / 2**30:.2f}"


def _results(runs: list[Run]) -> str:
    dataset = runs[0].manifest["dataset"]["name"]
    columns = list(dict.fromkeys(k for r in runs for k in r.summary if k != "Copy-Paste"))
    rows = []
    for r in runs:
        tracker = r.manifest["tracker"]
        method = _METHODS.get(tracker["method"], tracker["method"])
        rows.append(
            [r.label, method, Path(tracker["model"]).name, *(r.summary.get(c, "-") for c in columns), *_speed(r)]
        )
    table = markdown_table(["run", "method", "model", *columns, "frames/s", "peak GiB"], rows)
    known = published(dataset, runs[0].protocol)
    if not known:
        return f"{table}\n\nNo published number is known for {dataset} under protocol {runs[0].protocol}."
    rows = [[p["method"], p["model"], p["J&F"], p.get("J", "-"), p.get("F", "-"), p["source"]] for p in known]
    header = ["published: method", "model", "J&F", "J", "F", "source"]
    return f"{table}\n\nPublished (not run here):\n\n{markdown_table(header, rows)}"


def _differences(runs: list[Run]) -> str:
    first, rows = runs[0], []
    for r in runs[1:]:
        d = bootstrap.paired(first.by_object(), r.by_object())
        rows.append(
            [f"{r.label} - {first.label}", f"{d.mean:+.2f}", f"[{d.low:+.2f}, {d.high:+.2f}]", f"{d.p:.4f}", d.videos]
        )
    table = markdown_table(["difference", "mean over objects", "95 % interval", "p", "videos"], rows)
    if min(row[-1] for row in rows) < bootstrap.FEW_VIDEOS:
        table += "\n\nThese are too few videos for the interval to mean much."
    return table


def _presence(runs: list[Run]) -> str | None:
    """Whether the runs know that an object is gone; None where none ever is."""
    rows = []
    for r in runs:
        logits = presence.read_logits(r.folder, r.manifest["dataset"]["videos"])
        known = presence.figures(r.frames, logits)
        if known is None:
            return None
        digits = {"AUC of the logit": 3, "absent frames": 0, "returns": 0}
        cells = [f"{v:.{digits.get(k, 1)}f}" if v == v else "-" for k, v in known.items()]
        rows.append([r.label, *cells])
    return markdown_table(["run", *presence.COLUMNS], rows)


def attributes_of(run: Run, given: Path | None) -> pd.DataFrame:
    """Columns video, object ("" for all of a video), attribute: from the masks themselves, and from a CSV of the
    user's."""
    rows = []
    if "gt_area" in run.frames.columns:
        for (video, obj), frames in run.frames.groupby(["video", "object"]):
            area = frames["gt_area"][frames["gt_area"] > 0].mean()
            size = "small" if area < _SIZE_LIMITS[0] else "medium" if area < _SIZE_LIMITS[1] else "large"
            gone = (frames["gt_area"] == 0).mean()
            presence = "always visible" if gone == 0 else "absent up to 20 %" if gone <= 0.2 else "absent over 20 %"
            length = (
                "under 100 frames"
                if len(frames) < 100
                else "100 to 299 frames"
                if len(frames) < 300
                else "300 frames on"
            )
            rows += [(video, obj, a) for a in (f"size: {size}", f"presence: {presence}", f"length: {length}")]
    for video, count in run.objects.groupby("video").size().items():
        rows.append((video, "", "objects: one" if count == 1 else "objects: several"))
    table = pd.DataFrame(rows, columns=["video", "object", "attribute"])
    if given is not None:
        try:
            extra = pd.read_csv(given, dtype=str)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{given} cannot be read as a CSV ({error}); expected columns video and attribute"
            ) from None
        if not {"video", "attribute"} <= set(extra.columns):
            raise DataError(f"{given} has columns {', '.join(extra.columns)}; expected video and attribute")
        extra["object"] = ""
        table = pd.concat([table, extra[["video", "object", "attribute"]]])
    return table


def _breakdown(runs: list[Run], given: Path | None) -> str:
    attributes = attributes_of(runs[0], given)
    rows = []
    for attribute, members in sorted(attributes.groupby("attribute"), key=lambda item: item[0]):
        keys = set(zip(members["video"], members["object"], strict=True))
        cells = []
        for r in runs:
            scores = [s for (v, o), s in r.by_object().items() if (v, o) in keys or (v, "") in keys]
            cells.append(f"{sum(scores) / len(scores):.1f}" if scores else "-")
        count = sum(1 for v, o in runs[0].by_object() if (v, o) in keys or (v, "") in keys)
        rows.append([attribute, count, *cells])
    return markdown_table(["attribute", "objects", *(r.label for r in runs)], rows)


def write(folders: list[Path], out: Path, *, protocol: str | None = None, attributes: Path | None = None) -> Path:
    """Write report.md and its figures; the first run is the one that others are compared with."""
    runs = open_runs(folders, protocol)
    by_attribute = _breakdown(runs, attributes)  # before anything is written
    out.mkdir(parents=True, exist_ok=True)
    dataset = runs[0].manifest["dataset"]
    parts = [
        f"# {dataset['name']}, protocol {runs[0].protocol}",
        f"{len(dataset['videos'])} videos, {len(runs[0].objects)} scored objects.",
        "## Scores",
        _results(runs),
    ]
    if len(runs) > 1:
        parts += [
            "## Differences",
            "Paired bootstrap over videos (10,000 resamples) of the mean over objects, in points. Objects weigh "
            "equally here "
            "also where the protocol averages groups.",
            _differences(runs),
            "![each video](scatter.png)",
        ]
        report_figures.scatter(runs, out / "scatter.png")
    if "score" in runs[0].frames.columns and len(runs[0].frames):
        report_figures.over_time(runs, out / "time.png")
        parts += ["## Does it decay?", "Score against frames since the prompt.", "![score over time](time.png)"]
    if "gt_area" in runs[0].frames.columns and report_figures.after_absence(runs, out / "absence.png"):
        parts += [
            "## Does it know that the object is gone, and find it again?",
            "`after a return`: mean score of the first ten frames back; `until gone again`: of all frames back.",
            _presence(runs) or "",
            "Score in the first ten frames after an absence, by the absence's length.",
            "![score after absence](absence.png)",
        ]
    parts += ["## By attribute", by_attribute, "## Runs"]
    for r in runs:
        t = r.manifest["tracker"]
        parts.append(
            f"- `{r.label}`: {t['method']}, model {Path(t['model']).name}, settings {json.dumps(t['sam2long'])}, "
            f"checkpoint sha256 {str(r.manifest['checkpoint_sha256'])[:12]}, commit {str(r.manifest['commit'])[:12]}"
        )
    path = out / "report.md"
    pngs.write_whole(path, ("\n\n".join(parts) + "\n").encode())
    return path

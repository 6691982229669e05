"""The ablation script: equal settings once, one page with tables and figures, and what goes into README and demo."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from eval import report
from eval.report import Run
from eval.trackers import TrackerSpec
from sam2long.errors import ConfigError
from sam2long.models import figures

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import ablate
import ablation_page
import ablation_tables
import headline


def tables():
    return [ablation_tables.read_table(path, TrackerSpec()) for path in sorted(ablation_tables.TABLES.glob("*.yaml"))]


def test_every_table_is_readable_and_holds_the_default():
    names = {
        "headline",
        "pathways",
        "iou_threshold",
        "certainty_threshold",
        "modulation",
        "selection",
        "twins",
        "image_size",
    }
    assert {t.name for t in tables()} == names
    defaults = [v.spec for t in tables() for v in t.variants if v.spec == TrackerSpec()]
    assert len(defaults) == 8  # each table holds the default, and it is the same run
    pathways = next(t for t in tables() if t.name == "pathways")
    assert [v.spec.sam2long for v in pathways.variants] == [
        {},
        {"num_pathways": 1},
        {"num_pathways": 2},
        {},
        {"num_pathways": 4},
    ]


def test_every_table_has_something_to_compare_with():
    for table in tables():
        assert table.compared_with() is not None, table.name
    (head,) = [t for t in tables() if t.name == headline.TABLE]
    assert head.compared_with().spec.method == "sam2"


def test_equal_settings_of_different_tables_are_one_run(tmp_path):
    specs = [v.spec for table in tables() for v in table.variants]
    folders = {ablate.run_folder(tmp_path, spec) for spec in specs}
    assert len(folders) < len(specs)
    defaults = {ablate.run_folder(tmp_path, t.compared_with().spec) for t in tables() if t.reference is None}
    assert len(defaults) == 1
    of_the_headline = {
        ablate.run_folder(tmp_path, v.spec) for t in tables() if t.name == headline.TABLE for v in t.variants
    }
    others = {ablate.run_folder(tmp_path, v.spec) for t in tables() if t.name != headline.TABLE for v in t.variants}
    assert of_the_headline <= others  # the README's table costs nothing more


def run_with(tmp_path, records):
    (tmp_path / "videos").mkdir()
    for i, record in enumerate(records):
        content = {"video": str(i), "frames": 10, "objects": 1, "seconds": 2.0, "peak_memory_bytes": 2**30}
        (tmp_path / "videos" / f"{i}.json").write_text(json.dumps(content | record))
    return Run(tmp_path, "sav")


def test_shares_are_of_all_object_frames(tmp_path):
    trees = [{"tracked": 10, "uncertain": 5, "diverged": 1}, {"tracked": 30, "uncertain": 5, "diverged": 3}]
    run = run_with(tmp_path, [{"tree": tree} for tree in trees])
    assert ablation_page.tree_shares(run) == {"uncertain %": 25.0, "diverged %": 10.0}


def test_shared_seconds_are_nobodys_speed(tmp_path):
    run = run_with(tmp_path, [{"settings": 27}, {"settings": 1}, {}])
    assert report._speed(run) == ("5.0", "1.00")  # the two that ran alone
    (tmp_path / "other").mkdir()
    assert report._speed(run_with(tmp_path / "other", [{"settings": 27}])) == ("-", "-")


def test_shared_seconds_are_counted_once(tmp_path):
    runs = []
    for name in "ab":
        (tmp_path / name).mkdir()
        runs.append(run_with(tmp_path / name, [{"settings": 2, "seconds": 120.0}]))
    (tmp_path / "c").mkdir()
    runs.append(run_with(tmp_path / "c", [{"seconds": 60.0}]))
    assert ablation_page.took(runs) == (
        "Tracking took 3 process-minutes: 2 for the settings that went over the videos together, 1 for the others."
    )


def test_a_readme_without_a_place_for_the_table_is_left_alone(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("nothing here\n")
    with pytest.raises(ConfigError, match="no place for the table"):
        headline.write_readme(readme, tmp_path)
    assert readme.read_text() == "nothing here\n"


def test_the_demos_figures_are_of_a_whole_set_only(tmp_path, capsys):
    options = ["--dataset", "synthlong", "--frames", "3", "--out", str(tmp_path), "--summary", str(tmp_path / "s.json")]
    assert ablate.main(options) == 2
    assert "a whole data set" in capsys.readouterr().err
    assert ablate.main(["--dataset", "synthlong", "--out", str(tmp_path), "--readme", "README.md"]) == 2
    assert "with --summary FILE" in capsys.readouterr().err
    assert ablate.main(["--dataset", "synthlong", "--out", str(tmp_path), "--first", "1"]) == 2
    assert "something to compare" in capsys.readouterr().err


def summary(folder, dataset, weights, score):
    rows = [{"variant": "plain SAM 2", "score": 40.0}, {"variant": "ours", "score": score, "difference": score - 40,
            "low": -1.5, "high": 5.25}]  # fmt: skip
    content = {"dataset": dataset, "videos": 3, "variants": rows, "weights_sha256": weights, "command": "run it",
               "commit": "0123456789", "machine": "a machine", "date": "2030-01-02"}  # fmt: skip
    (folder / f"{dataset}.json").write_text(json.dumps(content))


def test_the_readme_shows_all_data_sets_of_the_same_weights_side_by_side(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{headline.BEGIN}\nold\n{headline.END}\nafter\n")
    measured = tmp_path / "measured"
    measured.mkdir()
    summary(measured, "synthlong", "abc", 42.0)
    summary(measured, "davis16-val", "abc", 43.5)
    headline.write_readme(readme, measured)
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| davis16-val (3 videos) | synthlong (3 videos) |" in text
    assert "| ours | 43.5, +3.50 [-1.50, +5.25] | 42.0, +2.00 [-1.50, +5.25] |" in text and "0123456" in text
    summary(measured, "davis-long", "other weights", 42.0)
    with pytest.raises(ConfigError, match="of different weights"):
        headline.write_readme(readme, measured)
    assert readme.read_text() == text


def test_nothing_to_report_yet_is_said(tmp_path, capsys):
    assert ablate.main(["--dataset", "synthlong", "--out", str(tmp_path), "--report-only"]) == 2
    assert "no video is finished" in capsys.readouterr().err
    headline_table = next(t for t in tables() if t.name == headline.TABLE)
    ours = [ablate.run_folder(tmp_path, v.spec) for v in headline_table.variants if v.spec.method == "sam2long"]
    for folder in ours:
        (folder / "videos").mkdir(parents=True)
        (folder / "videos/long_00.json").touch()
    options = ["--dataset", "synthlong", "--out", str(tmp_path), "--report-only", "--tables", "headline"]
    assert ablate.main(options) == 2
    assert "nothing can be compared yet" in capsys.readouterr().err


@pytest.mark.slow
def test_one_command_gives_page_figures_and_summary(tmp_path):
    options = ["--dataset", "synthlong", "--videos", "easy_00,twins_00", "--size", "64", "--frames", "6",
               "--device", "cpu", "--tables", "headline,twins", "--docs", str(tmp_path / "docs"),
               "--out", str(tmp_path / "out")]  # fmt: skip
    assert ablate.main(options) == 0
    page = (tmp_path / "docs/ablations.md").read_text()
    assert "![Twins](ablations/twins.png)" in page
    assert (tmp_path / "docs/ablations/twins.png").stat().st_size < 100_000
    rows = pd.read_csv(tmp_path / "docs/ablations/twins.csv")
    assert rows["difference"].isna().tolist() == [True, False]
    rows = pd.read_csv(tmp_path / "docs/ablations/headline.csv")
    assert (rows["score"] > 20).all() and rows["uncertain %"].notna().sum() == len(rows) - 1
    assert ablate.main(options) == 0  # nothing is run again

    (head,) = [t for t in tables() if t.name == headline.TABLE]
    lacks = ablate.run_folder(tmp_path / "out", _on_cpu(head.variants[1].spec))
    (lacks / "videos/twins_00.json").rename(lacks / "hidden.json")
    unrun = ablate.run_folder(tmp_path / "out", _on_cpu(head.variants[2].spec))
    unrun.rename(tmp_path / "elsewhere")
    assert ablate.main([*options, "--report-only"]) == 0
    page = (tmp_path / "docs/ablations.md").read_text()
    assert ": 1 videos, size 64" in page
    assert f"Not run, or not far enough to be compared: SAM 2 and SAM2Long: {head.variants[2].name}." in page
    (lacks / "hidden.json").rename(lacks / "videos/twins_00.json")
    (tmp_path / "elsewhere").rename(unrun)

    specs = {v.name: ablate.run_folder(tmp_path / "out", _on_cpu(v.spec)) for v in head.variants}
    runs = {name: Run(folder, "sav") for name, folder in specs.items()}
    headline.write_summary(tmp_path / "s.json", head, runs, "command")
    from sam2long.weights import CHECKPOINTS

    (shown,) = figures.lines(CHECKPOINTS["nano"].fetch(), ["s"], tmp_path)
    assert shown.startswith("mean over the 2 videos of s: SAM 2 ")
    rows = json.loads((tmp_path / "s.json").read_text())["variants"]
    assert [row["variant"] for row in rows] == [v.name for v in head.variants] and rows[0].get("difference") is None


def _on_cpu(spec):
    from dataclasses import replace

    return replace(spec, device="cpu")

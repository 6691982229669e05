"""The measuring scripts run and say what they measured; the figures themselves are not tested."""

import importlib.util
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from sam2long.network.mobilesam import mobilesam
from sam2long.tracking import redraw

SCRIPTS = Path(__file__).parents[1] / "scripts"


sys.path.insert(0, str(SCRIPTS))


def script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_the_verdict_of_a_soak_knows_growth_from_noise():
    soak = script("soak")
    noise = [1, -1, 2, -2, 0] * 12
    minutes = pd.DataFrame({name: 100.0 for name in soak.WATCHED} | {"minute": range(60)})
    minutes["MiB"] = [1000 + 40 * (minute < 10) + 3 * n for minute, n in enumerate(noise)]
    minutes["descriptors"] = [20 + minute // 10 for minute in range(60)]
    minutes["threads"] = [20 + 4 * minute / 60 for minute in range(60)]
    found = soak.verdict(minutes)
    assert {name for name, of in found.items() if not of["flat"]} == {"descriptors", "threads"}
    assert found["threads"]["an hour"] == pytest.approx(4)


@pytest.mark.slow
def test_soak(tmp_path, monkeypatch, capsys):
    pytest.importorskip("fastapi")
    pytest.importorskip("psutil")
    soak = script("soak")
    monkeypatch.setattr(soak, "FRAMES", 6)
    soak.main(["--minutes", "0", "--every", "0", "--trace", "--out", str(tmp_path)])
    table = pd.read_csv(tmp_path / "soak.csv")
    assert len(table) > 1 and (table[["MiB", "malloc in use, MiB", "descriptors", "threads"]] > 0).all(axis=None)
    assert "exit code 0" in (tmp_path / "server.txt").read_text()
    assert set(json.loads((tmp_path / "soak.json").read_text())["growth"]) == set(soak.WATCHED)
    assert "malloc in use" in capsys.readouterr().out


def test_made_up_numbers_are_numbers_when_they_come_packed_as_bytes():
    """As zeros they would say that every object is away, and all pathways would be the same."""
    answer = script("count").made_up()
    numbers = answer(torch.empty(32, dtype=torch.uint8)).view(torch.float32)
    assert ((numbers >= 0.5) & (numbers <= 0.95)).all() and len(numbers.unique()) == 8


@pytest.mark.slow
def test_count(tmp_path, capsys):
    """Ratios of counts are the same on every machine."""
    count = script("count")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{count.BEGIN}\nold\n{count.END}\nafter\n")
    assert count.main(["--models", "nano", "--objects", "2", "--size", "256", "--docs", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text and "|nano, 2|" in text
    cells = [[cell.strip(" ×") for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()[2:]]
    batch = {row[3]: int(row[4]) for row in cells}
    kernels, flops, gigabytes, peak = ({row[3]: float(row[at]) for row in cells} for at in range(5, 9))
    assert kernels["agree"] < 0.7 and flops["agree"] < 1.0
    assert batch == {"plain sam2": 2, "agree": 2, "distinct": 6, "distinct, sparse": 6}
    assert flops["distinct"] > 1.8 * flops["agree"] and gigabytes["distinct"] > 1.5 * gigabytes["agree"]
    assert peak["distinct"] > 1.1 * peak["agree"], "three banks are held"
    assert flops["agree"] < flops["distinct, sparse"] < flops["distinct"]
    with pytest.raises(SystemExit):
        count.main(["--docs", str(tmp_path / "page.md"), "--models", "none"])


@pytest.mark.slow
def test_bench(tmp_path, monkeypatch):
    bench = script("bench")
    names = ("ours, all off", "distinct", "distinct, sparse", "default")
    monkeypatch.setattr(bench, "CONFIGS", {n: bench.CONFIGS[n] for n in names})
    arguments = ["--models", "nano", "--synthlong", "2", "--objects", "2", "--frames", "17", "--threads", "1"]
    arguments += ["--out", str(tmp_path)]
    assert bench.main(arguments) == 0
    table = pd.read_csv(tmp_path / "bench.csv").set_index("system")
    assert list(table.index) == ["plain sam2", *names]
    assert table.loc["plain sam2", "times sam2"] == 1
    assert table.loc["distinct", "rows per frame"] > table.loc["ours, all off", "rows per frame"] == 2
    shares = table.loc["distinct", [c for c in table.columns if c.startswith("% ") and c != "% overhead"]]
    assert 70 < shares.sum() <= 100 and (shares[["% encoder", "% memory read", "% decoder"]] > 1).all()
    assert (tmp_path / "bench.png").stat().st_size > 5000
    with pytest.raises(SystemExit):
        bench.main(["--frames", "3"])


def test_long_videos_come_and_go():
    video = script("bench_long").LongVideo(2000)
    assert (video[3] == video[3 + 298]).all() and (video[499] != video[500]).any()
    assert [video.absent(t) for t in (499, 500, 1499, 1500)] == [False, True, True, False]
    assert all(video.mask(obj_id).any() for obj_id in (1, 2, 3))


@pytest.mark.slow
def test_gpu_day_runs_on_a_cpu(tmp_path, capsys):
    """So that the day is not spent on typing errors."""
    day = script("gpu_day")
    assert day.main(["--device", "cpu", "--tiny", "--dtype", "float32", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "gpu_day.json").read_text())
    assert list(found["steps"]) == ["promises", "tests", "speed of nano, 1 objects", "float16", "memory"]
    systems = {row["system"]: row for row in found["steps"]["speed of nano, 1 objects"]["systems"]}
    assert {"plain sam2", "agree", "distinct", "distinct, sparse", "default"} <= set(systems)
    assert systems["plain sam2"]["times sam2"] == 1
    assert systems["distinct"]["rows per frame"] > systems["agree"]["rows per frame"] == 1
    assert found["steps"]["promises"]["lines"][0] == "not asked: the CPU's masks in float32: this is the CPU"
    assert "not asked: at most 4 copies a frame, one object: cpu is no CUDA device" in capsys.readouterr().out
    assert "distinct, sparse" in (tmp_path / "gpu_day.md").read_text()
    assert day.main(["--device", "cpu", "--tiny", "--minutes", "-1", "--out", str(tmp_path)]) == 0
    assert all("not run" in step for step in json.loads((tmp_path / "gpu_day.json").read_text())["steps"].values())


def test_promises_are_judged_by_what_the_profiler_names():
    script("bench")
    promises = script("promises")
    names = ["cudaEventSynchronize"] * 4 + ["cudaLaunchKernel"] * 900 + ["Memcpy DtoD (Device -> Device)"] * 8
    names += ["Memcpy HtoD (Pinned -> Device)"] * 4 + ["Memcpy DtoH (Device -> Pinned)"] * 8
    assert promises.Traced.of(names, 4) == promises.Traced(waits=1, copies=3, pageable=0)
    stray = [*names, *["cudaStreamSynchronize"] * 4, *["Memcpy DtoH (Device -> Pageable)"] * 8]
    assert promises.Traced.of(stray, 4) == promises.Traced(waits=2, copies=5, pageable=2)
    assert str(promises.Promise("few copies", False, "5.00")) == "BROKEN: few copies: 5.00"


def test_promises_on_a_card(monkeypatch):
    """The masks are compared, and what is counted is judged: on a pretended device, without its profiler."""
    from tests.rehearsal.device import PretendedCuda

    script("bench")
    promises = script("promises")
    monkeypatch.setattr(redraw, "quick_encoder", lambda device: mobilesam(device).encoder)  # no bfloat16
    monkeypatch.setattr(promises, "trace", lambda *_: promises.Traced(waits=1, copies=5, pageable=0))
    with PretendedCuda():
        alike = promises.masks_alike("nano", "cuda:0", frames=3)
        lines = promises.counted("nano", "cuda:0", 5, 4)
    assert alike.kept and alike.said == "100.00 % of the pixels of the worst of 3 frames"
    assert [each.kept for each in lines] == [True, False, True]


def test_gpu_day_without_a_gpu_says_how_to_try_it(monkeypatch, capsys, tmp_path):
    day = script("gpu_day")
    monkeypatch.setattr(day.torch.cuda, "is_available", lambda: False)
    assert day.main(["--out", str(tmp_path / "out")]) == 2
    assert "--device cpu --tiny" in capsys.readouterr().err and not (tmp_path / "out").exists()

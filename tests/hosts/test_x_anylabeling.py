"""Starting X-AnyLabeling: a stand-in with its entry point asks for what it asks for, as it asks for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sam2long.cli import main
from tests.fakes import TINY

STAND_IN = f"""
import json, sys
import numpy as np

def main():
    from sam2.build_sam import build_sam2, build_sam2_camera_predictor  # as X-AnyLabeling has it

    predictor = build_sam2_camera_predictor({str(TINY)!r}, None, device="cpu", apply_postprocessing=False)
    images = np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), dtype=np.uint8)
    predictor.load_first_frame(images[0])
    predictor.add_new_prompt(frame_idx=0, obj_id=1, bbox=np.array([[4, 4], [30, 40]]))
    predictor.add_new_prompt(frame_idx=0, obj_id=2, points=np.array([[50, 20]], np.float32), labels=np.array([1]))
    said = []
    for image in images[1:]:
        ids, logits = predictor.track(image)
        said.append([list(ids), list(logits.shape), list(logits[0].cpu().numpy()[0].shape)])
    predictor.reset_state()
    print(json.dumps({{"argv": sys.argv, "said": said, "module": type(predictor).__module__}}))
    return 7
"""


@pytest.fixture
def installed(tmp_path):
    """An environment in which something is installed under X-AnyLabeling's entry point."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    info = tmp_path / "stand_in-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stand-in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[console_scripts]\nxanylabeling = stand_in:main\n")
    root = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)]), "OMP_NUM_THREADS": "1"}


def test_the_program_finds_our_camera_predictor_in_sam2(installed):
    done = subprocess.run(
        [sys.executable, "-m", "sam2long.cli", "x-anylabeling", "--filename", "frames", "--no-auto-update-check"],
        env=installed, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["argv"] == ["xanylabeling", "--filename", "frames", "--no-auto-update-check"]
    assert found["module"] == "sam2long.camera"
    assert found["said"] == [[[1, 2], [2, 1, 48, 64], [48, 64]]] * 3


def test_without_x_anylabeling_it_says_how_to_install_it(capsys, monkeypatch):
    from sam2long.hosts import x_anylabeling

    monkeypatch.setattr(x_anylabeling, "entry_points", lambda **_: ())
    assert main(["x-anylabeling", "--filename", "x"]) == 2
    said = capsys.readouterr().err
    assert "pip install x-anylabeling-cvhub" in said and said.count("\n") == 1


def test_our_package_has_no_import_of_it():
    root = Path(__file__).parents[2] / "sam2long"
    assert not [path for path in root.rglob("*.py") if "import anylabeling" in path.read_text(encoding="utf-8")]

"""Photographs with more and better masks, to train on."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from nano import relabel  # noqa: E402
from nano.photos import VOID, Photo  # noqa: E402

from sam2long.network.mobilesam import mobilesam  # noqa: E402

H, W = 240, 320


def disc(x, y, radius):
    yy, xx = np.mgrid[:H, :W]
    return (xx - x) ** 2 + (yy - y) ** 2 < radius**2


RED, BLUE = disc(90, 100, 40), disc(240, 140, 35)


@pytest.fixture(scope="module")
def image():
    picture = np.random.default_rng(0).integers(90, 110, (H, W, 3), dtype=np.uint8)
    picture[RED], picture[BLUE] = (220, 30, 30), (30, 30, 220)
    return picture


def rough(mask):
    """As a polygon has it: without a side."""
    mask = mask.copy()
    mask[:, : np.where(mask.any(0))[0][0] + 8] = False
    return mask


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def drawn(name, image, ids):
    return relabel.drawn(mobilesam(torch.device("cpu")), Photo(name, image, ids))


def test_a_rough_mask_is_drawn_anew_and_what_is_not_marked_is_found(image):
    marked = np.zeros((H, W), np.uint8)
    marked[rough(RED)] = 7
    ids, counts = drawn("one_1", image, marked)
    assert counts == {"anew": 1, "kept": 0, "found": 1}
    assert iou(ids == 1, RED) > 0.95 > iou(marked > 0, RED)
    assert iou(ids == 2, BLUE) > 0.9


def test_where_all_is_marked_nothing_is_looked_for(image):
    marked = np.zeros((H, W), np.uint8)
    marked[rough(RED)] = 1
    assert drawn("all_1", image, marked)[0].max() == 1


def test_what_means_something_else_stays_as_it_is_marked(image):
    marked = np.zeros((H, W), np.uint8)
    marked[100:140, 20:160] = 1  # half of the disc, and its sides
    marked[200:220, 10:60] = VOID
    ids, counts = drawn("all_1", image, marked)
    assert counts["kept"] == 1 and np.array_equal(ids, marked)


def test_objects_do_not_take_from_each_other(image):
    marked = np.zeros((H, W), np.uint8)
    marked[RED] = 1
    marked[80:100, 80:100] = 2  # something small on it
    ids, _ = drawn("all_1", image, marked)
    assert (ids[80:100, 80:100] == 2).all()


def test_a_folder_is_written_again_and_what_is_there_stays(tmp_path, image):
    source = tmp_path / "mine"
    for folder in ("images", "masks"):
        (source / folder).mkdir(parents=True)
    marked = np.zeros((H, W), np.uint8)
    marked[rough(RED)] = 1
    for name in ("a", "b"):
        Image.fromarray(image).save(source / "images" / f"{name}.png")
        Image.fromarray(marked).save(source / "masks" / f"{name}.png")
    there = tmp_path / "better" / "mine" / "masks" / "b.png"
    there.parent.mkdir(parents=True)
    Image.fromarray(marked).save(there)
    said = "--photos", str(source), "--to", str(tmp_path / "better")
    command = [sys.executable, "scripts/train_nano.py", "relabel", *said]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "'anew': 1" in done.stdout
    assert iou(np.array(Image.open(there.with_name("a.png"))) == 1, RED) > 0.95
    assert np.array_equal(np.array(Image.open(there)), marked)
    assert {each.name for each in (there.parents[1] / "images").iterdir()} == {"a.png"}

"""Masks that others have written as numbers: the same as pycocotools reads, and no crash on what does not fit."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco

from sam2long.errors import DataError
from sam2long.export.masks import encode_mask, run_lengths
from sam2long.imports import read_prompts
from sam2long.imports.areas import from_polygons, from_run_lengths
from sam2long.json_file import read_json


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (240, 400)])
def test_run_lengths_are_read_as_they_were_written(size, share):
    mask = np.random.default_rng(3).random(size) < share
    assert np.array_equal(from_run_lengths(encode_mask(mask), "here"), mask)
    listed = {"size": list(size), "counts": run_lengths(mask.ravel(order="F"))}
    assert np.array_equal(from_run_lengths(listed, "here"), mask)
    large = np.zeros((2000, 3000), bool)
    large[500:1500, 1000:1500] = True
    assert np.array_equal(from_run_lengths(encode_mask(large), "here"), large)


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"size": [400, 400], "counts": "5"}, "run lengths are of 5 pixels and the size of 160000"),
        ({"size": [4, 4], "counts": ""}, "of 0 pixels"),
        ({"size": [4, 4], "counts": encode_mask(np.ones((40, 40), bool))["counts"]}, "of 1600 pixels"),
        ({"size": [4, 4], "counts": "o" * 40}, "not COCO run lengths"),
        ({"size": [4, 4], "counts": "é"}, "not COCO run lengths"),
        ({"size": [4, 4], "counts": "Q"}, "not COCO run lengths"),  # a number that goes on, and does not
        ({"size": [4, 4], "counts": [-5, 21]}, "not COCO run lengths"),
        ({"size": [4, 4], "counts": [1.5, 14.5]}, "not COCO run lengths"),
        ({"size": [4, 4], "counts": None}, "not COCO run lengths"),
        ({"size": [100_000, 100_000], "counts": "0"}, "too large"),
        ({"size": [4, True], "counts": "0"}, "size is 4 x True"),
        ({"size": 4, "counts": "0"}, "size is 4"),
        ({"counts": "0"}, "size is None"),
    ],
)
def test_run_lengths_that_do_not_fit_are_refused(rle, message):
    with pytest.raises(DataError, match=f"here: .*{message}"):
        from_run_lengths(rle, "here")


def test_polygons_are_filled_as_pycocotools_fills_them():
    polygons = [[2, 2, 10, 2, 10, 10, 2, 10], [12.5, 3, 18, 9, 12, 15]]
    expected = coco.decode(coco.merge(coco.frPyObjects(polygons, 20, 30))) > 0
    assert np.array_equal(from_polygons(polygons, 20, 30, "here"), expected)


@pytest.mark.parametrize(
    ("polygon", "size"),
    [
        ([1, 1, 9, 9], (20, 30)),
        ([1, 1, 9, 9, 1], (20, 30)),
        ([1, 1, 9, 9, 1, float("nan")], (20, 30)),
        ([1, 1, 9, 9, 1, 1e300], (20, 30)),
        ([1, 1, 9, 9, 1, "9"], (20, 30)),
        ("polygon", (20, 30)),
        ([1, 1, 9, 9, 1, 9], (48_000_000, 6_400_000)),
        ([1, 1, 9, 9, 1, 9], (None, 30)),
    ],
)
def test_polygons_that_are_none_are_refused(polygon, size):
    with pytest.raises(DataError, match="here: "):
        from_polygons([polygon], *size, "here")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "too deep"),
        (b"[1" + b"9" * 5000 + b"]", "4300"),
        (b"", "not JSON"),
        (b'{"a": "\xe9"}', "not JSON"),
    ],
)
def test_json_that_cannot_be_read_is_one_sentence(tmp_path, data, message):
    (tmp_path / "00000.json").write_bytes(data)
    with pytest.raises(DataError, match=message) as error:
        read_prompts(tmp_path / "00000.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_as_windows_writes_it(tmp_path, encoding):
    (tmp_path / "a.json").write_text(json.dumps({"label": "é狗"}, ensure_ascii=False), encoding=encoding)
    assert read_json(tmp_path / "a.json", "anything") == {"label": "é狗"}

"""masks.jsonl while it is being written."""

import json

import numpy as np
import pytest

from sam2long.errors import DataError
from sam2long.export.masks import MaskReader, MaskWriter, decode_mask, encode_mask
from sam2long.known import Row
from sam2long.ui.store import MaskStore, overlap

HEADER = {"video": "v.mp4", "height": 6, "width": 8, "objects": {"1": "dog"}}


def square(at):
    mask = np.zeros((6, 8), bool)
    mask[1:4, at : at + 2] = True
    return mask


def opened(path, header=HEADER):
    return MaskStore(path, header, lambda frame: (frame, frame / 25))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "masks.jsonl"


def test_the_last_mask_of_a_frame_counts_here_and_for_other_readers(path):
    store = opened(path)
    store.put(3, {1: encode_mask(square(0)), 2: encode_mask(square(5))}, {1: Row(), 2: Row(iou=0.5)})
    store.put(3, {1: encode_mask(square(2))}, {1: Row(iou=0.25, prompted=True)})
    for reader in (store, opened(path)):
        found = {obj_id: decode_mask(rle) for obj_id, rle in reader.masks(3).items()}
        assert (found[1] == square(2)).all() and (found[2] == square(5)).all()
        assert reader.row(3, 1) == Row(iou=0.25, prompted=True, object_logit=reader.row(3, 1).object_logit)
        assert reader.row(3, 2).iou == 0.5
    with MaskReader(path) as masks:
        assert (masks.masks(3)[1] == square(2)).all()


def test_a_line_torn_by_a_kill_is_left_out_and_written_over(path):
    store = opened(path)
    for frame in (0, 1):
        store.put(frame, {1: encode_mask(square(frame))}, {1: Row()})
    store.close()
    path.write_bytes(path.read_bytes()[:-20])
    again = opened(path)
    assert again.frames() == [0]
    again.put(2, {1: encode_mask(square(2))}, {1: Row()})
    assert opened(path).frames() == [0, 2]


def test_a_full_disk_leaves_no_half_line_in_the_way(path, monkeypatch):
    store = opened(path)
    store.put(0, {1: encode_mask(square(0))}, {1: Row()})

    def full(self, record):
        self._file.write(json.dumps(record)[:30])
        self._file.flush()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(MaskWriter, "_add", full)
        with pytest.raises(OSError, match="No space"):
            store.put(1, {1: encode_mask(square(1))}, {1: Row()})
    store.put(2, {1: encode_mask(square(2))}, {1: Row()})
    assert store.frames() == opened(path).frames() == [0, 2]
    assert (decode_mask(store.mask(2, 1)) == square(2)).all()


def test_a_dropped_mask_stays_dropped_also_after_a_kill(path):
    store = opened(path)
    store.put(0, {1: encode_mask(square(0)), 2: encode_mask(square(4))}, {1: Row(), 2: Row()})
    store.drop_frame(1, 0)
    again = opened(path)  # nothing was closed
    assert list(again.masks(0)) == [2]
    again.tidy()
    assert [list(json.loads(line)["objects"]) for line in path.read_text().splitlines()[1:]] == [["2"]]


def test_dropping_an_object_leaves_the_masks_of_the_others(path):
    store = opened(path)
    for frame in range(3):
        store.put(frame, {1: encode_mask(square(0)), 2: encode_mask(square(frame))}, {1: Row(), 2: Row(iou=frame / 4)})
    store.drop(1)
    assert [decode_mask(store.mask(frame, 2)).tolist() for frame in range(3)] == [square(f).tolist() for f in range(3)]
    assert store.rows(2)[2].iou == 0.5
    assert store.masks(0).keys() == {2}


def test_new_names_reach_the_first_line(path):
    store = opened(path)
    store.put(0, {1: encode_mask(square(0))}, {1: Row()})
    renamed = {**HEADER, "objects": {"1": "cat"}}
    store.set_header(renamed)
    store.tidy()
    with MaskReader(path) as masks:
        assert masks.header["objects"] == {"1": "cat"}
        assert (masks.masks(0)[1] == square(0)).all()
    opened(path, {**HEADER, "objects": {"1": "horse"}}).tidy()  # killed before it was tidied
    with MaskReader(path) as masks:
        assert masks.header["objects"] == {"1": "horse"}


def test_many_replaced_lines_are_cleared_away(path, monkeypatch):
    monkeypatch.setattr("sam2long.ui.store.WASTE_LINES", 3)
    store = opened(path)
    for at in range(6):
        store.put(0, {1: encode_mask(square(at))}, {1: Row()})
    store.tidy()
    assert len(path.read_text().splitlines()) == 2
    assert (decode_mask(store.mask(0, 1)) == square(5)).all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"format": "other"}\n', "not a masks.jsonl"),
        ('{"format": "sam2long-masks", "version": 1, "height": 9, "width": 8}\n', "8 x 9 pixels"),
        ('{"format": "sam2long-masks", "version": 1, "height": 6, "width": 8}\nnonsense\n{}\n', "broken in line 2"),
    ],
)
def test_what_is_no_store_is_refused_and_left_as_it_is(path, content, words):
    path.write_text(content)
    with pytest.raises(DataError, match=words):
        opened(path)
    assert path.read_text() == content


def test_overlap_is_iou_and_two_empty_masks_are_the_same():
    empty, one = encode_mask(np.zeros((12, 30), bool)), np.zeros((2, 12, 30), bool)
    one[0, 2:8, 3:9] = one[1, 2:8, 6:12] = True
    left, right = map(encode_mask, one)
    assert overlap(left, left) == 1 == overlap(empty, empty)
    assert overlap(left, right) == pytest.approx(1 / 3) and overlap(left, empty) == 0

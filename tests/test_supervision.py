"""Results as supervision's detections."""

import numpy as np
import pytest
import torch

from sam2long import to_supervision
from sam2long.errors import DataError

sv = pytest.importorskip("supervision", reason='supervision is not installed: pip install ".[supervision]"')


def logits():
    masks = torch.full((3, 1, 20, 30), -4.0)
    masks[0, 0, 2:5, 10:16] = 3.0
    masks[2, 0, 8:18, 1:4] = 0.5
    return masks


def test_detections_have_ids_boxes_masks_and_names():
    found = to_supervision([4, 5, 9], logits(), labels={4: "dog", 5: "cat", 9: "cat"})
    assert len(found) == 2, "object 5 is not seen"
    assert found.tracker_id.tolist() == [4, 9]
    assert found.class_id.tolist() == [0, 1] and found.data["class_name"].tolist() == ["dog", "cat"]
    assert found.xyxy.tolist() == [[10, 2, 15, 4], [1, 8, 3, 17]]
    np.testing.assert_array_equal(found.mask[0], (logits()[0, 0] > 0).numpy())
    annotated = sv.MaskAnnotator().annotate(np.zeros((20, 30, 3), np.uint8), found)
    assert annotated[3, 12].any() and not annotated[0, 0].any()


def test_nothing_seen_and_plain_masks():
    assert len(to_supervision([], np.zeros((0, 20, 30), bool))) == 0
    assert len(to_supervision([1], np.zeros((1, 20, 30), bool))) == 0
    assert to_supervision([1], np.ones((1, 20, 30), bool)).class_id.tolist() == [0]


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="2 ids"):
        to_supervision([1, 2], logits())
    with pytest.raises(DataError, match="integers"):
        to_supervision(["a", "b", "c"], logits())

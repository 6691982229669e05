import numpy as np
import pytest
import torch
from scipy import ndimage

from sam2long.network.masks import FILLED_LOGIT, boxes, fill_small_holes


def by_definition(logits, max_area):
    """Label with scipy, count, fill: what the fast version must equal."""
    out = logits.copy()
    for image in out[:, 0]:
        labels, count = ndimage.label(image <= 0, structure=np.ones((3, 3)))
        for label in range(1, count + 1):
            if (labels == label).sum() <= max_area:
                image[labels == label] = FILLED_LOGIT
    return out


@pytest.mark.parametrize("area", [1, 3, 8, 20])
@pytest.mark.parametrize("density", [0.3, 0.6, 0.8, 0.95])
def test_small_holes_are_filled_exactly(area, density):
    rng = np.random.default_rng(int(area * 100 + density * 10))
    logits = np.where(rng.random((3, 1, 40, 31)) < density, 2.0, -2.0).astype(np.float32)
    logits[rng.random(logits.shape) < 0.02] = 0.0  # zero counts as background
    assert np.array_equal(fill_small_holes(torch.from_numpy(logits), area).numpy(), by_definition(logits, area))


def test_a_snake_longer_than_the_limit_is_no_small_hole():
    logits = torch.ones(1, 1, 5, 12)
    logits[0, 0, 2, 1:10] = -1.0  # nine pixels
    assert torch.equal(fill_small_holes(logits, 8), logits)
    assert (fill_small_holes(logits, 9) > 0).all()


def test_no_area_fills_nothing():
    logits = torch.randn(1, 1, 8, 8)
    assert fill_small_holes(logits, 0) is logits


def test_boxes_are_those_around_what_is_marked():
    logits = torch.where(torch.rand(40, 3, 9, 7, generator=torch.Generator().manual_seed(0)) < 0.03, 1.0, -1.0)
    logits[0, 0], logits[0, 1] = -1.0, 1.0
    for row, found in zip(logits, boxes(logits), strict=True):
        for mask, box in zip(row, found.tolist(), strict=True):
            ys, xs = (mask > 0).nonzero(as_tuple=True)
            around = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0, 0, 0, 0]
            assert box == [float(end) for end in around]

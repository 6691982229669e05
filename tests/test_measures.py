"""J and F in plain numpy are those of the benchmarks' scorer."""

import numpy as np
import pytest

from eval.metrics.masks import region_and_boundary
from sam2long.cli.measures import boundary, j_and_f


def blob(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    cy, cx, r = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(2, max(shape) / 2)
    return (y - cy) ** 2 + (x - cx) ** 2 < r * r


@pytest.mark.parametrize("shape", [(128, 128), (40, 97), (9, 12)])
def test_they_are_the_scorers_numbers(shape):
    rng = np.random.default_rng(3)
    empty, full = np.zeros(shape, bool), np.ones(shape, bool)
    masks = [empty, full, *(blob(rng, shape) for _ in range(8)), rng.random(shape) < 0.5]
    for truth in masks:
        for found in masks:
            assert j_and_f(truth, found) == pytest.approx(tuple(region_and_boundary(truth, found)), abs=1e-12)


def test_by_hand():
    truth = np.zeros((10, 10), bool)
    truth[2:6, 2:6] = True
    found = np.zeros((10, 10), bool)
    found[2:6, 4:8] = True
    j, f = j_and_f(truth, found)
    assert j == 8 / 24
    assert 0 < f < 1
    assert j_and_f(truth, truth) == (1.0, 1.0)
    assert j_and_f(truth, np.zeros_like(truth)) == (0.0, 0.0)


def test_the_boundary_lies_up_and_left_of_the_edge():
    mask = np.zeros((4, 4), bool)
    mask[2, 2] = True
    assert np.argwhere(boundary(mask)).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]

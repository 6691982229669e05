import cv2
import numpy as np
import pytest

from eval.metrics import masks, mosev2
from tests.eval import direct


def square(shape, y0, y1, x0, x1):
    m = np.zeros(shape, bool)
    m[y0:y1, x0:x1] = True
    return m


FULL, EMPTY = np.ones((20, 30), bool), np.zeros((20, 30), bool)


def test_two_empty_masks_agree():
    assert masks.region_and_boundary(EMPTY, EMPTY) == (1.0, 1.0)


def test_two_full_frames_agree():
    assert masks.region_and_boundary(FULL, FULL) == (1.0, 1.0)


def test_full_frame_against_empty_has_no_overlap_but_equal_boundaries():
    assert masks.region_and_boundary(EMPTY, FULL) == (0.0, 1.0)
    assert masks.region_and_boundary(FULL, EMPTY) == (0.0, 1.0)


def test_object_against_empty_scores_nothing():
    obj = square((20, 30), 5, 9, 5, 9)
    assert masks.region_and_boundary(obj, EMPTY) == (0.0, 0.0)
    assert masks.region_and_boundary(EMPTY, obj) == (0.0, 0.0)


def test_object_against_full_frame_has_no_boundary_to_match():
    obj = square((20, 30), 5, 9, 5, 9)
    j, f = masks.region_and_boundary(obj, FULL)
    assert (j, f) == (16 / 600, 0.0)


def test_boundary_lies_half_a_pixel_to_the_origin():
    b = masks.boundary_map(square((5, 5), 2, 4, 2, 4).view(np.uint8))
    expected = [
        [0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 1, 0, 1, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ]
    assert b.tolist() == expected


def test_last_row_looks_right_only_and_last_column_down_only():
    m = np.zeros((3, 3), np.uint8)
    m[2, 2] = 1
    assert masks.boundary_map(m).tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 0]]


def test_integer_disk_holds_the_points_within_its_radius():
    assert masks.disk(1).tolist() == [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    assert (int(masks.disk(7).sum()), int(masks.disk(8).sum())) == (149, 197)


def test_a_disk_of_7_8_pixels_is_lopsided():
    kernel = masks.disk(7.8)
    assert kernel.shape == (17, 17)
    assert int(kernel.sum()) == 189
    assert not np.array_equal(kernel, kernel[::-1, ::-1])


def test_radius_is_the_rounded_up_share_of_the_diagonal():
    assert [masks.davis_radius(s) for s in ((480, 854), (720, 1280), (1080, 1920), (2160, 3840))] == [8, 12, 18, 36]


@pytest.mark.parametrize("seed", range(40))
def test_cropped_scores_equal_the_definition(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 40, 2))
    blobs = [rng.random(shape) < rng.choice([0.02, 0.5, 0.98]) for _ in range(2)]
    if seed % 3 == 0:  # solid shapes that touch an edge
        y, x = (int(rng.integers(0, s)) for s in shape)
        blobs = [square(shape, 0, y, x, shape[1]), square(shape, 0, y + 1, max(x - 1, 0), shape[1])]
    assert masks.region_and_boundary(*blobs) == direct.j_and_f(*blobs)


@pytest.mark.parametrize("radius", [1, 2, 3, 7, 8, 12, 18, 36, 0.9, 2.3, 5.57, 7.8, 11.75, 17.6])
@pytest.mark.parametrize("density", [0.0005, 0.01, 0.3])
def test_rectangle_sums_equal_dilation(radius, density, monkeypatch):
    rng = np.random.default_rng(int(radius * 100))
    of, to = ((rng.random((70, 90)) < density).astype(np.uint8) * 255 for _ in range(2))
    of[0, 0] = to[-1, -1] = to[0, -1] = 255
    dilated = cv2.countNonZero(cv2.bitwise_and(of, cv2.dilate(to, masks.disk(radius))))
    monkeypatch.setattr(masks, "DILATE_UP_TO", 0)
    assert masks.count_near(of, to, radius) == dilated


def test_a_disk_without_any_pixel_is_left_to_opencv(monkeypatch):
    monkeypatch.setattr(masks, "DILATE_UP_TO", 0)
    assert masks.reach(0.4).rectangles == ()
    of = np.eye(9, dtype=np.uint8)
    assert masks.count_near(of, of, 0.4) == cv2.countNonZero(of & cv2.dilate(of, masks.disk(0.4)))


def test_wrong_size_is_refused():
    with pytest.raises(ValueError, match="expected equal"):
        masks.counts(FULL, np.ones((20, 31), bool))


def test_ids_are_counted_without_the_background():
    assert masks.ids_in(np.array([[0, 3], [255, 3]], np.uint8)) == [3, 255]


def test_mosev2_one_false_pixel_on_an_empty_frame_costs_half():
    pred = square((50, 60), 5, 6, 5, 6)
    assert mosev2.scores(np.zeros((50, 60), bool), pred).J == 0.5
    pred = square((50, 60), 5, 15, 5, 15)
    assert round(mosev2.scores(np.zeros((50, 60), bool), pred).J, 4) == 0.0099


def test_mosev2_radius_shrinks_with_the_object_and_stops_at_the_limit():
    assert mosev2.radii(100, (720, 1280)) == (12, 1)
    assert mosev2.radii(401, (720, 1280)) == (12, 3)
    limit = 0.008 * masks.diagonal((720, 1280))
    assert mosev2.radii(500_000, (720, 1280)) == (limit, limit)
    assert mosev2.radii(0, (720, 1280)) == (limit, limit)

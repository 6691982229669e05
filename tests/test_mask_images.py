"""Mask images as programs really write them: cut-outs, void, colours, smoothed edges."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sam2long.errors import DataError, PromptError
from sam2long.export.pngs import davis_palette
from sam2long.imports import read_prompts
from sam2long.imports.images import masks_from_image
from tests.video_files import numbered_image

H, W = 48, 64
SQUARE = np.zeros((H, W), bool)
SQUARE[10:30, 10:30] = True
OTHER = np.zeros((H, W), bool)
OTHER[5:25, 40:60] = True


def found(path):
    return {prompt.obj_id: int(prompt.mask.sum()) for prompt in masks_from_image(path, 0)}


def ids_of(*pairs, dtype=np.uint8):
    labels = np.zeros((H, W), dtype)
    for value, mask in pairs:
        labels[mask] = value
    return labels


def palette_image(labels):
    image = Image.fromarray(labels)
    image.putpalette(davis_palette())
    return image


def bordered(labels):
    """A seam of 255 around every object, as VOC and DAVIS draw it."""
    inside = labels > 0
    padded = np.pad(inside, 1)
    grown = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return np.where(grown & ~inside, 255, labels).astype(np.uint8)


@pytest.mark.parametrize("hidden", [0, 255])
@pytest.mark.parametrize("visible", [0, 128, 255])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "soft"])
def test_the_opaque_part_of_a_cut_out_is_the_object(tmp_path, hidden, visible, mode):
    rgba = np.full((H, W, 4), hidden, np.uint8)
    rgba[SQUARE] = visible
    rgba[:, :, 3] = SQUARE * np.uint8(255)
    if mode == "soft":
        rgba[9, 10:30, 3], rgba[30, 10:30, 3] = 60, 100
    Image.fromarray(rgba).convert("LA" if mode in ("LA", "PA") else "RGBA").save(tmp_path / "cut.png")
    assert found(tmp_path / "cut.png") == {1: 400}


def test_a_cut_out_photograph_is_one_object_also_with_few_colours(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    cut = Image.fromarray(np.dstack([noise, SQUARE * np.uint8(255)]))
    cut.save(tmp_path / "cut.png")
    cut.quantize(200).save(tmp_path / "few.png")
    Image.fromarray(np.dstack([numbered_image(77, H, W), SQUARE * np.uint8(255)])).save(tmp_path / "number.png")
    assert found(tmp_path / "cut.png") == found(tmp_path / "number.png") == {1: 400}
    assert Image.open(tmp_path / "few.png").mode == "P" and found(tmp_path / "few.png") == {1: 400}


def test_alpha_that_is_the_same_everywhere_says_nothing(tmp_path):
    grey = SQUARE * np.uint8(255)
    Image.fromarray(np.dstack([grey, grey, grey, np.full((H, W), 255, np.uint8)])).save(tmp_path / "opaque.png")
    assert found(tmp_path / "opaque.png") == {1: 400}
    Image.fromarray(np.zeros((H, W, 4), np.uint8)).save(tmp_path / "clear.png")
    with pytest.raises(DataError, match="clear everywhere"):
        found(tmp_path / "clear.png")


def test_ids_on_a_clear_ground_stay_ids(tmp_path):
    image = palette_image(ids_of((1, SQUARE), (3, OTHER)))
    image.save(tmp_path / "ids.png", transparency=0)
    assert found(tmp_path / "ids.png") == {1: 400, 3: 400}


@pytest.mark.parametrize("write", [palette_image, Image.fromarray])
def test_255_beside_ids_is_void(tmp_path, write):
    write(bordered(ids_of((1, SQUARE), (2, OTHER)))).save(tmp_path / "void.png")
    assert found(tmp_path / "void.png") == {1: 400, 2: 400}
    write(bordered(ids_of((7, SQUARE)))).save(tmp_path / "one.png")
    assert found(tmp_path / "one.png") == {7: 400}


@pytest.mark.parametrize(("white", "dtype"), [(255, np.uint8), (65535, np.uint16), (255, np.uint16)])
def test_white_alone_is_the_object_and_no_id(tmp_path, white, dtype):
    labels = ids_of((white, SQUARE), dtype=dtype)
    Image.fromarray(labels).save(tmp_path / "white.png")
    assert found(tmp_path / "white.png") == {1: 400}
    if dtype == np.uint8:
        palette_image(labels).save(tmp_path / "palette.png")
        assert found(tmp_path / "palette.png") == {1: 400}


def test_void_of_16_bits(tmp_path):
    Image.fromarray(ids_of((300, SQUARE), (65535, OTHER), dtype=np.uint16)).save(tmp_path / "void.png")
    assert found(tmp_path / "void.png") == {300: 400}


def test_nothing_but_black_is_said(tmp_path):
    Image.fromarray(ids_of()).save(tmp_path / "black.png")
    with pytest.raises(PromptError, match="shows no object"):
        found(tmp_path / "black.png")


def coloured(*pairs):
    rgb = np.zeros((H, W, 3), np.uint8)
    for colour, mask in pairs:
        rgb[mask] = colour
    return Image.fromarray(rgb)


@pytest.mark.parametrize(
    "colours", [[(128, 0, 0), (0, 128, 0)], [(250, 50, 83), (51, 221, 255)], [(0, 0, 1), (0, 0, 255)]]
)
def test_colours_are_numbered_from_the_top_left(tmp_path, colours):
    coloured((colours[0], SQUARE), (colours[1], OTHER)).save(tmp_path / "colours.png")
    first, second = masks_from_image(tmp_path / "colours.png", 0)
    assert (first.obj_id, second.obj_id) == (1, 2)
    assert np.array_equal(first.mask, OTHER) and np.array_equal(second.mask, SQUARE)
    assert first.describe()["colour"] == "#{:02x}{:02x}{:02x}".format(*colours[1])


def test_colours_of_one_brightness_are_two_objects_and_white_is_one_of_them(tmp_path):
    coloured(((255, 0, 0), SQUARE), ((0, 130, 0), OTHER)).save(tmp_path / "equal.png")
    assert found(tmp_path / "equal.png") == {1: 400, 2: 400}
    coloured(((255, 255, 255), SQUARE), ((0, 130, 0), OTHER)).save(tmp_path / "white.png")
    assert found(tmp_path / "white.png") == {1: 400, 2: 400}
    coloured(((128, 0, 0), SQUARE), ((224, 224, 192), OTHER)).save(tmp_path / "void.png")
    assert found(tmp_path / "void.png") == {1: 400}, "the void of VOC and DAVIS as a colour"


def test_a_colour_keeps_its_number_through_a_folder(tmp_path):
    red, green, blue = (128, 0, 0), (0, 128, 0), (0, 0, 128)
    coloured((red, SQUARE)).save(tmp_path / "frame_000000.png")
    coloured().save(tmp_path / "frame_000001.png")
    coloured((green, OTHER), (red, SQUARE)).save(tmp_path / "frame_000002.png")
    coloured((blue, OTHER), (green, SQUARE)).save(tmp_path / "frame_000007.png")
    named = {(p.frame, p.colour): p.obj_id for p in read_prompts(tmp_path)}
    assert named == {(0, "#800000"): 1, (2, "#008000"): 2, (2, "#800000"): 1, (7, "#000080"): 3, (7, "#008000"): 2}


def smoothed(colour, ellipses=1):
    big = Image.new("RGB", (4 * W, 4 * H))
    draw = ImageDraw.Draw(big)
    for number in range(ellipses):
        draw.ellipse((20 + 120 * number, 30, 110 + 120 * number, 150), fill=colour)
    return big.resize((W, H), Image.Resampling.LANCZOS)


@pytest.mark.parametrize("colour", [(200, 60, 20), (255, 0, 0), (128, 128, 0)])
@pytest.mark.parametrize("ellipses", [1, 2])
@pytest.mark.parametrize("mode", ["RGB", "P", "adaptive"])
def test_smoothed_edges_are_no_objects(tmp_path, colour, ellipses, mode):
    image = smoothed(colour, ellipses)
    image = image.quantize(40) if mode == "adaptive" else image.convert(mode)
    image.save(tmp_path / "smooth.png")
    with pytest.raises(DataError, match="different values or colours") as error:
        found(tmp_path / "smooth.png")
    assert str(error.value).count("\n") == 0


def test_a_smoothed_black_and_white_mask_is_cut_at_half(tmp_path):
    smoothed((255, 255, 255)).save(tmp_path / "smooth.png")
    smoothed((255, 255, 255)).convert("L").save(tmp_path / "grey.png")
    assert set(found(tmp_path / "smooth.png")) == set(found(tmp_path / "grey.png")) == {1}


def test_more_objects_than_anybody_marks_are_refused(tmp_path):
    labels = np.arange(80).reshape(8, 10).repeat(6, axis=0).repeat(6, axis=1).astype(np.uint8)
    palette_image(labels).save(tmp_path / "many.png")
    with pytest.raises(DataError, match="79 different values .* at most 64"):
        found(tmp_path / "many.png")
    scattered = np.zeros((H, W), np.uint8)
    scattered[::8, ::8] = np.arange(1, 49).reshape(6, 8)
    palette_image(scattered).save(tmp_path / "crumbs.png")
    with pytest.raises(DataError, match="48 different values .*48 of them of fewer than 10 pixels"):
        found(tmp_path / "crumbs.png")


def test_few_small_objects_stay_objects(tmp_path):
    labels = np.zeros((H, W), np.uint8)
    for number in range(1, 6):
        labels[4:6, 8 * number : 8 * number + 2] = number
    palette_image(labels).save(tmp_path / "cells.png")
    assert found(tmp_path / "cells.png") == {number: 4 for number in range(1, 6)}


def test_grey_areas_that_are_neither_ids_nor_black_and_white_are_refused(tmp_path):
    for grey in (85, 127, 170):  # 127 is how trimaps say "unknown"
        Image.fromarray(ids_of((grey, SQUARE), (255, OTHER))).save(tmp_path / "grey.png")
        with pytest.raises(DataError, match=f"{grey}, 255: neither black and white nor object ids"):
            found(tmp_path / "grey.png")


def test_black_may_lie_anywhere_in_a_palette(tmp_path):
    image = Image.fromarray(np.where(SQUARE, 2, 5).astype(np.uint8))
    image.putpalette([9, 9, 9, 0, 0, 255, 255, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 0])
    image.save(tmp_path / "painted.png")
    assert found(tmp_path / "painted.png") == {2: 400}

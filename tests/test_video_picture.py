"""What is shown of a decoded picture: orientation, the shape of pixels, colours, HDR, values of 16 bits."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from sam2long.video import VideoWriter, open_source
from sam2long.video.alpha import ProResWriter, Vp9Writer
from tests.video_files import numbered_image, write_video

HALVES = ((200, 30, 30), (30, 160, 60))  # reds and greens are far apart in BT.601 and BT.709


def two_colours(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2], image[:, width // 2 :] = HALVES
    return image


def encode(path, image, *, codec="libx264", pixels="yuv420p", matrix=None, aspect=None, rotation=None, **tags):
    """Three frames of one picture. matrix: to compute with. tags: to write, of the codec context."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=25)
        video.height, video.width, video.pix_fmt = *image.shape[:2], pixels
        if aspect is not None:
            video.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            video.set_display_rotation(rotation)
        for name, value in tags.items():
            setattr(video.codec_context, name, value)
        for _ in range(3):
            full = 2 if tags.get("color_range") == 2 else None
            frame = av.VideoFrame.from_ndarray(image, format="gray16le" if image.ndim == 2 else "rgb24")
            if matrix is not None:
                frame.colorspace = matrix
            out.mux(video.encode(frame.reformat(format=pixels, dst_color_range=full)))
        out.mux(video.encode(None))
    return path


def colour_error(image):
    """Mean levels off `two_colours`, away from the edges."""
    height, width = image.shape[:2]
    off = np.abs(image.astype(int) - two_colours(height, width))
    return max(off[:, 8 : width // 2 - 8].mean(), off[:, width // 2 + 8 : -8].mean())


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("noted", "quarter_turns"), [(0, 0), (-90, -1), (90, 1), (180, 2)])
def test_the_display_matrix_turns_and_mirrors_the_picture(tmp_path, noted, quarter_turns, mirrored):
    path = write_video(tmp_path / "phone.mp4", rotation=noted, mirrored=mirrored)
    if noted == -90 and not mirrored:  # what phones write for a portrait video: x axis points down, that is clockwise
        header = path.read_bytes()
        at = header.find(b"tkhd") + 44
        assert header[at : at + 20] == bytes.fromhex("00000000 00010000 00000000 ffff0000 00000000")
    source = open_source(path)
    expected = np.rot90(numbered_image(9), quarter_turns)
    expected = expected[:, ::-1] if mirrored else expected
    assert (source.height, source.width) == expected.shape[:2]
    assert np.abs(source.frame(9).astype(int) - expected).mean() < 12


def test_the_shape_of_pixels_is_noted_and_kept(tmp_path):
    wide = encode(tmp_path / "wide.mp4", two_colours(64, 96), aspect=Fraction(64, 45))
    source = open_source(wide)
    assert (source.height, source.width) == (64, 96) and "not square (64:45)" in source.notes[0]
    for writer, name in ((VideoWriter, "out.mp4"), (ProResWriter, "out.mov")):
        with writer(tmp_path / name, 25, 96, 64, looks=source.looks) as out:
            image = two_colours(64, 96)
            out.write(image if writer is VideoWriter else np.dstack([image, image[:, :, 0]]))
        assert open_source(tmp_path / name).looks.pixel_aspect == Fraction(64, 45)


def test_turned_pixels_change_their_shape_too(tmp_path):
    path = encode(tmp_path / "a.mp4", two_colours(64, 96), aspect=Fraction(4, 3), rotation=90)
    assert open_source(path).looks.pixel_aspect == Fraction(3, 4)


@pytest.mark.parametrize(
    ("size", "matrix", "tags"),
    [
        ((720, 1280), 1, {}),  # untagged, as many cameras write it
        ((720, 1280), 1, {"color_range": 2}),
        ((720, 1280), 6, {"colorspace": 6}),
        ((720, 1280), 9, {"colorspace": 9}),
        ((48, 96), 6, {}),
        ((48, 96), 1, {"colorspace": 1, "color_range": 2}),
    ],
)
def test_colours_are_read_and_written_by_one_rule(tmp_path, size, matrix, tags):
    image = two_colours(*size)
    assert colour_error(open_source(encode(tmp_path / "in.mp4", image, matrix=matrix, **tags)).frame(1)) < 4
    for writer, name in ((VideoWriter, "out.mp4"), (ProResWriter, "out.mov"), (Vp9Writer, "out.webm")):
        with writer(tmp_path / name, 25, size[1], size[0]) as out:
            out.write(image if writer is VideoWriter else np.dstack([image, image[:, :, 0] * 0 + 255]))
        assert colour_error(open_source(tmp_path / name).frame(0)) < 4


def test_a_colour_matrix_that_nobody_computes_is_noted(tmp_path):
    source = open_source(encode(tmp_path / "ycgco.mp4", two_colours(48, 96), colorspace=8))
    assert "colour matrix 8" in source.notes[0] and source.frame(0).shape == (48, 96, 3)


def test_hdr_is_noted_and_written_as_hdr(tmp_path):
    image = two_colours(48, 96)
    for transfer, name in ((16, "PQ"), (18, "HLG")):
        tags = {"color_primaries": 9, "color_trc": transfer, "colorspace": 9}
        source = open_source(encode(tmp_path / "in.mp4", image, pixels="yuv420p10le", matrix=9, **tags))
        assert f"HDR ({name})" in source.notes[0] and colour_error(source.frame(0)) < 4
        with VideoWriter(tmp_path / "out.mp4", 25, 96, 48, looks=source.looks) as out:
            out.write(image)
        with av.open(str(tmp_path / "out.mp4")) as container:
            frame = next(container.decode(video=0))
            assert (frame.color_primaries, frame.color_trc, frame.colorspace) == (9, transfer, 9)
        assert colour_error(open_source(tmp_path / "out.mp4").frame(0)) < 4


@pytest.mark.parametrize(
    ("codec", "pixels"), [("libx264", "yuv444p10le"), ("qtrle", "argb"), ("png", "rgba"), ("libx264rgb", "rgb24")]
)
def test_unusual_pixel_formats_give_the_same_colours(tmp_path, codec, pixels):
    source = open_source(encode(tmp_path / "in.mov", two_colours(48, 96), codec=codec, pixels=pixels))
    assert source.num_frames == 3 and colour_error(source.frame(2)) < 4


@pytest.mark.parametrize(("name", "codec", "pixels"), [("in.mkv", "ffv1", "gray16le"), ("in.mov", "png", "gray16be")])
def test_12_bits_in_16_bit_video_are_stretched(tmp_path, name, codec, pixels):
    ramp = np.linspace(0, 4095, 48 * 96).reshape(48, 96).astype(np.uint16)
    source = open_source(encode(tmp_path / name, ramp, codec=codec, pixels=pixels))
    np.testing.assert_array_equal(source.frame(1), np.repeat(ramp[:, :, None] >> 4, 3, axis=2))
    assert "0 to 4095 were stretched" in source.notes[0]

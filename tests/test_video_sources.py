"""Folders, arrays, tensors, iterators; the resize and the normalisation of sam2."""

from __future__ import annotations

import struct
import threading
import zlib
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from sam2.utils.misc import load_video_frames

from sam2long.errors import VideoError
from sam2long.video import FrameSource, normalize_table, open_source, to_model_input
from sam2long.video.exif import copy_as_stored
from tests.video_files import numbered_image, read_number, write_video

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def save_images(folder, names, **save):
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(numbered_image(number)).save(folder / name, **save)
    return folder


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


# ---- sam2's pixels ---------------------------------------------------------------------------------------------------


def test_jpeg_folder_gives_the_encoder_sam2s_input_bit_for_bit(tmp_path):
    for number, image in enumerate(noise(3, 37, 53, 3)):
        Image.fromarray(image).save(tmp_path / f"{number:05d}.jpg")
    theirs, height, width = load_video_frames(str(tmp_path), 64, offload_video_to_cpu=True, compute_device="cpu")
    table = normalize_table(MEAN, STD)
    source = open_source(tmp_path)
    assert (source.height, source.width) == (height, width) == (37, 53)
    for frame in source.iter_from(0, prepare=partial(to_model_input, image_size=64)):
        np.testing.assert_array_equal(frame.model_input, to_model_input(frame.image, 64))
        ours = np.stack([table[c][frame.model_input[..., c]] for c in range(3)])
        assert torch.equal(torch.from_numpy(ours), theirs[frame.index])


def test_model_input_is_made_in_the_reading_thread():
    frames = noise(3, 20, 30, 3)
    for frame in open_source(frames).iter_from(2, reverse=True, prepare=partial(to_model_input, image_size=16)):
        assert frame.model_input.shape == (16, 16, 3) and frame.model_input.dtype == np.uint8
    assert next(iter(open_source(frames))).model_input is None


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_folder_is_read_in_the_order_that_a_person_expects(tmp_path):
    names = ["frame_1.jpg", "frame_2.JPG", "frame_10.jpeg", "frame_100.png", "last.jpg"]
    folder = save_images(tmp_path / "clip", names)
    (folder / "notes.txt").write_text("not an image")
    (folder / "._frame_1.jpg").write_bytes(b"left behind by a file manager")
    source = open_source(folder)
    assert [read_number(frame.image) for frame in source] == [0, 1, 2, 3, 4]
    assert source.names == ["frame_1", "frame_2", "frame_10", "frame_100", "last"]
    assert source.fps is None and [frame.time for frame in source] == [None] * 5
    chosen = open_source(folder, start=1, stride=2)
    assert chosen.names == ["frame_2", "frame_100"]
    assert [read_number(frame.image) for frame in chosen.iter_from(1, reverse=True)] == [3, 1]


def test_images_that_are_not_rgb_are_converted(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    rgb = np.repeat(grey[..., None], 3, axis=2)
    Image.fromarray(grey).save(tmp_path / "1_grey.png")
    Image.fromarray(rgb).quantize(64).save(tmp_path / "2_palette.png")
    Image.fromarray(np.dstack([rgb, 255 - grey])).save(tmp_path / "3_alpha.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "4_16bit.png")
    Image.fromarray(np.dstack([grey, 255 - grey]), "LA").save(tmp_path / "5_grey_alpha.png")
    for frame in open_source(tmp_path):
        assert frame.image.dtype == np.uint8
        np.testing.assert_array_equal(frame.image, rgb)


def turned_by_exif():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    return exif


def test_exif_rotation_is_not_applied_as_in_sam2_and_noted(tmp_path):
    source = open_source(save_images(tmp_path / "clip", ["1.jpg", "2.png"], exif=turned_by_exif()))
    assert source.frame(0).shape == (48, 64, 3)
    assert source.turned == 2 and "turn or mirror 2 of the images" in source.notes[0]


@pytest.mark.parametrize("name", ["1.jpg", "1.png", "1.webp"])
def test_a_copy_that_no_program_turns_has_the_same_pixels(tmp_path, name):
    file = save_images(tmp_path / "clip", [name], exif=turned_by_exif(), **{"lossless": True}) / name
    copy_as_stored(file, tmp_path / name)
    with Image.open(file) as before, Image.open(tmp_path / name) as after:
        assert before.getexif()[0x0112] == 6 and 0x0112 not in after.getexif()
        np.testing.assert_array_equal(np.array(before.convert("RGB")), np.array(after.convert("RGB")))


def save_deep_png(path, values):
    """[H, W, 1 to 4] as a PNG of 16 bits, which Pillow writes for grey only."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("low", "high"), [(0, 4095), (33000, 37095)])
def test_few_of_16_bits_are_stretched_alike_for_all_images(tmp_path, channels, low, high):
    ramp = np.linspace(low, high, 40).reshape(5, 8).astype(np.uint16)
    alpha = channels % 2 == 0
    for number, part in enumerate((ramp, np.minimum(ramp, low + 2047))):
        values = np.repeat(part[:, :, None], channels, axis=2)
        values[:, :, channels - alpha :] = 65535
        save_deep_png(tmp_path / f"{number}.png", values)
    source = open_source(tmp_path)
    for number, brightest in enumerate((255, 127)):
        image = source.frame(number)
        assert image.shape == (5, 8, 3) and (image.min(), image.max()) == (0, brightest)
    assert source.notes == [f"the 16-bit values {low} to {high} were stretched to 0 to 255"]


def test_images_that_are_left_out_are_named(tmp_path):
    save_images(tmp_path / "clip", ["1.png", "2.tif", "3.bmp", "4.gif"])
    (tmp_path / "clip" / "5.png").symlink_to("5.png")  # a circle
    source = open_source(tmp_path / "clip")
    assert [read_number(frame.image) for frame in source] == [0, 1, 2]
    assert "left out: 2 (4.gif, say)" in source.notes[0]
    with pytest.raises(VideoError, match="leads nowhere"):
        open_source(tmp_path / "clip" / "5.png")


# ---- stacks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stack.tif", "stack.webp", "stack.gif", "stack.png"])
def test_a_file_of_several_pages_has_that_many_frames(tmp_path, name):
    first, *others = [Image.fromarray(numbered_image(number)) for number in range(12)]
    first.save(tmp_path / name, save_all=True, append_images=others, **{"lossless": True} if "webp" in name else {})
    source = open_source(tmp_path / name, start=1)
    assert [read_number(frame.image) for frame in source] == list(range(1, 12))
    assert [read_number(source.frame(index)) for index in (7, 0, 10)] == [8, 1, 11]
    assert [read_number(frame.image) for frame in source.iter_from(3, reverse=True)] == [4, 3, 2, 1]


def test_stacks_of_16_bits_are_stretched_and_those_of_two_sizes_refused(tmp_path):
    pages = [Image.fromarray(np.full((4, 5), value, np.uint16)) for value in (33000, 35000, 37000)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    source = open_source(tmp_path / "a.tif")
    assert [int(frame.image.max()) for frame in source] == [0, 127, 255] and len(source.notes) == 1
    pages[1] = Image.new("L", (7, 8))
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(VideoError, match=r"page 1 of .*b\.tif is 7x8"):
        open_source(tmp_path / "b.tif")
    Image.fromarray(np.zeros((4, 5), np.float32)).save(tmp_path / "c.tif")
    with pytest.raises(VideoError, match="floating-point"):
        open_source(tmp_path / "c.tif")
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.tif").rename(tmp_path / "folder" / "a.tif")
    with pytest.raises(VideoError, match="has 3 pages"):
        open_source(tmp_path / "folder")


def test_images_of_two_sizes_are_refused_and_named(tmp_path):
    save_images(tmp_path / "clip", ["1.png", "2.png", "3.png"])
    Image.new("RGB", (10, 20)).save(tmp_path / "clip" / "2.png")
    with pytest.raises(VideoError, match=r"2\.png is 10x20 and 1\.png is 64x48"):
        open_source(tmp_path / "clip")


def test_folder_without_images_and_unreadable_images_are_refused(tmp_path):
    with pytest.raises(VideoError, match="has no images"):
        open_source(tmp_path)
    save_images(tmp_path / "two", ["1.png", "1.jpg"])
    with pytest.raises(VideoError, match=r"both 1\.jpg and 1\.png"):
        open_source(tmp_path / "two")
    folder = save_images(tmp_path / "clip", ["1.png", "2.png"])
    whole = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(whole[:-40])  # the header is fine, the picture is not
    source = open_source(folder)
    with pytest.raises(VideoError, match=r"2\.png cannot be read"):
        list(source)
    (folder / "2.png").write_bytes(b"nothing")
    with pytest.raises(VideoError, match=r"2\.png cannot be read"):
        open_source(folder)


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda a: a,
        list,
        lambda a: torch.from_numpy(a),
        lambda a: torch.from_numpy(a).permute(0, 3, 1, 2),
        lambda a: torch.from_numpy(a).float() / 255,
        lambda a: torch.from_numpy(a).permute(0, 3, 1, 2).double() / 255,
    ],
    ids=["array", "list", "THWC", "TCHW", "float THWC", "double TCHW"],
)
def test_arrays_and_tensors_give_the_same_frames(wrap):
    frames = noise(5, 6, 8, 3)
    source = open_source(wrap(frames), start=1)
    assert (source.num_frames, source.height, source.width) == (4, 6, 8)
    for frame in source:
        np.testing.assert_array_equal(frame.image, frames[frame.index + 1])
    np.testing.assert_array_equal(source.frame(2), frames[3])
    assert [frame.index for frame in source.iter_from(2, reverse=True)] == [2, 1, 0]


class Lazy:
    """What h5py, zarr and dask have in common: a shape, a type, and a frame for a number."""

    def __init__(self, values):
        self._values, self.shape, self.dtype, self.fetched = values, values.shape, values.dtype, []

    def __len__(self):
        return len(self._values)

    def __getitem__(self, index):
        self.fetched.append(index)
        return self._values[index]


@pytest.mark.parametrize("grey", [False, True])
def test_what_looks_like_an_array_is_read_lazily(grey):
    frames = noise(5, 6, 8) if grey else noise(5, 6, 8, 3)
    lazy = Lazy(frames)
    source = open_source(lazy, start=1)
    assert (source.num_frames, source.height, source.width) == (4, 6, 8) and not lazy.fetched
    expected = np.repeat(frames[..., None], 3, axis=3) if grey else frames
    np.testing.assert_array_equal(source.frame(2), expected[3])
    assert lazy.fetched == [3]
    np.testing.assert_array_equal(np.stack([frame.image for frame in source]), expected[1:])


@pytest.mark.parametrize(("kind", "low"), [("<u2", 100), (">u2", 33000), ("<i2", -2000)])
def test_arrays_of_16_bits_are_stretched(kind, low):
    values = (low + np.arange(3 * 4 * 5).reshape(3, 4, 5) % 16).astype(kind)
    source = open_source(Lazy(values))
    np.testing.assert_array_equal(source.frame(1)[..., 0], (values[1].astype(int) - low) * 16)
    assert f"{low} to {low + 15} were stretched" in source.notes[0]
    full = np.array([0, 0x1234, 0xFFFF, 0, 0], np.uint16).reshape(1, 1, 5)
    assert open_source(full).frame(0)[0, :, 0].tolist() == [0, 0x12, 0xFF, 0, 0], "a full range is not stretched"


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        (np.zeros((2, 4, 4)), "shape"),
        (np.zeros((2, 4, 4, 3)), "dtype float64"),
        (np.zeros((96, 128, 3), np.uint8), "one picture .* or 96 grey frames of 3 x 128"),
        (np.zeros((96, 128, 4), np.uint8), "one picture"),
        (np.zeros((96, 128, 1), np.uint16), "one picture"),
        (np.zeros((3, 96, 128, 4), np.uint8), "shape"),
        (torch.zeros(96, 128, 3), "shape"),
        (torch.zeros(2, 3, 4, 3), "frames of 3 rows, or of 3 columns"),
        ([], "no frames"),
        ([np.zeros((4, 4), np.uint8)], r"shape \(4, 4\)"),
        (torch.zeros(2, 4, 4, 4), "shape"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int32), "dtype torch.int32"),
        (torch.zeros(0, 3, 4, 4), "no frames"),
        (None, "cannot read frames from NoneType"),
        (b"bytes", "cannot read frames from bytes"),
        (3.5, "cannot read frames from float"),
    ],
)
def test_wrong_arrays_are_refused_with_what_was_got(frames, says):
    with pytest.raises(VideoError, match=says):
        open_source(frames)


def test_a_bad_frame_later_on_is_refused_when_it_is_reached():
    with pytest.raises(VideoError, match=r"frame 1 is 5x4 and the first frame is 4x4"):
        list(open_source([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)]))
    with pytest.raises(VideoError, match=r"values from 0 to 255"):
        list(open_source(torch.tensor([0.0, 255.0]).repeat_interleave(24).view(1, 4, 4, 3)))
    with pytest.raises(VideoError, match=r"values from nan"):
        list(open_source(torch.full((1, 4, 4, 3), float("nan"))))


def test_an_open_source_passes_through():
    source = open_source(noise(2, 4, 4, 3))
    assert open_source(source) is source and isinstance(source, FrameSource)
    with pytest.raises(VideoError, match="open already"):
        open_source(source, stride=2)


# ---- streams ---------------------------------------------------------------------------------------------------------


def test_an_iterator_is_read_once_and_only_as_far_as_needed():
    taken = []

    def camera():
        number = 0
        while True:
            taken.append(number)
            yield numbered_image(number)
            number += 1

    source = open_source(camera(), start=2, stride=3, prefetch=2)
    assert source.num_frames is None and taken == [0, 1, 2]
    assert read_number(source.frame(0)) == 2
    frames = iter(source)
    assert [read_number(next(frames).image) for _ in range(4)] == [2, 5, 8, 11]
    frames.close()
    assert len(taken) < 25
    with pytest.raises(VideoError, match="cannot start again"):
        iter(source)
    with pytest.raises(VideoError, match="seen once"):
        source.frame(1)


def test_an_iterator_with_a_stop_ends_there():
    source = open_source((numbered_image(n) for n in range(100)), stop=3)
    assert [frame.index for frame in source] == [0, 1, 2]


@pytest.mark.parametrize(
    ("items", "says"),
    [([], "gave no frame 0"), ([np.zeros((2, 2))], "shape"), (["text"], "frame 0 of the iterator is a str")],
)
def test_an_iterator_of_something_else_is_refused(items, says):
    with pytest.raises(VideoError, match=says):
        open_source(iter(items))


def test_an_exception_of_the_iterator_reaches_the_consumer():
    def broken():
        yield numbered_image(0)
        yield numbered_image(1)
        raise KeyError("cable unplugged")

    seen = []
    with pytest.raises(KeyError, match="cable unplugged"):
        for frame in open_source(broken()):
            seen.append(frame.index)
    assert seen == [0, 1]
    assert not [t for t in threading.enumerate() if t.name == "sam2long-prefetch"]


def test_an_address_is_read_as_a_stream(tmp_path):
    path = write_video(tmp_path / "clip.mkv", 5)
    source = open_source(f"file://{path}")
    assert source.num_frames is None and source.fps == 25
    assert [(read_number(f.image), round(f.time, 2)) for f in source] == [(n, n / 25) for n in range(5)]
    with pytest.raises(VideoError, match="camera 99 cannot be opened"):
        open_source(99)
    with pytest.raises(VideoError, match="cannot be opened"):
        open_source("rtsp://127.0.0.1:1/nothing")

"""A session in the real napari, run by test_napari.py in an environment that has it: everything that the dock widget
does, and what it says to what it cannot do. Arguments: model, weights, a folder to write to."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import dask.array
import napari
import numpy as np
import zarr
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QApplication

MODEL, WEIGHTS, OUT = sys.argv[1], sys.argv[2], Path(sys.argv[3])
SECONDS = 300
SIDE, FRAMES = 64, 24


def spin(until=lambda: True):
    """Let the viewer live until something holds."""
    started = time.monotonic()
    while True:
        QApplication.processEvents()
        if until():
            return
        assert time.monotonic() - started < SECONDS, "napari took too long"
        time.sleep(0.01)


def said():
    """What napari has shown to the user since the last time."""
    found = [str(note.message) for note in notification_manager.records]
    notification_manager.records.clear()
    return found


def press(button):
    button.changed.emit(True)


def track(widget):
    press(widget.start)
    spin(lambda: widget._worker is None)


def masks(widget):
    return np.asarray(widget._layer.data)


def widget_in(viewer):
    _, widget = viewer.window.add_plugin_dock_widget("sam2long", "Track objects")
    widget.model.value, widget.checkpoint.value = MODEL, WEIGHTS
    return widget


def box(widget, frame, corners, obj_id=1):
    left, top, right, bottom = corners
    widget.object.value = obj_id
    leading = frame if isinstance(frame, tuple) else (frame,)
    ring = [(top, left), (top, right), (bottom, right), (bottom, left)]
    widget.shapes.value.add_rectangles([[(*leading, *corner) for corner in ring]])


def a_session(viewer, video):
    stack = zarr.create_array(OUT / "stack.zarr", shape=video.shape, dtype="uint16", chunks=(1, SIDE, SIDE))
    stack[:] = video.astype(np.uint16) * 16 + 1000
    viewer.add_image(stack, name="stack", scale=(2, 0.5, 0.5), translate=(0, 10, 20), contrast_limits=(1000, 5000))
    widget = widget_in(viewer)
    assert widget.image.value.name == "stack" and widget.last.value == FRAMES - 1

    press(widget.start)
    assert ["there is no prompt" in text for text in said()] == [True]

    press(widget.new_layers)
    box(widget, 0, (8, 10, 40, 44), obj_id=2)  # the higher id is shown where they overlap
    box(widget, 0, (30, 30, 60, 60), obj_id=1)
    threads = set()
    put = type(widget._current_video()).__getitem__
    type(widget._current_video()).__getitem__ = lambda *args: threads.add(threading.current_thread()) or put(*args)
    widget.last.value = 11
    press(widget.start)
    assert not widget.start.enabled and widget.cancel.enabled
    press(widget.start)
    assert ["it is tracking" in text for text in said()] == [True]
    spin(lambda: widget._worker is None)
    assert said() == [] and threads and threading.main_thread() not in threads
    layer = widget._layer
    assert np.allclose(layer.scale, (2, 0.5, 0.5)) and np.allclose(layer.translate, (0, 10, 20))
    assert layer.metadata["sam2long"]["contrast_limits"] == [1000, 5000]
    first = masks(widget)
    assert first.shape == video.shape and set(np.unique(first[:12])) >= {2} and not first[12:].any()

    # A click that says what is not the object, then to the end: a correction on a frame that has been tracked.
    viewer.dims.set_point(0, 2 * 6)
    widget.kind.value = "not the object"
    widget.object.value = 2
    widget.points.value.add((6, 5, 60))
    widget.kind.value = "the object"
    widget.points.value.add((6, 27, 24))
    assert list(widget.points.value.features["positive"]) == [False, True]
    widget.last.value = FRAMES - 1
    track(widget)
    assert said() == []
    second = masks(widget)
    assert np.array_equal(second[:6], first[:6]) and not np.array_equal(second[6:12], first[6:12])
    assert second[12:].any()

    # Erased with the brush on a tracked frame: it stays as it was painted, and counts for what follows.
    viewer.dims.set_point(0, 2 * 9)
    layer.selected_label = 2
    layer.brush_size = 9
    layer.paint((9, 50, 10), 0)
    painted = masks(widget)[9]
    assert (painted != second[9]).any() and painted[50, 10] == 0
    track(widget)
    third = masks(widget)
    assert np.array_equal(third[9] == 2, painted == 2) and np.array_equal(third[:9], second[:9])
    assert not np.array_equal(third[10:], second[10:])
    press(widget.undo)
    undone = masks(widget)
    assert np.array_equal(undone[9], painted) and np.array_equal(undone[10:], second[10:])
    press(widget.undo)
    assert ["no track to undo" in text for text in said()] == [True]
    track(widget)
    assert np.array_equal(masks(widget), third)  # the same again, to the bit

    # Where to look.
    assert widget._tracker.looks
    for _ in range(3):
        press(widget.next)
        assert widget._held()[0] in widget._tracker.looks
        overlay = viewer.canvas.overlays.text
        assert overlay.visible and "look here" in overlay.text

    # Backward, cancelled on the way.
    viewer.dims.set_point(0, 2 * 20)
    widget.direction.value = "backward"
    press(widget.start)
    spin(lambda: widget.status.value == "frame 19" or widget._worker is None)
    press(widget.cancel)
    spin(lambda: widget._worker is None)
    assert said() == []

    # Saved, opened, exported.
    widget.save_run(OUT / "run")
    widget.save_run(OUT / "run")
    said()
    widget.export_run(OUT / "run", "palette-png")
    spin(lambda: widget._worker is None)
    assert any("wrote" in text for text in said())
    (OUT / "other").mkdir()
    (OUT / "other" / "run.json").write_text('{"status": "complete", "settings": {}}')
    widget._ask = lambda title, act: act(OUT / "other")
    press(widget.save)
    assert ["not saved in napari" in text for text in said()] == [True]
    before = masks(widget)
    widget.open_run(OUT / "run")
    assert widget._layer is not layer and layer in viewer.layers  # what was there stays
    assert np.array_equal(masks(widget), before)
    assert len(widget.shapes.value.data) == 2 and len(widget.points.value.data) == 2
    widget.direction.value = "forward"
    viewer.dims.set_point(0, 2 * 9)
    track(widget)
    assert said() == [] and np.array_equal(masks(widget)[9] == 2, painted == 2)


def what_cannot_be(viewer, video):
    """Each says one sentence, and no layer is lost."""

    def frames_then_none(block_info=None):
        (index, *_) = block_info[None]["chunk-location"]
        if index == 5:
            raise OSError("the disk is gone")
        return video[index : index + 1]

    lazy = dask.array.map_blocks(frames_then_none, chunks=((1,) * FRAMES, (SIDE,), (SIDE,)), dtype=video.dtype)
    viewer.add_image(lazy, name="lazy", contrast_limits=(0, 255), cache=False)
    widget = widget_in(viewer)
    press(widget.new_layers)
    box(widget, 0, (8, 10, 40, 44))
    track(widget)
    (text,) = said()
    assert "frame 5 of the layer lazy cannot be read (the disk is gone)" in text
    assert "\n" not in text and widget.start.enabled
    kept = masks(widget)

    box(widget, 1, (80, 80, 90, 90))
    track(widget)
    (text,) = said()
    assert "shape 2" in text and "nothing of the picture in it, which is 64 x 64" in text
    assert np.array_equal(masks(widget), kept)
    widget.shapes.value.selected_data = {1}
    widget.shapes.value.remove_selected()

    widget.model.value, widget.checkpoint.value = "nonsense", ""
    track(widget)
    (text,) = said()
    assert "the model nonsense has no weights" in text and len(widget.shapes.value.data) == 1
    assert np.array_equal(masks(widget), kept)

    viewer.add_image(video[0], name="one picture")
    widget.model.value, widget.checkpoint.value = MODEL, WEIGHTS
    widget.image.value = viewer.layers["one picture"]
    track(widget)
    (text,) = said()
    assert "one picture of 64 x 64 pixels" in text


def volumes(viewer, video):
    """[T, Z, Y, X]: along z while t is held."""
    viewer.add_image(np.stack([video[:8], video[8:16]]), name="volumes", contrast_limits=(0, 255))
    widget = widget_in(viewer)
    widget.axis.value = 1
    press(widget.new_layers)
    box(widget, (1, 3), (8, 10, 40, 44))
    viewer.dims.set_point((0, 1), (1, 3))
    widget.direction.value = "both ways"
    track(widget)
    assert said() == []
    known = [place for place, _ in widget._layer.data.rles()]
    assert known == [(1, z) for z in range(8)]
    assert masks(widget).shape == (2, 8, SIDE, SIDE) and not masks(widget)[0].any()
    viewer.dims.ndisplay = 3  # the whole array is asked for
    spin()
    viewer.dims.ndisplay = 2


def main():
    blocks = np.random.default_rng(0).integers(0, 256, (FRAMES, 8, 8), dtype=np.uint8)
    video = blocks.repeat(SIDE // 8, axis=1).repeat(SIDE // 8, axis=2)
    for session in (a_session, what_cannot_be, volumes):
        viewer = napari.Viewer(show=True)
        session(viewer, video)
        spin()
        viewer.screenshot(OUT / f"{session.__name__}.png", canvas_only=False)
        viewer.close()
        print(session.__name__, "passed", flush=True)


if __name__ == "__main__":
    main()

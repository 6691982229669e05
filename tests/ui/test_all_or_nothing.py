"""Whatever the disk refuses, at whatever write: a change is made whole or not at all, and the next one works."""

from __future__ import annotations

import copy
import errno
import json
import os

import numpy as np
import pytest

from sam2long.errors import StateError
from sam2long.export.masks import MaskReader, MaskWriter
from sam2long.imports import ObjectPrompt
from sam2long.ui.annotator import Outdated
from tests.ui.conftest import SIDE, inside

SQUARE = np.zeros((SIDE, SIDE), bool)
SQUARE[20:60, 30:70] = True


class Disk:
    """Refuses the n-th write from now on, or all from there; counts them."""

    def __init__(self, monkeypatch):
        self.left, self.writes, self.lasting = None, 0, False
        replace, add = os.replace, MaskWriter._add

        def guarded(action, half=None):
            def call(*args, **kwargs):
                self.writes += 1
                if self.left is not None:
                    self.left -= 1
                    if self.left == 0 or (self.lasting and self.left < 0):
                        if half is not None:
                            half(*args)
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return action(*args, **kwargs)

            return call

        def half_a_line(writer, record):
            writer._file.write(json.dumps(record)[:25])
            writer._file.flush()

        from pathlib import Path

        monkeypatch.setattr("os.replace", guarded(replace))
        monkeypatch.setattr(MaskWriter, "_add", guarded(add, half_a_line))
        monkeypatch.setattr(Path, "write_text", guarded(Path.write_text))

    def refuse(self, at, lasting=False):
        self.left, self.writes, self.lasting = at, 0, lasting

    def work(self):
        self.left, self.lasting = None, False


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def remembered(annotator):
    """Everything that a user could notice."""
    project, store = annotator.project, annotator.project.store
    frames = store.frames()
    session = annotator.tracker.state.session
    return copy.deepcopy({
        "objects": project.objects, "prompts": project.prompts, "stale": project.stale, "revision": project.revision,
        "masks": {frame: store.masks(frame) for frame in frames},
        "rows": {obj_id: {f: repr(row) for f, row in store.rows(obj_id).items()} for obj_id in project.objects},
        "undo": annotator.undo_steps,
        "tracker": {obj_id: sorted(tracked.prompts) for obj_id, tracked in session.objects.items()},
    })  # fmt: skip


def on_disk(annotator):
    """What another program reads: the last line of a frame counts."""
    content = json.loads(annotator.project.prompts_file.read_text())
    with MaskReader(annotator.project.store.path) as masks:
        found = {f: {o: m.tobytes() for o, m in masks.masks(f).items() if m.any()} for f in masks.frames}
    return {key: content[key] for key in ("objects", "prompts", "stale")}, {f: m for f, m in found.items() if m}


def prompt_of(obj_id, **said):
    return ObjectPrompt(frame=0, obj_id=obj_id, **said)


CHANGES = {
    "new object": lambda a, t: a.new_object(label="third"),
    "name": lambda a, t: a.change_object(1, label="dog"),
    "click": lambda a, t: a.click(1, 2, *inside(t, 2, 1), True),
    "first click": lambda a, t: a.click(3, 0, *inside(t, 0, 2), True),
    "second click": lambda a, t: a.click(1, 0, *inside(t, 0, 1), True),
    "box": lambda a, t: a.box(2, 1, (10, 10, 60, 60)),
    "mask": lambda a, t: a.mask(1, 3, SQUARE),
    "import": lambda a, t: a.take(1, [prompt_of(7, mask=SQUARE), prompt_of(1, points=((9, 9),), point_labels=(1,))]),
    "lock": lambda a, t: a.lock(1, 3),
    "clear": lambda a, t: a.clear(1, 0),
    "undo": lambda a, t: a.undo(),
    "reset object": lambda a, t: a.reset_object(1),
    "remove": lambda a, t: a.remove_object(1),
    "reset": lambda a, t: a.reset(),
    "reset but masks": lambda a, t: a.reset(keep_masks=True),
}


def begun(opened, truth, folder="project"):
    annotator = opened(folder)
    for obj_id in (1, 2):
        annotator.new_object(label=f"thing {obj_id}")
        annotator.click(obj_id, 0, *inside(truth, 0, obj_id), True)
    annotator.tracker.propagate("forward", 0, 5)
    annotator.new_object()
    return annotator


@pytest.mark.parametrize("lasting", [False, True], ids=["one write", "a full disk"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_made_whole_or_not_at_all(opened, truth, disk, name, lasting):
    annotator = begun(opened, truth)
    before, disk_before = remembered(annotator), on_disk(annotator)
    for at in range(1, 40):
        disk.refuse(at, lasting)
        try:
            CHANGES[name](annotator, truth)
        except OSError:
            disk.work()
            assert remembered(annotator) == before, f"write {at}"
            assert on_disk(annotator) == disk_before, f"write {at}"
            continue
        disk.work()
        break
    else:
        raise AssertionError("it never worked")
    assert at > 1, "nothing was written: nothing was tried"
    after = remembered(annotator)
    assert after != before
    annotator.project.store.tidy()
    assert {f: set(m) for f, m in on_disk(annotator)[1].items()} == {
        f: {o for o in m if not annotator.project.store.row(f, o).empty} for f, m in after["masks"].items()
    } or name in ("import",)
    annotator.click(2, 4, *inside(truth, 4, 2), True)


def test_after_a_refused_replacement_masks_go_on(opened, truth, disk):
    annotator = begun(opened, truth)
    store = annotator.project.store
    disk.refuse(1, lasting=True)
    with pytest.raises(OSError, match="No space"):
        store.rewrite()
    disk.work()
    annotator.mask(1, 2, SQUARE)
    assert store.row(2, 1).prompted and on_disk(annotator)[1][2][1] == SQUARE.tobytes()
    store.rewrite()
    annotator.mask(2, 2, SQUARE)
    assert on_disk(annotator)[1][2][2] == SQUARE.tobytes()


def test_tracking_that_the_disk_stops_goes_on_afterwards(opened, truth, disk):
    annotator = begun(opened, truth)
    disk.refuse(4, lasting=True)
    with pytest.raises(OSError, match="No space"):
        annotator.tracker.propagate("forward", 0)
    disk.work()
    assert annotator.tracker.propagate("forward", 0) > 5
    assert max(on_disk(annotator)[1]) > 5


def test_a_highest_number_does_not_make_later_objects_unusable(opened, truth):
    annotator = opened()
    annotator.take(0, [prompt_of(2**31 - 1, mask=SQUARE)])
    entry = annotator.new_object()
    assert entry.id == 1
    annotator.click(entry.id, 0, *inside(truth, 0, 1), True)
    assert annotator.new_object().id == 2


def test_what_another_page_has_said_is_not_replaced_unseen(opened, truth):
    annotator = opened()
    annotator.asked_by("a", 0)
    annotator.new_object()
    annotator.mask(1, 0, SQUARE)
    shown = annotator.project.revision
    annotator.mask(1, 0, ~SQUARE)  # the same page goes on, whether or not it has heard of its own change
    annotator.asked_by("b", shown)
    for change in (
        lambda: annotator.mask(1, 0, SQUARE), lambda: annotator.box(1, 0, (1, 1, 9, 9)), lambda: annotator.lock(1, 0),
        lambda: annotator.clear(1, 0), annotator.undo, lambda: annotator.take(0, [prompt_of(1, mask=SQUARE)]),
    ):  # fmt: skip
        with pytest.raises(Outdated, match="another page has just changed object 1 on frame 0"):
            change()
    assert isinstance(Outdated("x"), StateError)
    annotator.mask(1, 1, SQUARE)  # elsewhere nothing is in the way
    annotator.asked_by("b", annotator.project.revision)
    annotator.clear(1, 0)
    annotator.asked_by("", None)
    annotator.mask(1, 1, ~SQUARE)

"""A short generated video, the nano model, and projects on them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra [ui]: pip install 'sam2long[ui]'")
pytest.importorskip("cv2", reason="needs the extra [ui]: pip install 'sam2long[ui]'")

from sam2long import build_sam2long_video_predictor
from sam2long.runs.settings import RunSettings
from sam2long.synthetic import generate
from sam2long.ui.annotator import Annotator
from sam2long.ui.project import Project
from sam2long.video import VideoWriter, open_source

FRAMES, SIDE, OBJECTS = 14, 128, (1, 2)


@pytest.fixture(scope="session")
def scene():
    """(images, ids) of a video in which two objects move in front of everything else."""
    frames = list(generate("easy", seed=11, num_frames=FRAMES, size=SIDE, num_objects=len(OBJECTS)))
    return np.stack([frame.image for frame in frames]), np.stack([frame.ids for frame in frames])


@pytest.fixture(scope="session")
def truth(scene):
    """[T, H, W] uint8 object ids."""
    return scene[1]


@pytest.fixture(scope="session")
def clip(scene, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with VideoWriter(path, 25, SIDE, SIDE) as out:
        for image in scene[0]:
            out.write(image)
    return path


@pytest.fixture(scope="session")
def nano():
    return build_sam2long_video_predictor("nano", device="cpu")


@pytest.fixture
def opened(clip, nano, tmp_path):
    """Opens the project in a folder; all are closed at the end."""
    projects = []

    def open_project(folder="project"):
        source = open_source(str(clip))
        project = Project(tmp_path / folder, source, RunSettings(video=str(clip), device="cpu"))
        projects.append(project)
        return Annotator(project, nano)

    yield open_project
    for project in projects:
        project.close()


def inside(truth, frame, obj_id):
    """(x, y) of a pixel well inside an object."""
    rows, columns = np.nonzero(truth[frame] == obj_id)
    middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return float(columns[middle]), float(rows[middle])


def overlap(mask, other):
    """IoU of two masks."""
    return (mask & other).sum() / max(1, (mask | other).sum())

"""Run by test_label_studio.py where Label Studio is installed: projects made by its SDK, our backend connected,
predictions asked for and read back. Arguments: part, Label Studio, backend, token, folder with a.png and clip.mp4."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import requests
from label_studio_sdk import LabelStudio
from label_studio_sdk.converter.brush import decode_rle

PART, STUDIO, BACKEND, TOKEN, FOLDER = *sys.argv[1:5], Path(sys.argv[5])
VIDEOS = (
    '<View><Video name="video" value="$video" frameRate="10"/><VideoRectangle name="box" toName="video" smart="true"/>'
    '<Labels name="names" toName="video"><Label value="Dog"/></Labels></View>'
)
PICTURES = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image"><Label value="Dog"/>'
    '</BrushLabels><KeyPointLabels name="point" toName="image" smart="true"><Label value="Dog"/></KeyPointLabels>'
    "</View>"
)
REGION = {
    "id": "r1", "type": "videorectangle", "from_name": "box", "to_name": "video",
    "value": {"framesCount": 12, "duration": 1.2, "labels": ["Dog"], "sequence": [
        {"frame": 5, "enabled": True, "rotation": 0, "x": 20, "y": 20, "width": 40, "height": 40, "time": 0.4}
    ]},
}  # fmt: skip
POINT = {
    "id": "k1", "type": "keypointlabels", "from_name": "point", "to_name": "image", "is_positive": True,
    "original_width": 64, "original_height": 64, "image_rotation": 0,
    "value": {"x": 40, "y": 40, "width": 1, "keypointlabels": ["Dog"]},
}  # fmt: skip

client = LabelStudio(base_url=STUDIO, api_key=TOKEN)


def call(method, path, **body):
    return requests.request(method, f"{STUDIO}{path}", headers={"Authorization": f"Token {TOKEN}"}, timeout=200, **body)


def predicted(model, task, *regions):
    """What the button of interactive annotation does."""
    asked = {"task": task, "context": {"result": list(regions)}}
    return call("POST", f"/api/ml/{model}/interactive-annotating", json=asked).json()


def connected(title, config):
    project = client.projects.create(title=title, label_config=config)
    model = client.ml.create(url=BACKEND, project=project.id, title="SAM2Long", is_interactive=True)
    assert client.ml.get(id=model.id).state == "CO", client.ml.get(id=model.id)
    return project.id, model.id


def first():
    project, model = connected("videos", VIDEOS)
    with (FOLDER / "clip.mp4").open("rb") as file:
        call("POST", f"/api/projects/{project}/import", files={"file": file}).raise_for_status()
    task = next(iter(client.tasks.list(project=project))).id
    (found,) = predicted(model, task, REGION)["data"]["result"]
    sequence = found["value"]["sequence"]
    assert found["id"] == "r1" and found["value"]["labels"] == ["Dog"] and len(sequence) > 1
    assert sequence[0]["frame"] == 1 and all(0 <= entry["x"] <= 100 for entry in sequence)

    # Submitted, and asked for in the data manager; the prediction is read back.
    client.annotations.create(id=task, result=[REGION])
    call("POST", f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}",
         json={"selectedItems": {"all": True, "excluded": []}}).raise_for_status()  # fmt: skip
    (stored,) = list(client.predictions.list(task=task))
    assert stored.result[0]["value"]["sequence"] == sequence and stored.model_version.startswith("sam2long-")

    # Local-files storage, fetched from the server.
    pictures, painter = connected("pictures", PICTURES)
    client.import_storage.local.create(project=pictures, path=str(FOLDER), use_blob_urls=True, regex_filter=".*png")
    client.tasks.create(project=pictures, data={"image": f"/data/local-files/?d={FOLDER.name}/a.png"})
    picture = next(iter(client.tasks.list(project=pictures))).id
    (brush,) = predicted(painter, picture, POINT)["data"]["result"]
    mask = decode_rle(brush["value"]["rle"]).reshape(64, 64, 4)[..., 3]
    assert set(np.unique(mask)) <= {0, 255} and mask.any() and brush["value"]["brushlabels"] == ["Dog"]
    (said,) = predicted(painter, picture)["errors"]
    assert "has no prompt" in said

    cloud = client.tasks.create(project=pictures, data={"image": "s3://bucket/a.png"})
    (said,) = predicted(painter, cloud.id, POINT)["errors"]
    assert "s3:// files are not read" in said
    gone = client.tasks.create(project=pictures, data={"image": "/data/upload/1/gone.png"})
    (said,) = predicted(painter, gone.id, POINT)["errors"]
    assert "gives no file" in said
    (FOLDER / "known.json").write_text(json.dumps([model, task, sequence]))


def again():
    """The backend was started anew, knows nothing of the project, and answers the same."""
    model, task, sequence = json.loads((FOLDER / "known.json").read_text())
    (found,) = predicted(model, task, REGION)["data"]["result"]
    assert found["value"]["sequence"] == sequence


{"first": first, "again": again}[PART]()
print(PART, "passed")

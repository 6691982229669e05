"""What a run of `sam2long track` leaves, as a project needs it to be corrected: objects, prompts, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sam2long.errors import DataError
from sam2long.known import Row
from sam2long.ui.prompt import AnnotatedObject, Prompt
from sam2long.ui.store import MaskStore

Prompts = dict[int, dict[int, Prompt]]  # object -> frame -> prompt


def objects(info: Mapping[str, Any]) -> list[AnnotatedObject]:
    """What was tracked. info: the content of run.json."""
    found = info.get("objects", {})
    return [AnnotatedObject(id=int(obj_id), label=entry.get("label", "")) for obj_id, entry in found.items()]


def prompts(info: Mapping[str, Any], index_of: Callable[[int], Sequence[int] | None]) -> Prompts:
    """The prompts that it was tracked from. index_of: the video's frames of a source frame, one or none."""
    found: Prompts = {}
    for said in info.get("prompts", ()):
        if index := index_of(said["frame"]):
            found.setdefault(said["object"], {})[index[0]] = Prompt(
                points=tuple(map(tuple, said.get("points", ()))),
                labels=tuple(said.get("labels", ())),
                box=tuple(said["box"]) if said.get("box") else None,
            )
    return found


def with_masks(found: Prompts, store: MaskStore) -> Prompts:
    """run.json does not hold the masks that were given as prompts; masks.jsonl does."""
    completed: Prompts = {}
    for obj_id, by_frame in found.items():
        completed[obj_id] = {}
        for frame, prompt in by_frame.items():
            if prompt.points or prompt.box is not None:
                completed[obj_id][frame] = prompt
            elif (mask := store.mask(frame, obj_id)) is not None:
                completed[obj_id][frame] = Prompt(mask=mask)
    return completed


def report(path: Path) -> dict[tuple[int, int], Row]:
    """report.csv of `sam2long track`, by frame and object; empty where there is none."""
    if not path.exists():
        return {}
    import pandas as pd

    try:
        table = pd.read_csv(path, keep_default_na=False, na_values={"iou": [""], "margin": [""]})
        return {
            (values.frame, values.obj_id): Row(
                values.status, float(values.iou), float(values.object_logit), int(values.pathways),
                float(values.margin), bool(values.prompted),
            )
            for values in table.itertuples()
        }  # fmt: skip
    except (ValueError, AttributeError) as error:
        raise DataError(
            f"{path} is not the report of a run ({error}); remove it, and the masks are taken without"
        ) from None

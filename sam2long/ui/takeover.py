"""A run of `sam2long track` becomes a project, so that it can be corrected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sam2long.errors import DataError
from sam2long.ui.prompt import AnnotatedObject, Prompt
from sam2long.ui.store import Row

if TYPE_CHECKING:
    from sam2long.ui.project import Project


def take_objects(project: Project) -> None:
    """What was tracked, and from which prompts."""
    info = project.folder.read_info()
    for obj_id, entry in info.get("objects", {}).items():
        project.add_object(AnnotatedObject(id=int(obj_id), label=entry.get("label", "")))
    for said in info.get("prompts", ()):
        if index := project.index_of(said["frame"]):
            project.prompts.setdefault(said["object"], {})[index[0]] = Prompt(
                points=tuple(map(tuple, said.get("points", ()))),
                labels=tuple(said.get("labels", ())),
                box=tuple(said["box"]) if said.get("box") else None,
            )
    project.revision = 1


def take_mask_prompts(project: Project) -> None:
    """run.json does not hold the masks that were given as prompts; masks.jsonl does."""
    for obj_id, prompts in project.prompts.items():
        for frame, prompt in list(prompts.items()):
            if not prompt.points and prompt.box is None:
                mask = project.store.mask(frame, obj_id)
                if mask is None:
                    del prompts[frame]
                else:
                    prompts[frame] = Prompt(mask=mask)


def take_report(project: Project) -> None:
    """report.csv of `sam2long track`, into the lines of masks.jsonl."""
    if not project.folder.report.exists():
        return
    import pandas as pd

    try:
        table = pd.read_csv(project.folder.report, keep_default_na=False, na_values={"iou": [""], "margin": [""]})
        rows = {
            (values.frame, values.obj_id): Row(
                values.status, float(values.iou), float(values.object_logit), int(values.pathways),
                float(values.margin), bool(values.prompted),
            )
            for values in table.itertuples()
        }  # fmt: skip
    except (ValueError, AttributeError) as error:
        raise DataError(
            f"{project.folder.report} is not the report of a run ({error}); remove it, and the masks are taken without"
        ) from None
    project.store.amend(rows)

"""The folder of a batch: what it was begun with, and a table; each clip's run is a folder in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from sam2long.atomic import replacing, write_json
from sam2long.errors import DataError, Sam2LongError
from sam2long.export.report import as_text
from sam2long.json_file import read_json
from sam2long.runs.settings import METHOD_FIELDS, RunSettings, asked_for, without_gone

COLUMNS = (
    "clip", "video", "status", "frames", "objects", "visible", "uncertain", "absent", "frames_per_second", "error",
)  # fmt: skip

Row = dict[str, Any]  # of batch.csv


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What batch.json says."""

    clips: dict[str, str]  # clip -> video
    settings: RunSettings  # of every clip, without its video
    prompting: dict[str, Any]  # flag about prompts -> value, of those given
    replaces: dict[str, str]  # clip -> stamp of the earlier run, which --overwrite gave up

    def of(self, clip: str) -> RunSettings:
        return replace(self.settings, video=self.clips[clip])


class BatchFolder:
    """What is where in the folder of a batch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.info = path / "batch.json"
        self.table = path / "batch.csv"

    def exists(self) -> bool:
        return self.info.exists()

    def refuse_a_single_run(self) -> None:
        if self.exists():
            raise DataError(f"{self.path} holds a batch of several videos; choose another --out for one")

    def write(self, begun: Begun) -> None:
        write_json(
            self.info,
            {
                "clips": begun.clips, "settings": begun.settings.to_dict(), "prompting": begun.prompting,
                "replaces": begun.replaces,
            },
        )  # fmt: skip

    def read(self) -> Begun:
        """The batch as it was begun, also by an earlier version."""
        content = read_json(self.info, "that of a batch; start again with --overwrite")
        try:
            if "flags" in content:
                settings, prompting = _of_flags(content["flags"])
            else:
                settings, prompting = RunSettings.from_dict(content["settings"]), dict(content["prompting"])
            begun = Begun(
                clips=content["clips"], settings=settings, prompting=prompting, replaces=content.get("replaces", {})
            )
            if not begun.clips or not all(map(can_be_a_clip, begun.clips)):
                raise ValueError
            if not all(isinstance(video, str) for video in begun.clips.values()):
                raise ValueError
            return begun
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            if isinstance(error, Sam2LongError):
                raise
            raise DataError(f"{self.info} is damaged; start again with --overwrite") from None

    def write_table(self, rows: Sequence[Row]) -> None:
        import pandas as pd

        with replacing(self.table) as partial:
            plain = [{name: as_text(v) if isinstance(v, str) else v for name, v in row.items()} for row in rows]
            table = pd.DataFrame(plain, columns=list(COLUMNS))
            table.to_csv(partial, index=False, errors="backslashreplace")  # names of files need not be text


def can_be_a_clip(name: str) -> bool:
    return Path(name).name == name and name not in ("", "..", "batch.json", "batch.csv", ".lock")


def _of_flags(flags: Mapping[str, Any]) -> tuple[RunSettings, dict[str, Any]]:
    """Settings and flags about prompts from the flags that earlier versions wrote; every setting was one."""
    left = without_gone(dict(flags))
    config, online = left.pop("config", None), left.pop("online", False)
    method = {name: left.pop(name) for name in METHOD_FIELDS if name in left}
    method = {name: None if value == "none" else value for name, value in method.items()}
    run = {entry.name: left.pop(entry.name) for entry in fields(RunSettings) if entry.name in left}
    asked = asked_for(run, method | ({"emit": "online"} if online else {}), Path(config) if config else None)
    return asked.settings(""), left

"""Which frame of the video a file is about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from sam2long.errors import DataError
from sam2long.video.names import number_in


class FrameNumbers:
    """Frame numbers by file names.

    Args:
        names: stems of the images, where the video is a folder of them; then names are looked up. Otherwise the
            last number in a name is the frame's, as in 00030.json and shot_30.png.
    """

    def __init__(self, names: Sequence[str] | None = None) -> None:
        self._by_name = None if names is None else {name: number for number, name in enumerate(names)}

    def of(self, file: str, where: str) -> int:
        """The frame that `file` is named after. where: for the message.

        Raises:
            DataError: it is named after none.
        """
        stem = PurePath(file.replace("\\", "/")).stem
        if self._by_name is not None:
            if stem in self._by_name:
                return self._by_name[stem]
            raise DataError(f"{where}: the video has no image {stem}; expected the names of its images")
        if (number := number_in(stem)) is None:
            raise DataError(f"{where} does not say which frame it is about; name it after the frame, like 00030")
        return number

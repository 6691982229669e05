"""Video files with an alpha channel: ProRes 4444 for editors, VP9 for browsers."""

from __future__ import annotations

from typing import Any

import av
import numpy as np

from sam2long.errors import VideoError
from sam2long.video.writer import VideoWriter


class AlphaWriter(VideoWriter):
    """As VideoWriter, but frames are [H, W, 4] uint8 RGBA; straight alpha, which means that colours are not darkened
    by it. Sides may be odd."""

    pixel_format: str
    even_sides = False

    def _check(self, image: np.ndarray, name: str) -> None:
        if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 4):
            kind = getattr(image, "dtype", type(image).__name__)
            raise VideoError(f"{name} is {kind} {getattr(image, 'shape', '')}; expected an array [H, W, 4] uint8 RGBA")

    def _picture(self, image: np.ndarray) -> av.VideoFrame:
        return self._coded(image, "rgba", self.pixel_format)


class ProResWriter(AlphaWriter):
    """ProRes 4444 in QuickTime, alpha without loss."""

    longest_side = None
    container_format = "mov"
    pixel_format = "yuva444p10le"

    def _add_video(self, crf: int, preset: str) -> av.VideoStream:
        video: Any = self._out.add_stream("prores_ks", rate=self._rate)
        video.width, video.height, video.pix_fmt = self.width, self.height, self.pixel_format
        video.options = {"profile": "4444", "alpha_bits": "16", "vendor": "apl0"}
        return video


class Vp9Writer(AlphaWriter):
    """VP9 in WebM, alpha as a second picture, as browsers play it."""

    longest_side = None
    container_format = "webm"
    container_options: dict[str, str] = {}
    pixel_format = "yuva420p"
    keeps_pixel_aspect = False  # VP9 has no place for it, and PyAV cannot set WebM's

    def _add_video(self, crf: int, preset: str) -> av.VideoStream:
        video: Any = self._out.add_stream("libvpx-vp9", rate=self._rate)
        video.width, video.height, video.pix_fmt = self.width, self.height, self.pixel_format
        video.codec_context.bit_rate = 0  # constant quality
        video.options = {"crf": str(crf), "deadline": "good", "cpu-used": "4", "row-mt": "1", "auto-alt-ref": "0"}
        video.metadata["alpha_mode"] = "1"
        return video

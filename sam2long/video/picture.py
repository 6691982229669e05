"""From a decoded picture to the frame that players show: colours, orientation; and what a player has to be told."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import VideoReformatter

from sam2long.video.depth import Depth

BT709, SMPTE170M, BT2020 = 1, 6, 9  # numbers of H.273, as in the files
UNSPECIFIED = 2
MATRICES = {BT709, 4, 5, SMPTE170M, 7, BT2020}  # those that swscale computes
NO_MATRIX = 0  # the picture is RGB already
HDR = {16: "PQ", 18: "HLG"}  # transfer functions
HD_WIDTH, HD_HEIGHT = 1280, 576


@dataclass(frozen=True, slots=True)
class Looks:
    """What a player has to know of a video beside its pixels.

    Attributes:
        pixel_aspect: width of a pixel by its height, as displayed; 1: square.
        transfer, primaries: H.273 numbers where the video is HDR; else None.
        strange_matrix: H.273 number of a colour matrix that cannot be computed here; else None.
    """

    pixel_aspect: Fraction = Fraction(1)
    transfer: int | None = None
    primaries: int | None = None
    strange_matrix: int | None = None

    @classmethod
    def of(cls, video: av.VideoStream, frame: av.VideoFrame) -> Looks:
        """Those of a stream whose first picture is `frame`."""
        aspect = Fraction(video.sample_aspect_ratio or 1)
        if aspect > 0 and orientation(frame)[0]:
            aspect = 1 / aspect
        hdr = frame.color_trc in HDR
        return cls(
            pixel_aspect=aspect if aspect > 0 else Fraction(1),
            transfer=frame.color_trc if hdr else None,
            primaries=frame.color_primaries if hdr else None,
            strange_matrix=frame.colorspace if _is_strange(frame.colorspace) else None,
        )

    def notes(self) -> list[str]:
        """A sentence for each thing that a user may stumble over."""
        found = []
        if self.pixel_aspect != 1:
            ratio = f"{self.pixel_aspect.numerator}:{self.pixel_aspect.denominator}"
            found.append(f"the pixels are not square ({ratio}); masks and boxes are in pixels as they are stored")
        if self.transfer is not None:
            found.append(
                f"the video is HDR ({HDR[self.transfer]}) and is tracked without tone mapping; if it tracks badly, "
                "convert it to SDR first"
            )
        if self.strange_matrix is not None:
            found.append(f"colour matrix {self.strange_matrix} is not known here; colours are read as if it were usual")
        return found


ORDINARY = Looks()


def usual_matrix(width: int, height: int) -> int:
    """What players take a picture for that does not say its colour matrix; we read and write by it."""
    return BT709 if width >= HD_WIDTH or height > HD_HEIGHT else SMPTE170M


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """How a picture is displayed: first rows and columns change places, then rows, then columns are reversed."""
    matrix = frame.side_data.get(SideData.DISPLAYMATRIX)  # type: ignore[call-overload]  # PyAV says str
    if matrix is None:
        return False, False, False
    # x' = a x + c y, y' = b x + d y; x to the right and y down.
    a, b, _, c, d, *_ = np.frombuffer(matrix, dtype=np.int32).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


def is_deep(frame: av.VideoFrame) -> bool:
    """Whether a frame has 16 bits per value, all of which may not be used; 10 and 12 bits say what they are."""
    return frame.format.components[0].bits == 16


def deep_values(frame: av.VideoFrame) -> np.ndarray:
    """[H, W] or [H, W, 3] uint16 of a frame with 16 bits per value."""
    grey = frame.format.name.startswith("gray")
    return frame.to_ndarray(format="gray16le" if grey else "rgb48le").astype(np.uint16)


def upright_rgb(frame: av.VideoFrame, reformatter: VideoReformatter, depth: Depth | None = None) -> np.ndarray:
    """A decoded frame as it is displayed: [H, W, 3] uint8 RGB, turned and mirrored as its display matrix says.

    Args:
        depth: how to stretch the values of frames with 16 bits; None to leave them as they are.
    """
    if frame.colorspace not in MATRICES and frame.colorspace != NO_MATRIX:
        frame.colorspace = usual_matrix(frame.width, frame.height)
    if depth is None:
        image = reformatter.reformat(frame, format="rgb24").to_ndarray()
    else:
        image = depth.to_rgb(deep_values(frame))
    swap, reverse_rows, reverse_columns = orientation(frame)
    if swap:
        image = image.transpose(1, 0, 2)
    return np.ascontiguousarray(image[:: -1 if reverse_rows else 1, :: -1 if reverse_columns else 1])


def _is_strange(matrix: int) -> bool:
    return matrix not in MATRICES | {NO_MATRIX, UNSPECIFIED}

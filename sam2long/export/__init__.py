"""What a run leaves behind, one module per format.

masks.jsonl (masks.py) is the lossless master; everything else can be made again from it and the video.
"""

from sam2long.export.masks import MaskReader, MaskWriter
from sam2long.export.overlay import write_overlay
from sam2long.export.pngs import PngWriter, davis_palette
from sam2long.export.report import write_report
from sam2long.export.timeline import write_timeline

__all__ = [
    "MaskReader",
    "MaskWriter",
    "PngWriter",
    "davis_palette",
    "write_overlay",
    "write_report",
    "write_timeline",
]

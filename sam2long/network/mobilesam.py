"""MobileSAM: SAM for still pictures with a small image encoder. nano has it answer prompts.

Zhang et al., "Faster Segment Anything" (arXiv 2306.14289): SAM's prompt encoder and mask decoder (Kirillov et al.,
arXiv 2304.02643) behind TinyViT. The decoder's modules are sam2's, which are SAM's. scripts/nano/mobilesam.py makes the
weights' file from the published one; both are Apache-2.0.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.prompt_encoder import PromptEncoder
from sam2.modeling.sam.transformer import TwoWayTransformer
from torch import Tensor, nn

from sam2long.network.protocol import IMAGENET_MEAN, IMAGENET_STD
from sam2long.network.tinyvit import OUTPUT, TinyViT
from sam2long.weights import MODELS_DIR

LONGEST = 1024  # the longer side of the pictures that it was trained on
ENLARGED = 4  # a picture is enlarged at most so many times: more shows nothing new
STRIDE, CELL = 16, 4  # pixels of a feature, and of a mask's cell
HEADS, MLP, MASK_CHANNELS = 8, 2048, 16


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A picture as its encoder sees it."""

    features: Tensor  # [1, 256, h / 16, w / 16]

    @property
    def height(self) -> int:
        """h, in pixels of the network."""
        return STRIDE * self.features.shape[2]

    @property
    def width(self) -> int:
        """w, in pixels of the network."""
        return STRIDE * self.features.shape[3]


class MobileSAM(nn.Module):
    """Coordinates are pixels of the network: what a picture was resized to."""

    def __init__(self) -> None:
        super().__init__()
        grid = LONGEST // STRIDE
        self.encoder = TinyViT()
        self.prompts = PromptEncoder(OUTPUT, (grid, grid), (LONGEST, LONGEST), MASK_CHANNELS)
        transformer = TwoWayTransformer(depth=2, embedding_dim=OUTPUT, num_heads=HEADS, mlp_dim=MLP)
        self.decoder = MaskDecoder(transformer_dim=OUTPUT, transformer=transformer)
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def see(self, picture: np.ndarray, longest: int = LONGEST, encoder: TinyViT | None = None) -> Seen:
        """Through the encoder, once for any number of prompts.

        Args:
            picture: [H, W, 3] uint8 RGB.
            longest: what its longer side is resized to, a multiple of 16; fewer pixels are quicker and coarser. Tiny
                pictures are enlarged less.
            encoder: in place of its own, of any precision.
        """
        sides = picture.shape[:2]
        longest = min(longest, -(-ENLARGED * max(sides) // STRIDE) * STRIDE)
        height, width = (max(round(side * longest / max(sides) / STRIDE), 1) * STRIDE for side in sides)
        pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]  # bytes: quick to resize
        resized = F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False, antialias=True)
        normalised = (resized.to(self.mean.device).float() / 255 - self.mean) / self.std
        encoder = encoder or self.encoder
        dtype = next(encoder.parameters()).dtype
        return Seen(encoder(normalised.to(dtype)).to(self.mean.dtype))

    def mark(
        self,
        seen: Seen,
        *,
        points: tuple[Tensor, Tensor] | None = None,
        boxes: Tensor | None = None,
        previous: Tensor | None = None,
        several: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """What N prompts mark.

        Args:
            points: [N, n, 2] and labels [N, n]: 1 the object, 0 not, -1 nothing.
            boxes: [N, 4]: left, top, right, bottom.
            previous: [N, 1, h / 4, w / 4] logits that the prompts refine.
            several: the whole, a part and a part of it instead of one mask, for what one click leaves open.
        Returns:
            logits [N, 1 or 3, h / 4, w / 4] and their predicted IoUs [N, 1 or 3], float32.
        """
        rows, columns = seen.features.shape[-2:]
        grid = max(rows, columns)  # places are shares of a square: what is missing of it was never seen
        share = LONGEST / (STRIDE * grid)
        sparse, dense = self.prompts(
            None if points is None else (points[0] * share, points[1]),
            None if boxes is None else boxes * share,
            previous,
        )
        if previous is None:
            dense = dense[..., :rows, :columns]
        masks, ious, _, _ = self.decoder(
            image_embeddings=seen.features,
            image_pe=self.prompts.pe_layer((grid, grid))[None, :, :rows, :columns].to(seen.features.dtype),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
            repeat_image=True,
        )
        return masks.float(), ious.float()


@cache
def mobilesam(device: torch.device) -> MobileSAM:
    """The network with the weights that come with the package, once for all on a device."""
    network = MobileSAM()
    weights = load_file(MODELS_DIR / "mobilesam.safetensors")
    network.load_state_dict({name: value.float() for name, value in weights.items()})
    return network.eval().requires_grad_(False).to(device)


@cache
def quick_encoder(device: torch.device) -> TinyViT:
    """Its encoder in bfloat16, on processors that are fast at it: for every frame of a video."""
    encoder = mobilesam(device).encoder
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # later torch has it
    fast = device.type == "cpu" and capabilities is not None and capabilities().get("avx512_bf16", False)
    return copy.deepcopy(encoder).to(torch.bfloat16) if fast else encoder

"""The seam into sam2: with sam2_attention.py the only file that touches its protected names.

Names relied on, each once, as of sam2 1.1.0 (facebookresearch/sam2, commit 2b90b9f, sam2/modeling/sam2_base.py).
tests/test_sam2_contract.py pins them, so that a new sam2 release fails there first.

  forward_image, _prepare_backbone_features   image features, once per frame
  sam_prompt_encoder, sam_mask_decoder        the decoder; `_forward_sam_heads` gives only the best pointer
  obj_ptr_proj, no_obj_ptr                    the pointers of the other candidates
  _use_multimask, _forward_sam_heads          clicks on a frame that has memory
  track_step                                  prompts on a frame without memory
  _encode_new_memory                          the memory write
  memory_attention                            the memory read (sam2_attention.py)
  maskmem_tpos_enc, memory_encoder.position_encoding     temporal and spatial positions of memories
  obj_ptr_tpos_proj, get_1d_sine_pe           temporal positions of object pointers
  PositionEmbeddingSine.cache                 filled on the first GPU when a model is made
  SAM2ImagePredictor._bb_feat_sizes           written down for 1024 px; other models need their own
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import Tensor

from sam2long.method.memory import NO_BOUND, BankRules
from sam2long.network.masks import enlarged
from sam2long.network.protocol import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NO_OBJ_SCORE,
    Bank,
    Decoded,
    FrameFeatures,
    Points,
    PromptOutput,
)
from sam2long.network.sam2_attention import attend, attend_sparsely, turns_of

if TYPE_CHECKING:
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator


def is_sam2s(model: Any) -> bool:
    """Whether a model is one of sam2's package."""
    return isinstance(model, SAM2Base)


def automatic_mask_generator(model: SAM2Base, **options: Any) -> SAM2AutomaticMaskGenerator:
    """sam2's automatic mask generator, for a model of any input size; sam2 1.1.0's own works at 1024 px only."""
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    generator = SAM2AutomaticMaskGenerator(model, **options)
    # Finest map first; each of the three is half as wide as the one before.
    generator.predictor._bb_feat_sizes = [
        (model.image_size * scale // model.backbone_stride,) * 2 for scale in (4, 2, 1)
    ]
    return generator


def forget_positions_elsewhere(model: SAM2Base) -> None:
    """Drop sam2's position encodings of another device, and bring its rotations over.

    sam2 computes them ahead on the first GPU, wherever the model is to run, and keeps them when the model moves: then
    each frame copies them, and waits.
    """
    for module in model.modules():
        if isinstance(module, PositionEmbeddingSine):
            module.cache = {key: value for key, value in module.cache.items() if value.device == model.device}
        if isinstance(rotations := vars(module).get("freqs_cis"), Tensor):
            module.freqs_cis = rotations.to(model.device)


def without_graphs(model: SAM2Base) -> SAM2Base:
    """A model whose modules are called as they are, also where sam2 has compiled them in place.

    sam2's VOS-optimised predictor compiles them into CUDA graphs whose outputs the next call overwrites; its own class
    clones them all. The image encoder's we clone ourselves.

    Returns:
        the model itself, or one that shares its weights; the model stays as it is.
    """
    compiled = {n: m for n, m in model._modules.items() if n != "image_encoder" and "forward" in vars(m)}
    if not compiled:
        return model
    plain = copy.copy(model)
    plain._modules = model._modules | {name: copy.copy(module) for name, module in compiled.items()}
    for name in compiled:
        del plain._modules[name].forward
    return plain


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What of the network is called on every frame; compiled.py has the same through torch.compile."""

    encode: Callable[..., Any]  # forward_image
    attend: Callable[..., Tensor]  # `attend`, bound to the model's memory attention
    decode: Callable[..., Any]  # sam_mask_decoder
    write: Callable[..., Any]  # _encode_new_memory
    filled_up: Callable[[int], int] = int  # how many rows a batch is filled up to
    encodes_alone: bool = False  # one frame at a time

    @classmethod
    def of(cls, model: SAM2Base) -> Parts:
        read = partial(attend, model.memory_attention)
        compiled = "forward" in vars(model.image_encoder)
        return cls(model.forward_image, read, model.sam_mask_decoder, model._encode_new_memory, encodes_alone=compiled)


class Sam2Network:
    """A model of sam2's class shape as a `Network`.

    Args:
        model: any SAM2Base in eval mode, or one of another package shaped like it. Used as it is, its caches excepted.
        parts: its calls; None for eager ones. A sparse read is always eager.
    """

    mean, std, resize = IMAGENET_MEAN, IMAGENET_STD, "bicubic"

    def __init__(self, model: SAM2Base, parts: Parts | None = None) -> None:
        forget_positions_elsewhere(model)
        self.model = model
        self.parts = parts or Parts.of(model)
        self._empty_prompt: tuple[Tensor, Tensor, Tensor] | None = None
        self._turns: Tensor | None = None

    # ---- what it is ------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def image_size(self) -> int:
        return int(self.model.image_size)

    @property
    def hidden_dim(self) -> int:
        return self.model.hidden_dim

    @property
    def mem_dim(self) -> int:
        return self.model.mem_dim

    @property
    def mask_size(self) -> int:
        return self.model.sam_prompt_encoder.mask_input_size[0]

    @property
    def side(self) -> int:
        """Of the coarsest feature map, and of a spatial memory."""
        return self.model.image_size // self.model.backbone_stride

    @property
    def queries(self) -> int:
        return self.side**2

    memory_tokens = queries

    @property
    def absent_alike(self) -> bool:
        # The mask is a constant then, and the pointer is the one for "not there".
        model = self.model
        blank = model.pred_obj_scores and model.fixed_no_obj_ptr and not model.soft_no_obj_ptr
        return blank and model.use_obj_ptrs_in_encoder

    @property
    def telling_weights(self) -> Tensor:
        return self.model.maskmem_tpos_enc

    @property
    def encodes_alone(self) -> bool:
        return self.parts.encodes_alone

    def filled_up(self, rows: int) -> int:
        return self.parts.filled_up(rows)

    def rules(self, num_frames: int | None) -> BankRules:
        model = self.model
        limit, prompted = model.max_obj_ptrs_in_encoder, model.max_cond_frames_in_attn
        return BankRules(
            num_spatial=model.num_maskmem - 1,
            num_pointers=limit if num_frames is None else min(num_frames, limit),
            use_pointers=model.use_obj_ptrs_in_encoder,
            pointers_from_past_only=model.only_obj_ptrs_in_the_past_for_eval,
            signed_positions=model.use_signed_tpos_enc_to_obj_ptrs,
            stride=model.memory_temporal_stride_for_eval,
            max_prompted=prompted if prompted > 0 else NO_BOUND,
        )

    # ---- encode ----------------------------------------------------------------------------------------------

    def encode(self, images: Tensor) -> list[FrameFeatures]:
        out = self.parts.encode(images)
        maps, positions = out["backbone_fpn"], out["vision_pos_enc"]
        if "forward" in vars(self.model.image_encoder):  # compiled by sam2 into CUDA graphs, which reuse their outputs
            maps, positions = [each.clone() for each in maps], [each.clone() for each in positions]
        frames = []
        for i in range(len(images)):
            own = {"backbone_fpn": [m[i : i + 1] for m in maps], "vision_pos_enc": [p[i : i + 1] for p in positions]}
            frames.append(FrameFeatures(*self.model._prepare_backbone_features(own)[1:]))
        return frames

    # ---- read ------------------------------------------------------------------------------------------------

    def memory_positions(self, dtype: torch.dtype) -> Tensor:
        like = torch.zeros(1, self.model.mem_dim, self.side, self.side, device=self.device)
        grid = self.model.memory_encoder.position_encoding(like).to(dtype)
        grid = grid.flatten(2).permute(2, 0, 1)  # [hw, 1, C]
        return torch.stack([grid + slot for slot in self.model.maskmem_tpos_enc])

    def pointer_positions(self, steps: Tensor, num_pointers: int) -> Tensor | None:
        model = self.model
        if not model.add_tpos_enc_to_obj_ptrs:
            return None
        width = model.hidden_dim if model.proj_tpos_enc_in_obj_ptrs else model.mem_dim
        return model.obj_ptr_tpos_proj(get_1d_sine_pe(steps / (num_pointers - 1), dim=width))

    def read(self, features: FrameFeatures, bank: Bank) -> tuple[Tensor, Tensor | None]:
        current, position = features.levels[-1], features.positions[-1]  # [hw, 1, D]
        current, position = current.transpose(0, 1), position.transpose(0, 1)  # [1, hw, D]
        mattered = None
        if bank.kept is None:
            x = self.parts.attend(current, position, bank.memory, bank.positions, bank.pointer_tokens)
        else:
            attention = self.model.memory_attention
            if self._turns is None or self._turns.device != self.device:
                self._turns = turns_of(attention, self.side).to(self.device)
            x, mattered = attend_sparsely(attention, current, position, bank, self._turns)
        return x.transpose(1, 2).view(len(x), self.model.hidden_dim, self.side, self.side), mattered

    # ---- decode ----------------------------------------------------------------------------------------------

    def decode(self, features: FrameFeatures, conditioned: Tensor) -> Decoded:
        model, rows = self.model, conditioned.shape[0]
        sparse, dense, places = self._no_prompt()
        masks, ious, tokens, logits = self.parts.decode(
            image_embeddings=conditioned,
            image_pe=places,
            sparse_prompt_embeddings=sparse.expand(rows, -1, -1),
            dense_prompt_embeddings=dense.expand(rows, -1, -1, -1),
            multimask_output=model._use_multimask(is_init_cond_frame=False, point_inputs=None),
            repeat_image=False,
            high_res_features=features.fine_maps(rows) or None,
        )
        if model.pred_obj_scores:
            masks = torch.where((logits > 0)[:, :, None, None], masks, NO_OBJ_SCORE)
        return masks.float(), ious, tokens, logits

    def _no_prompt(self) -> tuple[Tensor, Tensor, Tensor]:
        """The prompt encoder's embedding of "nothing was clicked", and that of places; they never change."""
        if self._empty_prompt is None or self._empty_prompt[0].device != self.device:
            nowhere = torch.zeros(1, 1, 2, device=self.device)
            padding = -torch.ones(1, 1, dtype=torch.int32, device=self.device)
            encoder = self.model.sam_prompt_encoder
            sparse, dense = encoder(points=(nowhere, padding), boxes=None, masks=None)
            self._empty_prompt = sparse, dense, encoder.get_dense_pe()
        return self._empty_prompt

    # ---- write -----------------------------------------------------------------------------------------------

    def write(
        self, features: FrameFeatures, candidates: Tensor, ks: Tensor, tokens: Tensor, object_logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        # All K are enlarged although one is needed: torch's kernel, and with it the last bit, depends on
        # the number of channels, and sam2 enlarges all K.
        each = torch.arange(len(ks), device=self.device)
        high_res = self._enlarged(candidates)[each, ks].unsqueeze(1)  # [U, 1, S, S]
        pointers = self._pointers(tokens, object_logits)
        return self._written(features, high_res, object_logits, from_points=False), pointers

    def _pointers(self, tokens: Tensor, object_logits: Tensor) -> Tensor:
        model = self.model
        pointers = model.obj_ptr_proj(tokens)
        if model.pred_obj_scores and model.use_obj_ptrs_in_encoder:
            present = object_logits.sigmoid() if model.soft_no_obj_ptr else (object_logits > 0).float()
            if model.fixed_no_obj_ptr:
                pointers = present * pointers
            pointers = pointers + (1 - present) * model.no_obj_ptr
        return pointers

    def _written(self, features: FrameFeatures, high_res: Tensor, object_logits: Tensor, from_points: bool) -> Tensor:
        """Spatial memories [U, C, h, w] bfloat16 (float16 where that is computed in) of masks [U, 1, S, S]."""
        # sam2 runs objects one by one, where its flag does nothing; our rows share a batch.
        size = 1 if self.model.non_overlap_masks_for_mem_enc else len(high_res)
        spatial = [
            self.parts.write(
                current_vision_feats=features.rows(len(masks)),
                feat_sizes=features.sizes,
                pred_masks_high_res=masks,
                object_score_logits=logits,
                is_mask_from_pts=from_points,
            )[0]
            for masks, logits in zip(high_res.split(size), object_logits.split(size), strict=True)
        ]
        spatial = spatial[0] if len(spatial) == 1 else torch.cat(spatial)
        return spatial if spatial.dtype == torch.float16 else spatial.to(torch.bfloat16)  # as sam2 keeps them

    def _enlarged(self, masks: Tensor) -> Tensor:
        """Low-resolution logits at the size of the model's input."""
        return enlarged(masks, self.image_size, self.image_size)

    # ---- prompts ---------------------------------------------------------------------------------------------

    def prompt(
        self,
        features: FrameFeatures,
        *,
        points: Points | None,
        mask: Tensor | None,
        previous: Tensor | None,
        conditioned: Tensor | None,
    ) -> PromptOutput:
        point_inputs = None if points is None else {"point_coords": points[0], "point_labels": points[1]}
        if conditioned is not None:
            _, _, _, low_res, _, pointer, logit = self.model._forward_sam_heads(
                backbone_features=conditioned,
                point_inputs=point_inputs,
                mask_inputs=previous,
                high_res_features=features.fine_maps(1) or None,
                multimask_output=self.model._use_multimask(is_init_cond_frame=False, point_inputs=point_inputs),
            )
            return PromptOutput(low_res, pointer, logit)
        out = self.model.track_step(
            frame_idx=0,
            is_init_cond_frame=True,
            current_vision_feats=features.levels,
            current_vision_pos_embeds=features.positions,
            feat_sizes=features.sizes,
            point_inputs=point_inputs,
            mask_inputs=mask,
            output_dict={"cond_frame_outputs": {}, "non_cond_frame_outputs": {}},
            num_frames=1,
            run_mem_encoder=False,
            prev_sam_mask_logits=previous,
        )
        return PromptOutput(out["pred_masks"], out["obj_ptr"], out["object_score_logits"])

    def write_prompt(self, features: FrameFeatures, output: PromptOutput, mask: Tensor | None) -> Tensor:
        # From the low-resolution mask whatever was given, as sam2's video predictor does it.
        return self._written(features, self._enlarged(output.mask), output.object_logit, from_points=True)

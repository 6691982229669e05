"""The seam into sam2: with parts.py, image_encoder.py and memory_read.py the only file that touches protected names.

Names relied on, each once, as of sam2 1.1.0 (facebookresearch/sam2, commit 2b90b9f, sam2/modeling/sam2_base.py).
tests/test_sam2_contract.py pins them, so that a new sam2 release fails there first.

  forward_image, _prepare_backbone_features   image features, once per frame (image_encoder.py)
  sam_prompt_encoder, sam_mask_decoder        the decoder; `_forward_sam_heads` gives only the best pointer
  obj_ptr_proj, no_obj_ptr                    the pointers of the other candidates
  _use_multimask, _forward_sam_heads          clicks on a frame that has memory
  track_step                                  prompts on a frame without memory
  _encode_new_memory                          the memory write
  PositionEmbeddingSine.cache                 filled on the first GPU when a model is made
  SAM2ImagePredictor._bb_feat_sizes           written down for 1024 px; other models need their own
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sam2long.config import Sam2LongConfig
from sam2long.method.memory import BankRules, Reading
from sam2long.network.features import FrameFeatures
from sam2long.network.image_encoder import sam2_image_encoder
from sam2long.network.memory_read import Sam2MemoryReader
from sam2long.network.parts import Parts
from sam2long.network.tracker_model import (
    NO_OBJ_SCORE,
    ROW_BUDGET,
    Points,
    PromptOutput,
    Proposals,
    Remembered,
    TrackerModel,
)

if TYPE_CHECKING:
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator


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
    """sam2 computes position encodings ahead on the first GPU, wherever the model is to run: a copy on every frame."""
    for module in model.modules():
        if isinstance(module, PositionEmbeddingSine):
            module.cache = {key: value for key, value in module.cache.items() if value.device == model.device}


class Sam2Model(TrackerModel):
    """A sam2 model as a `TrackerModel`.

    Args:
        model: any SAM2Base in eval mode. It is used as it is and never changed.
        modulation: key weights of the least and the most visible memory; (1, 1) leaves attention untouched.
        dtype: float32, or what autocast computes in.
        row_budget: bytes that one batch of rows may take in memory attention; more rows than fit are split.
        sparse_share: of a memory's tokens, how many stay readable once it is no longer the newest; 1 keeps all.
        parts: the network's calls, eager when None.
        frames_per_pass: of a stored video, for the `ImageEncoder`.
    """

    def __init__(
        self,
        model: SAM2Base,
        modulation: tuple[float, float],
        dtype: torch.dtype = torch.float32,
        row_budget: int = ROW_BUDGET,
        sparse_share: float = 1.0,
        parts: Parts | None = None,
        frames_per_pass: int | None = None,
    ) -> None:
        parts = parts or Parts.eager(model)
        super().__init__(
            model,
            sam2_image_encoder(model, parts, frames_per_pass),
            Sam2MemoryReader(model, modulation, sparse_share, parts),
            dtype,
            row_budget,
        )
        self.parts = parts
        self.batch_of = parts.rows
        self._empty_prompt: tuple[Tensor, Tensor, Tensor] | None = None

    def read_as(self, config: Sam2LongConfig) -> None:
        self.reader = Sam2MemoryReader(self.model, config.modulation, config.sparse_share, self.parts)

    @property
    def mask_size(self) -> int:
        return self.model.sam_prompt_encoder.mask_input_size[0]

    @property
    def absent_alike(self) -> bool:
        # The mask is a constant then, and the pointer is the one for "not there".
        model = self.model
        blank = model.pred_obj_scores and model.fixed_no_obj_ptr and not model.soft_no_obj_ptr
        return blank and model.use_obj_ptrs_in_encoder

    @property
    def telling_weights(self) -> Tensor:
        return self.model.maskmem_tpos_enc

    def rules(
        self, *, iou_threshold: float, object_aware: bool, max_prompted: int, num_frames: int | None
    ) -> BankRules:
        model = self.model
        limit = model.max_obj_ptrs_in_encoder
        if model.max_cond_frames_in_attn > 0:
            max_prompted = min(max_prompted, model.max_cond_frames_in_attn)
        return BankRules(
            num_spatial=model.num_maskmem - 1,
            num_pointers=limit if num_frames is None else min(num_frames, limit),
            use_pointers=model.use_obj_ptrs_in_encoder,
            pointers_from_past_only=model.only_obj_ptrs_in_the_past_for_eval,
            signed_positions=model.use_signed_tpos_enc_to_obj_ptrs,
            stride=model.memory_temporal_stride_for_eval,
            iou_threshold=iou_threshold,
            object_aware=object_aware,
            max_prompted=max_prompted,
            sparse=self.reader.sparse_share < 1,
        )

    # ---- propose ---------------------------------------------------------------------------------------------

    def _decode(self, features: FrameFeatures, conditioned: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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

    # ---- remember --------------------------------------------------------------------------------------------

    def _remember_batch(
        self, features: FrameFeatures, proposals: Proposals, kept: Sequence[tuple[int, int]]
    ) -> list[Remembered]:
        rows, ks = proposals.at(kept)
        candidates = proposals.masks[rows]  # [U, K, 4h, 4w]
        logits = proposals.object_logits[rows]
        each = torch.arange(len(kept), device=self.device)
        masks = candidates[each, ks].unsqueeze(1)  # [U, 1, 4h, 4w]
        # All K are enlarged although one is needed: torch's kernel, and with it the last bit, depends on
        # the number of channels, and sam2 enlarges all K.
        high_res = self._enlarge(candidates)[each, ks].unsqueeze(1)
        pointers = self._pointers(proposals.tokens_of(rows, ks), logits)
        spatial = self._write(features, high_res, logits, from_points=False)
        return self._remembered(masks, spatial, pointers)

    def _pointers(self, tokens: Tensor, object_logits: Tensor) -> Tensor:
        model = self.model
        pointers = model.obj_ptr_proj(tokens)
        if model.pred_obj_scores and model.use_obj_ptrs_in_encoder:
            present = object_logits.sigmoid() if model.soft_no_obj_ptr else (object_logits > 0).float()
            if model.fixed_no_obj_ptr:
                pointers = present * pointers
            pointers = pointers + (1 - present) * model.no_obj_ptr
        return pointers

    def _write(self, features: FrameFeatures, high_res: Tensor, object_logits: Tensor, from_points: bool) -> Tensor:
        """Spatial memories [U, C, h, w] bfloat16 of masks [U, 1, S, S]."""
        spatial, _ = self.parts.write(
            current_vision_feats=features.rows(high_res.shape[0]),
            feat_sizes=features.sizes,
            pred_masks_high_res=high_res,
            object_score_logits=object_logits,
            is_mask_from_pts=from_points,
        )
        return spatial.to(torch.bfloat16)

    # ---- prompts ---------------------------------------------------------------------------------------------

    def prompt(
        self,
        features: FrameFeatures,
        *,
        points: Points | None = None,
        mask: Tensor | None = None,
        previous: Tensor | None = None,
        reading: Reading | None = None,
        num_pointers: int = 1,
    ) -> PromptOutput:
        point_inputs = None if points is None else {"point_coords": points[0], "point_labels": points[1]}
        if points is not None and reading is not None:
            _, _, _, low_res, _, pointer, logit = self.model._forward_sam_heads(
                backbone_features=self.condition(features, [reading], num_pointers)[0],
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

    def remember_prompt(self, features: FrameFeatures, output: PromptOutput, mask: Tensor | None = None) -> Tensor:
        # From the low-resolution mask whatever was given, as sam2's video predictor does it.
        return self._write(features, self._enlarge(output.mask), output.object_logit, from_points=True)

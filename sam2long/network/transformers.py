"""The seam into transformers: SAM 2, EdgeTAM and SAM 3's tracker, which are one machine under three class names.

Names relied on, of Sam2VideoModel, EdgeTamVideoModel and Sam3TrackerVideoModel, as of transformers 5.24.
tests/test_transformers.py compares with their own sessions, so that a new release fails there first.

  get_image_features, backbone_feature_sizes          image features, once per frame
  get_image_wide_positional_embeddings,
    prompt_encoder, mask_decoder                      the decoder; `_single_frame_forward` gives only the best pointer
  object_pointer_proj, no_object_pointer              the pointers of the other candidates
  _use_multimask, _single_frame_forward,
    _use_mask_as_output, no_memory_embedding          prompts
  _encode_new_memory                                  the memory write
  memory_attention                                    the memory read
  memory_encoder.position_encoding, spatial_perceiver,
    memory_temporal_positional_encoding               positions of spatial memories
  temporal_positional_encoding_projection_layer       positions of object pointers
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sam2long.method.memory import NO_BOUND, BankRules
from sam2long.network.masks import enlarged
from sam2long.network.protocol import NO_OBJ_SCORE, Bank, Decoded, FrameFeatures, Points, PromptOutput

NEEDED = (
    "get_image_features", "backbone_feature_sizes", "get_image_wide_positional_embeddings", "prompt_encoder",
    "mask_decoder", "object_pointer_proj", "no_object_pointer", "no_memory_embedding", "memory_attention",
    "memory_encoder", "memory_temporal_positional_encoding", "temporal_positional_encoding_projection_layer",
    "_use_multimask", "_single_frame_forward", "_use_mask_as_output", "_encode_new_memory",
)  # fmt: skip


def lacking(model: Any) -> str | None:
    """The first name that a model lacks to be one of those above; None: it is."""
    return next((name for name in NEEDED if not hasattr(model, name)), None)


def coarsest(model: nn.Module) -> tuple[int, int]:
    """Height and width of the feature map that memories are made of."""
    height, width = model.backbone_feature_sizes[-1]
    return int(height), int(width)


class TransformersNetwork:
    """A transformers video model as a `Network`.

    Args:
        model: Sam2VideoModel, EdgeTamVideoModel or Sam3TrackerVideoModel in eval mode. Used as it is, never changed.
        mean, std, resize: what the model's processor does to frames.
    """

    encodes_alone = False
    absent_alike = True  # the mask is a constant then, and the pointer is the one for "not there"

    def __init__(self, model: nn.Module, *, mean: Sequence[float], std: Sequence[float], resize: str) -> None:
        self.model = model
        (r, g, b), self.resize = mean, resize
        self.mean = r, g, b
        r, g, b = std
        self.std = r, g, b
        self._empty_prompt: tuple[Tensor, Tensor] | None = None
        self._memory_tokens: int | None = None

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
        return self.model.prompt_encoder.mask_input_size[0]

    @property
    def queries(self) -> int:
        height, width = coarsest(self.model)
        return height * width

    @property
    def memory_tokens(self) -> int:
        if not self.compressed:
            return self.queries
        if self._memory_tokens is None:
            self._memory_tokens = self.memory_positions(self.model.dtype).shape[1]
        return self._memory_tokens

    @property
    def compressed(self) -> bool:
        """Whether a memory is compressed into fewer tokens, by EdgeTAM's perceiver."""
        return hasattr(self.model, "spatial_perceiver")

    @property
    def telling_weights(self) -> Tensor:
        return self.model.memory_temporal_positional_encoding

    def filled_up(self, rows: int) -> int:
        return rows

    def rules(self, num_frames: int | None) -> BankRules:
        own = self.model.config
        limit, prompted = own.max_object_pointers_in_encoder, own.max_cond_frame_num
        return BankRules(
            num_spatial=self.model.num_maskmem - 1,
            num_pointers=limit if num_frames is None else min(num_frames, limit),
            max_prompted=prompted if prompted > 0 else NO_BOUND,
        )

    # ---- encode ----------------------------------------------------------------------------------------------

    def encode(self, images: Tensor) -> list[FrameFeatures]:
        out = self.model.get_image_features(images.to(self.model.dtype), return_dict=True)
        sizes = [(int(height), int(width)) for height, width in self.model.backbone_feature_sizes]

        def of(maps: Sequence[Tensor], i: int) -> list[Tensor]:
            return [each[:, i : i + 1] if each.shape[1] > 1 else each for each in maps]

        maps, positions = out.fpn_hidden_states, out.fpn_position_encoding
        return [FrameFeatures(of(maps, i), of(positions, i), sizes) for i in range(len(images))]

    # ---- read ------------------------------------------------------------------------------------------------

    def memory_positions(self, dtype: torch.dtype) -> Tensor:
        model, (height, width) = self.model, coarsest(self.model)
        shape = torch.Size((1, model.mem_dim, height, width))
        grid = model.memory_encoder.position_encoding(shape, self.device, dtype)  # [1, C, h, w]
        if not self.compressed:
            grid = grid.flatten(2).permute(2, 0, 1)  # [hw, 1, C]
        else:  # its positions depend on nothing that is in the memory
            blank = torch.zeros(shape, device=self.device, dtype=model.dtype)
            grid = model.spatial_perceiver(blank, grid.to(model.dtype))[1].to(dtype).transpose(0, 1)  # [n, 1, C]
        return torch.stack([grid + slot for slot in model.memory_temporal_positional_encoding])

    def pointer_positions(self, steps: Tensor, num_pointers: int) -> Tensor | None:
        from transformers.models.sam2_video.modeling_sam2_video import get_1d_sine_pe

        model = self.model
        if not model.config.enable_temporal_pos_encoding_for_object_pointers:
            return None
        waves = get_1d_sine_pe(steps / float(num_pointers - 1), dim=model.hidden_dim)
        return model.temporal_positional_encoding_projection_layer(waves.to(model.dtype))

    def read(self, features: FrameFeatures, bank: Bank) -> tuple[Tensor, None]:
        model, rows = self.model, len(bank.memory)
        positions = bank.positions.expand(rows, -1, -1).transpose(0, 1).to(model.dtype)
        more = {}
        if self.compressed:
            spatial = bank.memory.shape[1] - bank.pointer_tokens
            more["num_spatial_memory_tokens"] = spatial // self.memory_tokens  # of memories, whatever its name
        read = model.memory_attention(
            current_vision_features=features.levels[-1].expand(-1, rows, -1),
            current_vision_position_embeddings=features.positions[-1].expand(-1, rows, -1),
            memory=bank.memory.transpose(0, 1).to(model.dtype),
            memory_posision_embeddings=positions,  # spelt like that there
            num_object_pointer_tokens=bank.pointer_tokens,
            **more,
        )  # [1, R, hw, D]
        return read[0].transpose(1, 2).reshape(rows, model.hidden_dim, *coarsest(model)), None

    # ---- decode ----------------------------------------------------------------------------------------------

    def decode(self, features: FrameFeatures, conditioned: Tensor) -> Decoded:
        rows = conditioned.shape[0]
        sparse, dense = (part.expand(rows, -1, -1, -1) for part in self._no_prompt())
        found = self.model.mask_decoder(
            image_embeddings=conditioned,
            image_positional_embeddings=self.model.get_image_wide_positional_embeddings().expand(rows, -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=self.model._use_multimask(is_init_cond_frame=False, point_inputs=None),
            high_resolution_features=features.fine_maps(rows),
        )  # each with a dimension for several prompts per image, of which there is one
        masks, ious, tokens, logits = (each[:, 0] for each in found)
        masks = torch.where((logits > 0)[:, :, None, None], masks, NO_OBJ_SCORE)
        return masks.float(), ious, tokens, logits

    def _no_prompt(self) -> tuple[Tensor, Tensor]:
        """The prompt encoder's embedding of "nothing was clicked"; it never changes."""
        if self._empty_prompt is None or self._empty_prompt[0].device != self.device:
            nowhere = torch.zeros(1, 1, 1, 2, device=self.device, dtype=self.model.dtype)
            padding = -torch.ones(1, 1, 1, dtype=torch.int32, device=self.device)
            self._empty_prompt = self.model.prompt_encoder(nowhere, padding, None, None)
        return self._empty_prompt

    # ---- write -----------------------------------------------------------------------------------------------

    def write(
        self, features: FrameFeatures, candidates: Tensor, ks: Tensor, tokens: Tensor, object_logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        masks = candidates[torch.arange(len(ks), device=self.device), ks].unsqueeze(1)  # [U, 1, 4h, 4w]
        present = (object_logits > 0).to(tokens.dtype)
        pointers = present * self.model.object_pointer_proj(tokens) + (1 - present) * self.model.no_object_pointer
        return self._written(features, self._enlarged(masks), object_logits, prompted=False), pointers

    def _written(self, features: FrameFeatures, high_res: Tensor, object_logits: Tensor, prompted: bool) -> Tensor:
        """Spatial memories [U, C, n] of masks [U, 1, S, S], in the precision in which they are kept there."""
        compressed, rows = self.compressed, len(high_res)
        # EdgeTAM's perceiver takes one memory at a time, as of transformers 5.24.
        parts = [slice(i, i + 1) for i in range(rows)] if compressed else [slice(0, rows)]
        written = [
            self.model._encode_new_memory(
                current_vision_feats=features.levels[-1].expand(-1, part.stop - part.start, -1),
                pred_masks_high_res=high_res[part].to(self.model.dtype),
                object_score_logits=object_logits[part, None],
                is_mask_from_pts=prompted,
            )[0]
            for part in parts
        ]
        return torch.cat(written).transpose(1, 2) if compressed else written[0].permute(1, 2, 0)

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
        model, fine = self.model, features.fine_maps(1)
        if mask is not None:
            out = model._use_mask_as_output(features.maps(-1, 1), fine, mask.to(model.dtype))
        else:
            assert points is not None  # a prompt is a mask or points
            labels, first = points[1][:, None], conditioned is None
            if first:
                conditioned = features.maps(-1, 1) + model.no_memory_embedding.reshape(1, -1, 1, 1)
            out = model._single_frame_forward(
                input_points=points[0][:, None].to(model.dtype),
                input_labels=labels,
                input_masks=None if previous is None else previous.to(model.dtype),
                image_embeddings=[*fine, conditioned],
                multimask_output=model._use_multimask(first, {"point_labels": labels}),
            )
        return PromptOutput(
            out.pred_masks.float().reshape(1, 1, self.mask_size, self.mask_size),
            out.object_pointer.reshape(1, -1),
            out.object_score_logits.float().reshape(1, 1),
        )

    def write_prompt(self, features: FrameFeatures, output: PromptOutput, mask: Tensor | None) -> Tensor:
        # A mask that was given is remembered as it was given; sam2's predictor remembers it at low resolution.
        high_res = self._enlarged(output.mask) if mask is None else torch.where(mask, 10.0, -10.0)[None, None]
        return self._written(features, high_res, output.object_logit, prompted=True)

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

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam2_base import NO_OBJ_SCORE, SAM2Base
from torch import Tensor

from sam2long.config import Sam2LongConfig
from sam2long.errors import StateError
from sam2long.method.memory import BankRules, Reading
from sam2long.method.tree import Verdict
from sam2long.network.devices import read_out, tensor_on
from sam2long.network.image_encoder import FrameFeatures, ImageEncoder
from sam2long.network.memory_read import MemoryReader
from sam2long.network.parts import Parts

if TYPE_CHECKING:
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

__all__ = [
    "NO_OBJ_SCORE",
    "PromptOutput",
    "Proposals",
    "Remembered",
    "Sam2Model",
    "automatic_mask_generator",
    "forget_positions_elsewhere",
]

ROW_BUDGET = 2 << 30  # bytes
Points = tuple[Tensor, Tensor]  # coordinates [1, n, 2] in model pixels, labels [1, n] int32


@dataclass(frozen=True, slots=True, eq=False)
class Proposals:
    """K mask candidates for each of R rows; U of them are different, and computed.

    Tensors stay on the device; the verdicts are plain numbers.
    """

    masks: Tensor  # [U, K, 4h, 4w] float32 logits; constant NO_OBJ_SCORE where the object is absent
    tokens: Tensor  # [U, K or 1, D] decoder tokens that object pointers are made of
    object_logits: Tensor  # [U, 1]
    places: list[int]  # of each row, where it stands in the tensors
    verdicts: list[Verdict]  # of each row
    kept_tokens: list[Tensor | None]  # of each row's newest memory, [layers, n], when memories are read sparsely

    def at(self, kept: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Indices into the tensors of (row, k) pairs, on the device."""
        return tensor_on(self.masks.device, [(self.places[row], k) for row, k in kept]).unbind(1)


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """One kept candidate, ready to become a memory."""

    mask: Tensor  # [1, 1, 4h, 4w] float32 logits
    mask_features: Tensor  # [1, C, h, w] bfloat16
    object_ptr: Tensor  # [1, D]


@dataclass(frozen=True, slots=True, eq=False)
class PromptOutput:
    """What SAM 2 makes of a prompt."""

    mask: Tensor  # [1, 1, 4h, 4w] float32 logits
    object_ptr: Tensor  # [1, D]
    object_logit: Tensor  # [1, 1]


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


class Sam2Model:
    """A sam2 model seen as five steps: `encoder`, propose, remember, prompt, remember_prompt.

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
        self.model = model
        self.parts = parts or Parts.eager(model)
        self.encoder = ImageEncoder(model, self.parts, frames_per_pass)
        self.reader = MemoryReader(model, modulation, sparse_share, self.parts)
        self.dtype = dtype
        self.row_budget = row_budget
        self.while_waiting: Callable[[], None] | None = None  # gives a GPU something to do while the host decides
        self.rows_read = 0  # how many rows went through memory attention and decoder
        self._empty_prompt: tuple[Tensor, Tensor] | None = None

    def read_as(self, config: Sam2LongConfig) -> None:
        """Take over how another session read its memories."""
        self.reader = MemoryReader(self.model, config.modulation, config.sparse_share, self.parts)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @contextmanager
    def running(self) -> Iterator[None]:
        """Everything that calls the network runs in here: no autograd, our precision, whatever the caller has set."""
        kind = self.device.type
        mixed = self.dtype != torch.float32
        with torch.inference_mode(), torch.autocast(kind, dtype=self.dtype if mixed else None, enabled=mixed):
            yield

    @property
    def mask_size(self) -> int:
        """Side of the low-resolution masks, which are what the prompt encoder takes as a mask prompt."""
        return self.model.sam_prompt_encoder.mask_input_size[0]

    def absent(self) -> Tensor:
        """The mask of an object that is not there, [1, 1, 4h, 4w] float32 logits."""
        return torch.full((1, 1, self.mask_size, self.mask_size), NO_OBJ_SCORE, device=self.device)

    @property
    def feature_size(self) -> int:
        """Side of the coarsest feature map, and of a spatial memory."""
        return self.reader.side

    def rules(
        self,
        *,
        iou_threshold: float,
        object_aware: bool,
        max_prompted: int,
        num_frames: int | None,
        direction: int,
    ) -> BankRules:
        """The sizes of this model's bank. `num_frames`: length of the video, None for an endless stream."""
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
            direction=direction,
        )

    # ---- propose ---------------------------------------------------------------------------------------------

    def propose(self, features: FrameFeatures, readings: Sequence[Reading], num_pointers: int) -> Proposals:
        """K candidates for every reading, in batches; the numbers come to the CPU in one transfer.

        Readings that are the same are computed once: pathways whose pasts differ in nothing that is still read, as
        after an absence.

        Args:
            features: of the frame.
            readings: R memory readings; row r of the result belongs to readings[r].
            num_pointers: M, which divides the pointers' temporal positions.
        """
        keys = [reading.key for reading in readings]
        distinct = dict(zip(keys, readings, strict=True))
        place_of = {key: place for place, key in enumerate(distinct)}
        places, readings = [place_of[key] for key in keys], list(distinct.values())
        self.rows_read += len(readings)
        batches = self._batches(readings)
        parts, kept_tokens = [], [None] * len(readings)
        for batch in batches:
            part, mattered = self._propose_batch(features, [readings[row] for row in batch], num_pointers)
            parts.append(part)
            if mattered is not None:
                for row, tokens in zip(batch, mattered, strict=True):
                    kept_tokens[row] = tokens.clone()  # a view would keep the whole batch alive
        if len(batches) == 1:
            masks, ious, tokens, logits = parts[0]
        else:
            order = [row for batch in batches for row in batch]
            back = tensor_on(self.device, sorted(range(len(order)), key=order.__getitem__))
            masks, ious, tokens, logits = (torch.cat(part)[back] for part in zip(*parts, strict=True))
        numbers = read_out(torch.cat([ious.float(), logits.float()], dim=1), self.while_waiting)  # the one host sync
        verdicts = []
        for *row_ious, logit in numbers:
            if not all(map(math.isfinite, (*row_ious, logit))):
                raise StateError(
                    "the mask decoder returned a number that is not finite; "
                    'try dtype="float32", and check that the weights belong to this config'
                )
            verdicts.append(Verdict(tuple(row_ious), logit))
        return Proposals(
            masks, tokens, logits, places,
            verdicts=[verdicts[place] for place in places],
            kept_tokens=[kept_tokens[place] for place in places],
        )  # fmt: skip

    def agreement(self, proposals: Proposals, kept: Sequence[tuple[int, int]]) -> list[list[float]]:
        """IoU of each kept candidate's mask with each other's; 1 where both are empty. kept: U (row, k) pairs."""
        rows, ks = proposals.at(kept)
        inside = (proposals.masks[rows, ks].flatten(1) > 0).float()  # [U, pixels]
        with torch.autocast(self.device.type, enabled=False):  # counts of pixels have more digits than bfloat16
            both = inside @ inside.T
        area = inside.sum(1)
        either = area[:, None] + area[None] - both
        return torch.where(either > 0, both / either.clamp(min=1), 1.0).tolist()

    def _batches(self, readings: Sequence[Reading]) -> list[list[int]]:
        """Row numbers grouped by bank shape, each group small enough for the row budget."""
        groups: dict[tuple, list[int]] = defaultdict(list)
        for row, reading in enumerate(readings):
            groups[reading.layout].append(row)
        batches = []
        for rows in groups.values():
            size = self._rows_per_batch(readings[rows[0]])
            batches += [rows[start : start + size] for start in range(0, len(rows), size)]
        return batches

    def _rows_per_batch(self, reading: Reading) -> int:
        model = self.model
        # Keys, values, their RoPE copies and the tokens themselves, in float32.
        token_bytes = 4 * (6 * model.hidden_dim + 2 * model.mem_dim)
        return max(1, self.row_budget // ((self.reader.tokens(reading) + self.feature_size**2) * token_bytes))

    def _propose_batch(
        self, features: FrameFeatures, readings: Sequence[Reading], num_pointers: int
    ) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor | None]:
        conditioned, mattered = self.condition(features, readings, num_pointers)
        return self._decode(features, conditioned), mattered

    def condition(
        self, features: FrameFeatures, readings: Sequence[Reading], num_pointers: int
    ) -> tuple[Tensor, Tensor | None]:
        """Image features that have read their memories, [R, D, h, w]; and which tokens of the newest one mattered.

        Readings must have one layout.
        """
        bank = self.reader.assemble(readings, num_pointers)
        return self.reader.read(features.levels[-1], features.positions[-1], bank)

    def _decode(self, features: FrameFeatures, conditioned: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Masks [R, K, 4h, 4w], IoUs [R, K], tokens [R, K or 1, D], object logits [R, 1]."""
        model, rows = self.model, conditioned.shape[0]
        sparse, dense = self._no_prompt()
        masks, ious, tokens, logits = self.parts.decode(
            image_embeddings=conditioned,
            image_pe=model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse.expand(rows, -1, -1),
            dense_prompt_embeddings=dense.expand(rows, -1, -1, -1),
            multimask_output=model._use_multimask(is_init_cond_frame=False, point_inputs=None),
            repeat_image=False,
            high_res_features=self._high_res(features, rows),
        )
        if model.pred_obj_scores:
            masks = torch.where((logits > 0)[:, :, None, None], masks, NO_OBJ_SCORE)
        return masks.float(), ious, tokens, logits

    def _no_prompt(self) -> tuple[Tensor, Tensor]:
        """The prompt encoder's embedding of "nothing was clicked"; it never changes."""
        if self._empty_prompt is None or self._empty_prompt[0].device != self.device:
            nowhere = torch.zeros(1, 1, 2, device=self.device)
            padding = -torch.ones(1, 1, dtype=torch.int32, device=self.device)
            self._empty_prompt = self.model.sam_prompt_encoder(points=(nowhere, padding), boxes=None, masks=None)
        return self._empty_prompt

    def _high_res(self, features: FrameFeatures, rows: int) -> list[Tensor] | None:
        if len(features.levels) < 2:
            return None
        return [features.maps(level, rows) for level in range(len(features.levels) - 1)]

    # ---- remember --------------------------------------------------------------------------------------------

    def remember(
        self, features: FrameFeatures, proposals: Proposals, kept: Sequence[tuple[int, int]]
    ) -> list[Remembered]:
        """Pointers and spatial memories of the kept candidates, in batches. kept: (row, k) pairs.

        Candidates that are the same get the same tensors: that is how `propose` finds equal readings.
        """
        first: dict[Any, tuple[int, int]] = {}
        same = [first.setdefault(self._content(proposals, row, k), (row, k)) for row, k in kept]
        size, unique, entries = self._candidates_per_batch(proposals), list(first.values()), {}
        for start in range(0, len(unique), size):
            part = unique[start : start + size]
            entries |= zip(part, self._remember_batch(features, proposals, part), strict=True)
        return [entries[candidate] for candidate in same]

    def _content(self, proposals: Proposals, row: int, k: int) -> Any:
        """Equal for candidates of which the same is remembered: those of one row and k, and all that are absent."""
        model = self.model
        blank = model.pred_obj_scores and model.fixed_no_obj_ptr and not model.soft_no_obj_ptr
        if blank and model.use_obj_ptrs_in_encoder and proposals.verdicts[row].object_logit <= 0:
            return None  # the mask is a constant, and the pointer is the one for "not there"
        return proposals.places[row], k

    def _candidates_per_batch(self, proposals: Proposals) -> int:
        # All K masks at the model's size, and the mask downsampler's first maps, which are about as large.
        return max(1, self.row_budget // (4 * 3 * proposals.masks.shape[1] * self.model.image_size**2))

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
        tokens = proposals.tokens[rows, ks] if proposals.tokens.shape[1] > 1 else proposals.tokens[rows, 0]
        pointers = self._pointers(tokens, logits)
        spatial = self._write(features, high_res, logits, from_points=False)
        # Clones: a view would keep the whole batch alive for as long as one of its memories lives.
        own = (lambda tensor: tensor.clone()) if len(kept) > 1 else (lambda tensor: tensor)
        return [
            Remembered(own(masks[i : i + 1]), own(spatial[i : i + 1]), own(pointers[i : i + 1]))
            for i in range(len(kept))
        ]

    def _pointers(self, tokens: Tensor, object_logits: Tensor) -> Tensor:
        model = self.model
        pointers = model.obj_ptr_proj(tokens)
        if model.pred_obj_scores and model.use_obj_ptrs_in_encoder:
            present = object_logits.sigmoid() if model.soft_no_obj_ptr else (object_logits > 0).float()
            if model.fixed_no_obj_ptr:
                pointers = present * pointers
            pointers = pointers + (1 - present) * model.no_obj_ptr
        return pointers

    def _enlarge(self, masks: Tensor) -> Tensor:
        side = self.model.image_size
        return F.interpolate(masks, size=(side, side), mode="bilinear", align_corners=False)

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
        """SAM 2's own prompt handling on one frame for one object.

        Args:
            features: of the frame.
            points: clicks and box corners in model pixels; or
            mask: [1, 1, S, S] float 0/1.
            previous: [1, 1, 4h, 4w] mask logits that the new clicks refine.
            reading: the object's memories, when the frame has been tracked before; a mask needs none.
            num_pointers: M, as for `propose`.
        """
        point_inputs = None if points is None else {"point_coords": points[0], "point_labels": points[1]}
        if points is not None and reading is not None:
            _, _, _, low_res, _, pointer, logit = self.model._forward_sam_heads(
                backbone_features=self.condition(features, [reading], num_pointers)[0],
                point_inputs=point_inputs,
                mask_inputs=previous,
                high_res_features=self._high_res(features, 1),
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

    def remember_prompt(self, features: FrameFeatures, output: PromptOutput) -> Tensor:
        """The spatial memory of a prompted frame, [1, C, h, w] bfloat16."""
        return self._write(features, self._enlarge(output.mask), output.object_logit, from_points=True)

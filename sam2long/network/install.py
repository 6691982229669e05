"""Is the `sam2` that Python finds the real one? Forks and clones answer to the same name."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
from pathlib import Path

from sam2long.errors import ModelError

MINIMUM = (1, 1, 0)
NEEDED = (  # of SAM2Base; sam2.py says what for
    "forward_image",
    "_prepare_backbone_features",
    "_forward_sam_heads",
    "_encode_new_memory",
    "_use_multimask",
    "track_step",
)

KNOWN_SETTINGS = frozenset(  # of SAM2Base in sam2 1.1.0
    [
        "self", "image_encoder", "memory_attention", "memory_encoder", "num_maskmem", "image_size",
        "backbone_stride", "sigmoid_scale_for_mem_enc", "sigmoid_bias_for_mem_enc",
        "binarize_mask_from_pts_for_mem_enc", "use_mask_input_as_output_without_sam",
        "max_cond_frames_in_attn", "directly_add_no_mem_embed", "use_high_res_features_in_sam",
        "multimask_output_in_sam", "multimask_min_pt_num", "multimask_max_pt_num",
        "multimask_output_for_tracking", "use_multimask_token_for_obj_ptr", "iou_prediction_use_sigmoid",
        "memory_temporal_stride_for_eval", "non_overlap_masks_for_mem_enc", "use_obj_ptrs_in_encoder",
        "max_obj_ptrs_in_encoder", "add_tpos_enc_to_obj_ptrs", "proj_tpos_enc_in_obj_ptrs",
        "use_signed_tpos_enc_to_obj_ptrs", "only_obj_ptrs_in_the_past_for_eval", "pred_obj_scores",
        "pred_obj_scores_mlp", "fixed_no_obj_ptr", "soft_no_obj_ptr", "use_mlp_for_obj_ptr_proj",
        "no_obj_embed_spatial", "sam_mask_decoder_extra_args", "compile_image_encoder",
    ]
)  # fmt: skip


def sam2_problems() -> list[str]:
    """What is wrong with the installed sam2, one sentence each; empty when it is genuine and new enough."""
    spec = importlib.util.find_spec("sam2")
    if spec is None:
        return ["sam2 is not installed; pip install 'sam2>=1.1.0' (SAM2_BUILD_CUDA=0 spares the CUDA build)"]
    folder = Path(next(iter(spec.submodule_search_locations or [""])))
    if spec.origin is None or (folder / "sam2").is_dir():
        return [
            f"the name sam2 is taken by the folder {folder}, probably a clone of its repository; "
            "run Python from another directory, or move the folder"
        ]
    try:
        version = importlib.metadata.version("sam2")
    except importlib.metadata.PackageNotFoundError:
        version = None  # Meta's repository installs under the name SAM-2; what it holds is checked below
    if version is not None and tuple(int(part) for part in version.split(".")[:3] if part.isdigit()) < MINIMUM:
        return [f"sam2 {version} is too old; pip install 'sam2>=1.1.0'"]
    return _fork_signs(folder)


def _fork_signs(folder: Path) -> list[str]:
    """Forks change the model class: they add settings to it or drop methods from it."""
    from sam2.modeling.sam2_base import SAM2Base

    advice = "uninstall it and pip install 'sam2>=1.1.0'"
    added = sorted(set(inspect.signature(SAM2Base.__init__).parameters) - KNOWN_SETTINGS)
    if added:
        return [f"the sam2 in {folder} is a fork: its model takes settings that Meta's has not ({added[0]}); {advice}"]
    missing = [name for name in NEEDED if not hasattr(SAM2Base, name)]
    if missing:
        return [f"the sam2 in {folder} lacks SAM2Base.{missing[0]}, so it is not Meta's; {advice}"]
    return []


def require_sam2() -> None:
    """Raise ModelError unless the installed sam2 can be used."""
    if problems := sam2_problems():
        raise ModelError(problems[0])

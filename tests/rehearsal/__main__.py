"""What a frame costs on a GPU, counted on a pretended one: python -m tests.rehearsal"""

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported

import torch

from eval.report import markdown_table
from eval.trackers import as_sam2
from sam2long import Sam2LongConfig, build_sam2long_video_predictor
from sam2long.synthetic import generate
from tests.fakes import jpeg_folder
from tests.rehearsal.counting import counted, counted_plain, on_gpu
from tests.rehearsal.ledger import places

SYSTEMS = {
    "plain sam2": None,
    "ours, online": Sam2LongConfig(emit="online"),
    "ours, settled": Sam2LongConfig(),
}


def main() -> int:
    """nano on a generated video."""
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        scene = generate("long", seed=7, num_frames=28, size=128, num_objects=5)
        first = scene.frame(0).ids
        video = str(jpeg_folder(Path(folder), [frame.image for frame in scene]))
        for objects in (1, 5):
            for name, config in SYSTEMS.items():
                options = {} if config is None else {"sam2long": config}
                predictor = build_sam2long_video_predictor(
                    "nano", device="cpu", dtype="float32", apply_postprocessing=False, **options
                )
                predictor = as_sam2(predictor) if config is None else predictor
                with on_gpu(predictor) as gpu:
                    state = predictor.init_state(video)
                    for obj_id in range(1, objects + 1):
                        predictor.add_new_mask(state, 0, obj_id, torch.from_numpy(first == obj_id))
                    run = predictor.propagate_in_video(state)
                    counts = (counted_plain if config is None else counted)(gpu, run)
                row = counts.row()
                rows.append([name, str(objects), *(f"{value:.4g}" for value in row.values())])
                print(rows[-1], file=sys.stderr, flush=True)
                print(f"  waits at {places(counts.waits)}", file=sys.stderr)
    print(markdown_table(["per frame", "objects", *row], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

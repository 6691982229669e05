"""How long a new user waits: from `import sam2long` to the first mask of the embedded model, of a box on 1280x768.

python scripts/first_mask.py
"""

import time

begun = time.perf_counter()

import numpy as np  # noqa: E402

from sam2long import build_sam2long_video_predictor  # noqa: E402
from sam2long.synthetic import generate  # noqa: E402

scene = generate("easy", seed=7, num_frames=2, size=128)
predictor = build_sam2long_video_predictor("nano", device="cpu")
image, mask = (each.repeat(6, 0).repeat(10, 1) for each in (scene.frame(0).image, scene.frame(0).ids == 1))
state = predictor.init_state(image[None])
rows, columns = np.nonzero(mask)
box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
*_, logits = predictor.add_new_points_or_box(state, 0, 1, box=box)
print(f"first mask, {int((logits > 0).sum())} pixels, after {time.perf_counter() - begun:.1f} s")

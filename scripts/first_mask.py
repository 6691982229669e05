"""How long a new user waits: from `import sam2long` to the first mask of the embedded model.

python scripts/first_mask.py
"""

import time

begun = time.perf_counter()

import numpy as np  # noqa: E402

from sam2long import build_sam2long_video_predictor  # noqa: E402
from sam2long.synthetic import generate  # noqa: E402

scene = generate("easy", seed=7, num_frames=2, size=128)
predictor = build_sam2long_video_predictor("nano", device="cpu")
state = predictor.init_state(np.stack([frame.image for frame in scene]))
*_, logits = predictor.add_new_mask(state, 0, 1, scene.frame(0).ids == 1)
print(f"first mask, {int((logits > 0).sum())} pixels, after {time.perf_counter() - begun:.1f} s")

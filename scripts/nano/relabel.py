"""Photographs with better masks and more of them, drawn by MobileSAM: what nano learns to follow.

Polygons are rough, and most things in a photograph are not marked at all. A marked object is drawn anew from the box
around it, unless the answer means something else. Then a grid of clicks finds what else there is, as SAM makes masks of
everything (arXiv 2304.02643, App. B), where the photograph does not say that all is marked.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nano.photos import VOID, Photo, read_photos
from sam2long.network.masks import boxes, enlarged
from sam2long.network.mobilesam import MobileSAM, mobilesam

LEAST = 30  # pixels of an object that is drawn anew
AGREES = 0.75  # IoU with its mask so far
ALL_MARKED = "all_"  # how the names of photographs begin on which all objects are marked
GRID, GLANCE, FOUND = 5, 512, 6  # clicks along each side, pixels of the longer one, and most objects that are found
GOOD, STABLE = 0.88, 0.92  # predicted IoU, and IoU of a mask with itself under another threshold
SHARES = 0.005, 0.3  # of the picture that a found object takes
PIECE, NEW = 0.9, 0.1  # of a found mask: the least in one piece, and the most that is marked already


def relabel(folder: Path, to: Path, device: str = "cpu") -> Counter:
    """Write `folder` again with other masks; a run that was broken off goes on.

    Returns:
        how many objects were drawn anew, kept and found, of the photographs written now.
    """
    network = mobilesam(torch.device(device))
    pictures = {file.stem: file for file in (folder / "images").iterdir()}
    for name in ("images", "masks"):
        (to / name).mkdir(parents=True, exist_ok=True)
    counts: Counter = Counter()
    for photo in read_photos([folder]):
        target = to / "masks" / f"{photo.name}.png"
        if target.exists():
            continue
        ids, numbers = drawn(network, photo)
        counts += numbers
        link = to / "images" / pictures[photo.name].name
        if not link.exists():
            link.symlink_to(pictures[photo.name].resolve())
        Image.fromarray(ids).save(target)
    return counts


@torch.inference_mode()
def drawn(network: MobileSAM, photo: Photo) -> tuple[np.ndarray, Counter]:
    """The ids [H, W] uint8 of a photograph drawn anew, and how many objects were."""
    with torch.autocast(network.mean.device.type, torch.bfloat16):
        masks, anew = marked(network, photo)
        ids = np.zeros_like(photo.ids)
        for k, mask in enumerate(masks, 1):
            ids[mask] = k
        taken = (ids > 0) | (photo.ids > 0)
        more = [] if photo.name.startswith(ALL_MARKED) else found(network, photo.image, taken)
    for k, mask in enumerate(more[: VOID - 1 - len(masks)], 1 + len(masks)):
        ids[mask] = k
    ids[(photo.ids == VOID) & (ids == 0)] = VOID
    return ids, Counter(anew=anew, kept=len(masks) - anew, found=len(more))


def marked(network: MobileSAM, photo: Photo) -> tuple[list[np.ndarray], int]:
    """The masks of the marked objects, the largest first, and how many of them are new."""
    counts = np.bincount(photo.ids.ravel(), minlength=VOID + 1)
    order = sorted((k for k in range(1, VOID) if counts[k] >= LEAST), key=lambda k: -counts[k])
    masks, anew = [], 0
    seen = network.see(photo.image) if order else None
    height, width = photo.ids.shape
    for k in order:
        assert seen is not None
        old = photo.ids == k
        around = boxes(torch.from_numpy(old).float()) * torch.tensor([seen.width / width, seen.height / height] * 2)
        logits, _ = network.mark(seen, boxes=around[None].to(network.mean.device))
        others = (photo.ids > 0) & (photo.ids != VOID) & ~old
        new = _full(logits, height, width)[0] & ~others
        same = (new & old).sum() >= AGREES * (new | old).sum()
        masks.append(new if same else old)
        anew += int(same)
    return masks, anew


def found(network: MobileSAM, image: np.ndarray, taken: np.ndarray) -> list[np.ndarray]:
    """Masks of what clicks find where nothing is marked, the largest first; they do not overlap."""
    height, width = taken.shape
    at = (np.arange(GRID) + 0.5) / GRID
    places = [(x, y) for y in at for x in at if not taken[int(y * height), int(x * width)]]
    if not places:
        return []
    seen = network.see(image, GLANCE)
    points = torch.tensor(places).float()[:, None] * torch.tensor([seen.width, seen.height])
    good = []
    for click in points.to(network.mean.device).split(8):
        labels = torch.ones(len(click), 1, dtype=torch.int32, device=click.device)
        logits, ious = network.mark(seen, points=(click, labels), several=True)
        stable = (logits > 1).flatten(2).sum(2) > STABLE * (logits > -1).flatten(2).sum(2)
        share = (logits > 0).flatten(2).float().mean(2)
        good.append(logits[(ious > GOOD) & stable & (share > SHARES[0]) & (share < SHARES[1])])
    masks: list[np.ndarray] = []
    free = ~taken
    for mask in sorted(_full(torch.cat(good)[:, None], height, width), key=lambda mask: -mask.sum()):
        sides = sum(map(bool, (mask[0].any(), mask[-1].any(), mask[:, 0].any(), mask[:, -1].any())))
        whole, left = mask.sum(), (mask & free).astype(np.uint8)
        _, pieces, sizes, _ = cv2.connectedComponentsWithStats(left)
        if sides > 1 or left.sum() < (1 - NEW) * whole or whole < SHARES[0] * mask.size:
            continue  # ground and walls touch several sides of a picture
        largest = 1 + int(sizes[1:, cv2.CC_STAT_AREA].argmax())
        piece = pieces == largest
        if piece.sum() < PIECE * left.sum():
            continue
        masks.append(piece)
        free &= ~piece
        if len(masks) == FOUND:
            break
    return masks


def _full(logits: Tensor, height: int, width: int) -> np.ndarray:
    """[N, 1, h, w] logits -> [N, height, width] bool."""
    return (enlarged(logits, height, width)[:, 0] > 0).cpu().numpy()

"""Clips composed of photographs: whole ones under a moving camera, and objects cut out and moved over others.

Every clip is a background and layers over it. Each moves along smooth random paths, bends, and changes its light.
Layers are tracked objects, look-alikes, and other things in the way.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import cv2
import numpy as np

from nano.curriculum import OBJECTS, Stage
from nano.photos import Photo, touching

cv2.setNumThreads(1)
CUT, CUT_FROM = 0.4, 6  # chance that a clip shows another scene for a while, if it has so many frames
TOGETHER = 0.5  # chance that an object is tracked with one that touches it, if one does: a rider and the horse
GLUED = 0.3  # chance that a cut-out is two, which move as one: what has parts of many looks is one thing all the same
HELD = 0.35  # chance that a cut-out brings what touches it, untracked: a ball and the hand that holds it
SIZES, EASY_SIZES = (0.08, 0.75), (0.2, 0.7)  # of the clip's side that a cut-out takes, log-uniform
LARGEST, SMALLEST = 1.1, 0.05  # the same, for what has come closer, or gone away
NEARER, TIMES = 0.4, (1.5, 6.0)  # chance that an object comes closer or goes away, and how many times as large it gets
SPIN = 0.12  # chance that a cut-out turns any way, as a dancer does
WIDE = 1.5  # a background is kept this much larger than the clip, so that the camera can move and come closer
ASPECTS = {16 / 9: 5, 4 / 3: 2, 1: 2, 9 / 16: 1}  # width by height, of videos that clips are squashed from -> weight


def wander(rng: np.random.Generator, frames: int, low: float, high: float, pace: float = 6) -> np.ndarray:
    """A smooth random path: [frames] numbers from low to high, with a turn every `pace` frames or so."""
    knots = max(2, round(frames / pace) + 2)
    path = np.interp(np.linspace(0, knots - 1, frames), np.arange(knots), rng.uniform(low, high, knots))
    if frames > 4:
        width = max(1.0, pace / 3)
        path = cv2.GaussianBlur(path[None].astype(np.float32), (0, 0), width, borderType=cv2.BORDER_REPLICATE)[0]
    return path.astype(np.float32)


def approach(rng: np.random.Generator, frames: int, most: float) -> np.ndarray:
    """[frames]: the logarithm of how much larger something is than when it is smallest; `most`: how much it may be.

    In most clips 0. Else it comes closer, goes away, or comes by.
    """
    if most < TIMES[0] or rng.random() >= NEARER:
        return np.zeros(frames, np.float32)
    height = rng.uniform(np.log(TIMES[0]), np.log(min(most, TIMES[1])))
    first, turn, last = frames * rng.uniform([0, 0.4, 0.7], [0.3, 0.6, 1])
    at, path = ((first, last), (0, 1)) if rng.random() < 0.7 else ((first, turn, last), (0, 1, 0))
    path = height * np.interp(np.arange(frames), at, path)
    return (height - path if rng.random() < 0.35 else path).astype(np.float32)


def shade(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Another light and other colours. [H, W, 3] uint8 to the same."""
    x = image.astype(np.float32) * rng.uniform(0.7, 1.3) * rng.uniform(0.92, 1.08, 3).astype(np.float32)
    x += rng.uniform(-20, 20)
    grey = x.mean(2, keepdims=True)
    return np.clip(grey + (x - grey) * rng.uniform(0.5, 1.4), 0, 255).astype(np.uint8)


@dataclass(eq=False, kw_only=True)
class Layer:
    """A picture that moves. Its masks are [h, w] uint8, 255 inside; the key is the id, 0 for what is not tracked."""

    image: np.ndarray  # [h, w, 3] uint8
    masks: dict[int, np.ndarray]
    cover: np.ndarray | None  # where it hides what is below; None: everywhere
    x: np.ndarray  # [frames] centre, in pixels of the clip
    y: np.ndarray
    scale: np.ndarray  # pixels of the clip per pixel of the picture
    angle: np.ndarray  # degrees
    shear: np.ndarray
    bend: np.ndarray  # [frames, 4, 4, 2]: how far each part is from where it would be, in shares of the picture
    aspect: float = 1.0  # width by height of the video; its frames are squashed into squares, as networks see them
    light: np.ndarray = field(default_factory=lambda: np.ones(1, np.float32))  # [frames] or [1]

    def sample(self, t: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Where each pixel of the clip looks into the picture: two maps [size, size] float32."""
        h, w = self.image.shape[:2]
        turn = cv2.getRotationMatrix2D((0, 0), float(self.angle[t]), 1)[:, :2] * self.scale[t]
        back = np.linalg.inv(turn @ np.array([[1, self.shear[t]], [0, 1]])).astype(np.float32)
        grid = np.arange(size, dtype=np.float32)
        across, down = np.sqrt([self.aspect, 1 / self.aspect], dtype=np.float32)
        dx, dy = (grid[None] - np.float32(self.x[t])) * across, (grid[:, None] - np.float32(self.y[t])) * down
        u = back[0, 0] * dx + back[0, 1] * dy + np.float32(w / 2)
        v = back[1, 0] * dx + back[1, 1] * dy + np.float32(h / 2)
        if self.bend[t].any():
            moved = cv2.resize(self.bend[t], (size, size), interpolation=cv2.INTER_CUBIC) * np.float32(max(h, w))
            u, v = u + moved[..., 0], v + moved[..., 1]
        return u, v

    def paint(self, t: int, image: np.ndarray, ids: np.ndarray) -> None:
        """Over what is below, in place. image: [size, size, 3] uint8; ids: [size, size] uint8."""
        u, v = self.sample(t, len(ids))
        seen = cv2.remap(self.image, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        gain = self.light[min(t, len(self.light) - 1)]
        if gain != 1:
            seen = cv2.convertScaleAbs(seen, alpha=float(gain))
        if self.cover is None:
            image[:] = seen
            ids[:] = 0
        else:
            cover = cv2.blur(cv2.remap(self.cover, u, v, cv2.INTER_LINEAR), (3, 3))
            share = (cover.astype(np.float32) / 255)[..., None]
            image[:] = (seen * share + image * (1 - share)).astype(np.uint8)
            ids[cover > 127] = 0
        for k, mask in self.masks.items():
            border = cv2.BORDER_REFLECT if self.cover is None else cv2.BORDER_CONSTANT
            inside = cv2.remap(mask, u, v, cv2.INTER_LINEAR, borderMode=border)
            if self.cover is not None:
                inside = cv2.blur(inside, (3, 3))
            ids[inside > 127] = k


def bends(rng: np.random.Generator, frames: int, most: float) -> np.ndarray:
    """[frames, 4, 4, 2]: a field that changes smoothly, up to `most` of the picture."""
    if not most:
        return np.zeros((frames, 4, 4, 2), np.float32)
    paths = [wander(rng, frames, -most, most) for _ in range(32)]
    return np.stack(paths, 1).reshape(frames, 4, 4, 2)


class Composed:
    """What `Cutouts` and `Whole` share. A source of clips: see nano.clips."""

    own = False  # whether the background's own objects are tracked

    def __init__(self, photos: list[Photo]) -> None:
        self.backgrounds = photos
        self.pool = [photo for photo in photos if photo.objects]

    def clip(self, rng: random.Random, stage: Stage) -> tuple[np.ndarray, np.ndarray]:
        """images [T, size, size, 3] uint8, ids [T, size, size] uint8: 1..OBJECTS, all in view on the first frame."""
        least = stage.size**2 // 800
        for _ in range(40):
            layers = self.layers(np.random.default_rng(rng.getrandbits(64)), stage.frames, stage.size, stage.hard)
            seed = rng.getrandbits(64)
            first = self.render(layers, [0], stage.size, seed)[1]
            if np.bincount(first.ravel(), minlength=OBJECTS + 1)[1:].min() >= least:
                break
        else:
            raise RuntimeError("forty clips in a row began without their objects in view; are the objects too small?")
        images, ids = self.render(layers, range(stage.frames), stage.size, seed)
        if stage.hard and stage.frames >= CUT_FROM and rng.random() < CUT:
            self.cut_away(rng, stage, images, ids)
        return images, ids

    def cut_away(self, rng: random.Random, stage: Stage, images: np.ndarray, ids: np.ndarray) -> None:
        """In place: for a while another scene, in which nothing is tracked, as editors cut."""
        first = rng.randrange(2, stage.frames - 3)
        last = min(stage.frames - 1, first + rng.randrange(2, stage.frames // 2 + 1))
        other = self.layers(np.random.default_rng(rng.getrandbits(64)), stage.frames, stage.size, stage.hard)
        images[first:last], _ = self.render(other, range(first, last), stage.size, rng.getrandbits(64))
        ids[first:last] = 0

    def render(self, layers: list[Layer], frames, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        soft = rng.uniform(0.5, 1.3) if rng.random() < 0.15 else 0.0
        quality = int(rng.integers(25, 90)) if rng.random() < 0.3 else 0
        flip = rng.random() < 0.5
        images = np.empty((len(frames), size, size, 3), np.uint8)
        ids = np.zeros((len(frames), size, size), np.uint8)
        for n, t in enumerate(frames):
            for layer in layers:
                layer.paint(t, images[n], ids[n])
            if soft:
                images[n] = cv2.GaussianBlur(images[n], (0, 0), soft)
            if quality:
                images[n] = cv2.imdecode(cv2.imencode(".jpg", images[n], [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)
        if flip:
            images, ids = np.ascontiguousarray(images[:, :, ::-1]), np.ascontiguousarray(ids[:, :, ::-1])
        return images, ids

    def layers(self, rng: np.random.Generator, frames: int, size: int, hard: bool) -> list[Layer]:
        """Background first, nearest last."""
        aspect = float(rng.choice(list(ASPECTS), p=np.array(list(ASPECTS.values())) / sum(ASPECTS.values())))
        ground, free = self.background(rng, frames, size, hard, aspect)
        cuts = [self.glued(rng, size) if hard and rng.random() < GLUED else self.cut(rng, size) for _ in free]
        laid = [self.moving(rng, *cut, k, frames, size, hard) for cut, k in zip(cuts, free, strict=True)]
        for _ in range(rng.integers(0, 3) if hard else 0):
            if cuts and rng.random() < 0.4:  # a look-alike
                image, *shape = cuts[rng.integers(len(cuts))]
                image = image if rng.random() < 0.5 else shade(rng, image)
            else:
                image, *shape = self.cut(rng, size)
            laid.append(self.moving(rng, image, *shape, 0, frames, size, hard))
        for layer in (ground, *laid):
            layer.aspect = aspect
        return [ground, *(laid[n] for n in rng.permutation(len(laid)))]

    def background(
        self, rng: np.random.Generator, frames: int, size: int, hard: bool, aspect: float
    ) -> tuple[Layer, list[int]]:
        """The layer below all others, and the ids that are still to be given to cut-outs."""
        photo = self.choose(rng)
        h, w = photo.ids.shape
        across, down = size * aspect**0.5, size / aspect**0.5  # of the video, before it is squashed
        shrink = WIDE * max(across / w, down / h)
        large = (round(w * shrink), round(h * shrink))
        image = shade(rng, cv2.resize(photo.image, large, interpolation=cv2.INTER_AREA))
        masks = self.own_objects(rng, photo, large)
        most = float(rng.choice((0, 0.015, 0.03))) if hard else 0.0
        near = rng.uniform(1.1, 1.6) if self.own else rng.uniform(1.0, 1.6)
        lively = 1.0 if hard else 0.4
        closer = approach(rng, frames, self.room(masks)) if hard else 0.0
        scale = near / WIDE * np.exp(lively * wander(rng, frames, -0.12, 0.12, 12) + closer)
        roam = lively * size * (0.35 if self.own else 0.2)
        x, y = wander(rng, frames, -roam, roam, 8), wander(rng, frames, -roam, roam, 8)
        if self.own:
            ys, xs = np.where(np.max(list(masks.values()), axis=0) > 127)  # it looks at them on the first frame
            at = (xs.mean(), ys.mean()) if len(xs) else (large[0] / 2, large[1] / 2)
            squashed = size / across, size / down
            limits = [  # the camera stays inside the picture
                np.maximum(n * scale * s / 2 - size / 2, 0) for n, s in zip(large, squashed, strict=True)
            ]
            x = np.clip(x - x[0] + (large[0] / 2 - at[0]) * scale * squashed[0], -limits[0], limits[0])
            y = np.clip(y - y[0] + (large[1] / 2 - at[1]) * scale * squashed[1], -limits[1], limits[1])
        layer = Layer(
            image=image,
            masks=masks,
            cover=None,
            x=size / 2 + x,
            y=size / 2 + y,
            scale=scale,
            angle=wander(rng, frames, -7, 7, 10),
            shear=wander(rng, frames, -0.06, 0.06, 10),
            bend=bends(rng, frames, most),
            light=self.lights(rng, frames, hard),
        )
        return layer, [k for k in range(1, OBJECTS + 1) if k not in masks]

    @staticmethod
    def room(masks: dict[int, np.ndarray]) -> float:
        """How many times as large the camera may make these before one fills the picture; 0 if there are none."""
        shares = [np.divide(cv2.boundingRect(mask)[2:], mask.shape[::-1]).max() for mask in masks.values()]
        return 0.9 / max(shares) if any(shares) else 0.0

    def choose(self, rng: np.random.Generator) -> Photo:
        photos = self.pool if self.own else self.backgrounds
        return photos[rng.integers(len(photos))]

    def own_objects(self, rng, photo: Photo, shape: tuple[int, int]) -> dict[int, np.ndarray]:
        return {}

    @staticmethod
    def lights(rng: np.random.Generator, frames: int, hard: bool) -> np.ndarray:
        return wander(rng, frames, 0.8, 1.2, 10) if hard and rng.random() < 0.3 else np.ones(1, np.float32)

    def cut(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """An object out of a photograph, no larger than needed: image, mask, and all that is cut out with it.

        What touches it may belong to it, or come along untracked, as a hand with a ball.
        """
        photo = self.pool[rng.integers(len(self.pool))]
        k = int(rng.choice(photo.objects))
        mask = self.grouped(rng, photo, k, TOGETHER)
        cover = np.maximum(mask, self.grouped(rng, photo, k, HELD))
        ys, xs = np.where(cover.any(1))[0], np.where(cover.any(0))[0]
        part = np.s_[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
        image, mask, cover = photo.image[part], mask[part], cover[part]
        shrink = min(1.0, size / max(mask.shape))
        shape = (max(round(mask.shape[1] * shrink), 2), max(round(mask.shape[0] * shrink), 2))
        image, mask, cover = (cv2.resize(x, shape, interpolation=cv2.INTER_AREA) for x in (image, mask, cover))
        return shade(rng, image), mask, cover

    def glued(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Two cut-outs as one, the second over an edge of the first, as a rider on a motorcycle. As `cut`."""
        (image, mask, cover), other = self.cut(rng, size), self.cut(rng, size)
        shrink = np.sqrt(mask.size / other[1].size) * np.exp(rng.uniform(*np.log((0.3, 1.1))))
        shape = tuple(max(2, round(side * shrink)) for side in other[1].shape[::-1])
        other = [cv2.resize(x, shape, interpolation=cv2.INTER_AREA) for x in other]
        ys, xs = np.nonzero(mask > 127)
        if not len(ys):
            return image, mask, cover
        n = rng.integers(len(ys))  # a pixel of the first that the second comes to lie on, further out
        out = np.array([ys[n] - ys.mean(), xs[n] - xs.mean()])
        first = np.round([ys[n], xs[n]] + out * rng.uniform(0, 0.6) - np.divide(other[1].shape, 2)).astype(int)
        low = np.minimum(first, 0)
        high = np.maximum(first + other[1].shape, mask.shape)
        whole = [np.zeros((*(high - low), *x.shape[2:]), np.uint8) for x in other]
        at = np.s_[-low[0] : mask.shape[0] - low[0], -low[1] : mask.shape[1] - low[1]]
        for place, x in zip(whole, (image, mask, cover), strict=True):
            place[at] = x
        at = tuple(slice(a - b, a - b + n) for a, b, n in zip(first, low, other[1].shape, strict=True))
        over = other[2] > 127
        whole[0][at][over] = other[0][over]
        whole[1][at][over] = other[1][over]
        whole[2][at][over] = 255
        return tuple(whole)

    @staticmethod
    def grouped(rng: np.random.Generator, photo: Photo, k: int, chance: float) -> np.ndarray:
        """The mask of object k, [H, W] uint8, 255 inside; by `chance` with a neighbour."""
        mask = photo.ids == k
        if rng.random() < chance:
            near = touching(photo.ids, k)
            if near:
                mask |= photo.ids == near[rng.integers(len(near))]
        return mask.astype(np.uint8) * 255

    def moving(
        self,
        rng: np.random.Generator,
        image: np.ndarray,
        mask: np.ndarray,
        cover: np.ndarray,
        k: int,
        frames: int,
        size: int,
        hard: bool,
    ) -> Layer:
        lively = 1.0 if hard else 0.5
        closer = approach(rng, frames, LARGEST / SMALLEST) if hard else np.zeros(frames)
        share = rng.uniform(*np.log(SIZES if hard else EASY_SIZES)) + closer - closer.mean()
        share += min(0, np.log(LARGEST) - share.max())
        share += max(0, np.log(SMALLEST) - share.min())
        scale = size / max(mask.shape) * np.exp(share + lively * wander(rng, frames, -0.3, 0.3, 8))
        x, y = (size * (0.5 + lively * wander(rng, frames, -0.36, 0.36)) for _ in range(2))
        if not hard:
            x, y = x + size * rng.uniform(-0.2, 0.2), y + size * rng.uniform(-0.2, 0.2)
        elif k and frames >= 6 and rng.random() < 0.3:  # leaves and comes back, elsewhere
            gone = rng.integers(2, max(3, frames - 2))
            back = min(frames, gone + rng.integers(2, max(3, frames // 2)))
            x[gone:back] += size * 2 * rng.choice((-1, 1))
            if rng.random() < 0.5:
                x[back:], y[back:] = size - x[back:], y[back:][::-1]
        most = float(rng.choice((0, 0.04, 0.08, 0.12))) if hard else 0.0
        turn = 150 if hard and rng.random() < SPIN else 25
        return Layer(
            image=image,
            masks={k: mask} if k else {},
            cover=cover,
            x=x,
            y=y,
            scale=scale,
            angle=lively * wander(rng, frames, -turn, turn, 8),
            shear=lively * wander(rng, frames, -0.2, 0.2, 8),
            bend=bends(rng, frames, most),
            light=self.lights(rng, frames, hard),
        )


class Cutouts(Composed):
    """Objects cut out and moved over other photographs: exact masks, crossings, absences; edges that were pasted."""


class Whole(Composed):
    """Photographs with their own objects in place: true edges, shadows and neighbours; the camera moves, all bends."""

    own = True

    def own_objects(self, rng, photo: Photo, shape: tuple[int, int]) -> dict[int, np.ndarray]:
        ids = rng.permutation(photo.objects)[: OBJECTS if rng.random() < 0.7 else 1]
        masks = {}
        taken = np.zeros(photo.ids.shape, bool)
        for n, k in enumerate(ids, start=1):
            mask = self.grouped(rng, photo, int(k), TOGETHER)
            mask[taken] = 0
            taken |= mask > 0
            masks[n] = cv2.resize(mask, shape, interpolation=cv2.INTER_AREA)
        return masks

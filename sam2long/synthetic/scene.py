"""One generated video: actors on integer paths over a moving background, painted back to front, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sam2long.synthetic import shapes, textures
from sam2long.synthetic.arith import ONE, SINE, TURN, Bits, Curve, cos, ramp, sin

UNIT = 1024  # positions and sizes: the short side of the frame is 1024 units
TICKS = 4  # per frame; motion blur averages neighbouring ticks

Place = Callable[[int], tuple[int, int]]  # tick -> x, y in units


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """How hard a video is. Times in frames, sizes in 1/1024 of the short side, chances in percent."""

    size: tuple[int, int] = (150, 250)  # half-extent of a tracked object
    pace: tuple[int, int] = (36, 60)  # frames between two random way points
    roam: int = 460  # how far from the centre way points lie
    deform: int = 160  # strength of wobble and stretch, in 1/1024
    growth: int = 180  # how much the size breathes, in 1/1024
    strangers: tuple[int, int] = (0, 2)  # untracked objects of their own look
    twins: tuple[int, int] = (0, 0)  # untracked look-alikes of the first object
    twin_chance: int = 0  # that a further tracked object looks like the first
    bars: tuple[int, int] = (0, 0)  # static things in front
    visits: tuple[int, int] | None = None  # frames between two full occlusions of each tracked object
    hidden: tuple[int, int] = (6, 16)  # how long such an occlusion lasts
    exits: tuple[int, int] | None = None  # frames between two absences of each tracked object
    away: tuple[int, int] = (20, 60)  # how long an absence lasts
    cuts: tuple[int, int] | None = None  # frames between two changes of place
    light: int = 150  # swing of the brightness, in 1/1024
    camera: int = 300  # swing of the background
    clutter: tuple[int, int] = (0, 4)  # shapes painted onto the background
    blur: int = 15  # chance that the video has motion blur
    targets_on_top: bool = False


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Frame:
    index: int
    image: np.ndarray  # [H, W, 3] uint8, RGB
    ids: np.ndarray  # [H, W] uint8, 0 background, 1..N the tracked object that is seen at this pixel
    visible: dict[int, bool]  # for each of 1..N: any pixel of it in `ids`


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Sprite:
    colour: np.ndarray  # [S * S, 3] uint8
    solid: np.ndarray  # [S * S] bool
    side: int


def make_sprite(bits: Bits, side: int, split: str) -> Sprite:
    shape = shapes.FAMILIES[split][bits.pick(tuple(shapes.FAMILIES[split]))]
    solid = shape(bits, side)
    colour = textures.paint(bits, side, textures.FAMILIES[split])
    if bits.chance(40):  # a rim or a core of another colour: parts of one object
        other = textures.paint(bits, side, textures.FAMILIES[split])
        step = side // 6
        core = solid[step:-step, step:-step] & solid[: -2 * step, step:-step] & solid[2 * step :, step:-step]
        core &= solid[step:-step, : -2 * step] & solid[step:-step, 2 * step :]
        colour[step:-step, step:-step][core] = other[step:-step, step:-step][core]
    return Sprite(colour=colour.reshape(-1, 3), solid=solid.reshape(-1), side=side)


def box_sprite(bits: Bits, side: int, split: str) -> Sprite:
    colour = textures.paint(bits, side, textures.FAMILIES[split])
    return Sprite(colour=colour.reshape(-1, 3), solid=np.ones(side * side, bool), side=side)


@dataclass(slots=True, eq=False, kw_only=True)
class Actor:
    sprite: Sprite
    label: int  # 0: not tracked
    place: Place
    size: Callable[[int], int]
    angle: Callable[[int], int] = lambda tick: 0
    stretch: Callable[[int], int] = lambda tick: 0
    wobble: int = 0
    wobble_rate: int = 0

    def draw(self, tick: int, unit16: int, image: np.ndarray | None, ids: np.ndarray) -> None:
        """Paint onto `image` (if any) and `ids`; `unit16`: pixels per UNIT, times 16."""
        height, width = ids.shape
        px, py = self.place(tick)
        cx, cy = px * unit16 // UNIT, py * unit16 // UNIT  # 1/16 pixel
        size, stretch = self.size(tick), self.stretch(tick)
        ru = max(size * (UNIT + stretch) // UNIT * unit16 // UNIT, 16)
        rv = max(size * (UNIT - stretch) // UNIT * unit16 // UNIT, 16)
        reach = max(ru, rv) * 23 // 16
        x0, x1 = max((cx - reach) >> 4, 0), min(((cx + reach) >> 4) + 1, width)
        y0, y1 = max((cy - reach) >> 4, 0), min(((cy + reach) >> 4) + 1, height)
        if x0 >= x1 or y0 >= y1:
            return
        angle, side = self.angle(tick), self.sprite.side
        c, s = cos(angle) * side * 8, sin(angle) * side * 8  # (ONE << 4 half-sides): 16 fractional bits over 1/16 px
        dx = (np.arange(x0, x1, dtype=np.int32) << 4) + (8 - cx)
        dy = (np.arange(y0, y1, dtype=np.int32) << 4)[:, None] + (8 - cy)
        u = (dx * (c // ru) + dy * (s // ru) >> 16) + side // 2
        v = (dy * (c // rv) - dx * (s // rv) >> 16) + side // 2
        if self.wobble:
            phase = tick * self.wobble_rate
            wave = SINE[(np.arange(-side, 2 * side, dtype=np.int32) * (TURN // side) + phase) & (TURN - 1)]
            wave = wave * (self.wobble * side // 2) // (ONE * UNIT)
            u = u + wave[np.clip(v, -side, 2 * side - 1) + side]
        within = (u >= 0) & (u < side) & (v >= 0) & (v < side)
        flat = np.where(within, v * side + u, 0)
        seen = self.sprite.solid[flat] & within
        ids[y0:y1, x0:x1][seen] = self.label
        if image is not None:
            image[y0:y1, x0:x1][seen] = self.sprite.colour[flat[seen]]


class Scene:
    """A video that is computed when it is read: `for frame in scene`, `scene.frame(t)`, `len(scene)`."""

    def __init__(
        self,
        *,
        scenario: str,
        knobs: Knobs,
        seed: int,
        num_frames: int,
        height: int,
        width: int,
        num_objects: int,
        split: str,
        key: tuple[int, ...],
    ) -> None:
        """Use `sam2long.synthetic.generate`. `key` starts the random stream."""
        self.scenario, self.knobs, self.seed, self.split = scenario, knobs, seed, split
        self.num_frames, self.height, self.width, self.num_objects = num_frames, height, width, num_objects
        short = min(height, width)
        self._unit16 = 16 * short
        self._span = (UNIT * width // short, UNIT * height // short)
        self._last = num_frames * TICKS
        self._side = 64  # of a sprite, in pixels of its own
        while self._side < short // 2:
            self._side *= 2
        for attempt in range(40):
            self._build(Bits(*key, attempt))
            if self._good_start():
                break

    # -- what a caller reads -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.num_frames

    def __iter__(self) -> Iterator[Frame]:
        return (self.frame(t) for t in range(self.num_frames))

    def frame(self, index: int) -> Frame:
        if not 0 <= index < self.num_frames:
            raise IndexError(f"frame {index} of a video of {self.num_frames}")
        tick = index * TICKS
        image, ids = self._paint(tick)
        image = image.astype(np.int16)
        if self._blurred:
            for back in (1, 2):
                image += self._paint(max(tick - back, 0))[0]
            image //= 3
        if self._soft:
            image[1:] = (image[1:] + image[:-1]) >> 1
            image[:, 1:] = (image[:, 1:] + image[:, :-1]) >> 1
        gain, lift = self._gain(tick), self._lift(tick)
        image = (image.astype(np.int32) * gain >> 10) + lift
        if self._grain:
            n = self._grain_tile.shape[0]
            oy, ox = index * 29 % n, index * index * 13 % n
            tile = np.roll(self._grain_tile, (oy, ox), (0, 1))
            reps = (-(-self.height // n), -(-self.width // n), 1)
            image += np.tile(tile, reps)[: self.height, : self.width]
        image = np.clip(image, 0, 255).astype(np.uint8)
        counts = np.bincount(ids.reshape(-1), minlength=self.num_objects + 1)
        return Frame(
            index=index, image=image, ids=ids, visible={k: bool(counts[k]) for k in range(1, self.num_objects + 1)}
        )

    def ids(self, index: int) -> np.ndarray:
        """The masks alone: several times as fast as `frame`."""
        ids = np.zeros((self.height, self.width), np.uint8)
        for actor in self._actors:
            actor.draw(index * TICKS, self._unit16, None, ids)
        return ids

    # -- how it is made ------------------------------------------------------------------------------------------

    def _paint(self, tick: int) -> tuple[np.ndarray, np.ndarray]:
        place = self._place_at(tick)
        ground = self._grounds[place % len(self._grounds)]
        n = ground.shape[0]
        zoom = self._zoom(tick)
        ox = (self._cam_x(tick) + place * 311) * self._unit16 // (16 * UNIT)
        oy = (self._cam_y(tick) + place * 173) * self._unit16 // (16 * UNIT)
        xs = (np.arange(self.width) * zoom // UNIT + ox) % n
        ys = (np.arange(self.height) * zoom // UNIT + oy) % n
        image = ground[ys][:, xs]
        ids = np.zeros((self.height, self.width), np.uint8)
        for actor in self._actors:
            actor.draw(tick, self._unit16, image, ids)
        return image, ids

    def _place_at(self, tick: int) -> int:
        return sum(tick >= c for c in self._cut_ticks)

    def _cutting(self, place: Place) -> Place:
        """The same path seen from the other side after every second cut: positions jump."""
        if not self._cut_ticks:
            return place

        def at(tick: int) -> tuple[int, int]:
            x, y = place(tick)
            return (self._span[0] - x, y) if self._place_at(tick) % 2 else (x, y)

        return at

    def _good_start(self) -> bool:
        """Every tracked object is in view on frame 0: at least half of it, and 1.5 % of a square frame."""
        ids = self.ids(0)
        least = min(self.height, self.width) ** 2 * 15 // 1000
        for label in range(1, self.num_objects + 1):
            alone = np.zeros_like(ids)
            for actor in self._actors:
                if actor.label == label:
                    actor.draw(0, self._unit16, None, alone)
            seen, full = int((ids == label).sum()), int((alone == label).sum())
            if seen < least or 2 * seen < full:
                return False
        return True

    def _events(self, bits: Bits, between: tuple[int, int] | None, lasting: tuple[int, int]) -> list[tuple[int, int]]:
        """Random (start, end) ticks over the whole video, the first not before frame 6."""
        events: list[tuple[int, int]] = []
        at = 0
        while between is not None:
            at += (bits.int(*between) if events else bits.int(6, between[1])) * TICKS
            end = at + bits.int(*lasting) * TICKS
            if at >= self._last:
                break
            events.append((at, end))
            at = end
        return events

    def _build(self, bits: Bits) -> None:
        """Draw everything from `bits`. The order of the draws is the video: the golden hashes hold it."""
        k = self.knobs
        self._cut_ticks = [a for a, _ in self._events(bits, k.cuts, (0, 0))]
        self._grounds = [self._ground(bits) for _ in range(2 if self._cut_ticks else 1)]
        self._build_camera(bits)
        starts = self._starts(bits)
        targets: list[Actor] = []
        front: list[Actor] = []
        self.absences: dict[int, list[tuple[int, int]]] = {}
        for label, start in enumerate(starts, 1):
            twin = label > 1 and bits.chance(k.twin_chance)
            sprite = targets[0].sprite if twin else make_sprite(bits, self._side, self.split)
            target, base = self._target(bits, label, sprite, start)
            targets.append(target)
            if visits := self._events(bits, k.visits, k.hidden):
                front.append(self._cover(bits, target.place, base, visits))
        others: list[Actor] = []
        for twin in [False] * bits.int(*k.strangers) + [True] * bits.int(*k.twins):
            others.append(self._stranger(bits, targets[0].sprite if twin else None, starts))
        front += [self._bar(bits, starts) for _ in range(bits.int(*k.bars))]
        if k.targets_on_top:
            self._actors = others + targets
        else:
            mixed = targets + others
            order = np.argsort(bits.ints(0, 1 << 30, len(mixed)), kind="stable").tolist()
            self._actors = [mixed[i] for i in order]
        self._actors += front

    def _curve(self, bits: Bits, low: int, high: int, period: int, start: int | None = None) -> Curve:
        return Curve(bits, low, high, max(period * TICKS, 1), self._last + TICKS, start)

    def _path(self, bits: Bits, pace: int, roam: int, start: tuple[int, int]) -> tuple[Curve, Curve]:
        """Way points around the middle of the frame, from `start` on."""
        reach = [roam * span // UNIT for span in self._span]
        x, y = (
            self._curve(bits, span // 2 - r, span // 2 + r, pace, at)
            for span, r, at in zip(self._span, reach, start, strict=True)
        )
        return x, y

    def _ground(self, bits: Bits) -> np.ndarray:
        """A texture, or two laid over each other, with clutter painted onto it: [n, n, 3] uint8."""
        short, n = min(self.height, self.width), 128
        while n < 2 * short:
            n *= 2
        ground = textures.paint(bits, n, textures.FAMILIES[self.split])
        if bits.chance(50):
            ground = (ground >> 1) + (textures.paint(bits, n, textures.FAMILIES[self.split]) >> 1)
        scratch = np.zeros((n, n), np.uint8)
        for _ in range(bits.int(*self.knobs.clutter)):
            spot = bits.ints(0, UNIT * n // short, 2).tolist()
            size, turn = bits.int(60, 260), bits.int(0, TURN - 1)
            sprite = make_sprite(bits, 64, self.split)
            still = Actor(sprite=sprite, label=0, place=_always(spot), size=_always(size), angle=_always(turn))
            still.draw(0, self._unit16, ground, scratch)
        return ground

    def _build_camera(self, bits: Bits) -> None:
        k = self.knobs
        swing = bits.int(0, k.camera)
        self._cam_x = self._curve(bits, -swing, swing, bits.int(20, 50))
        self._cam_y = self._curve(bits, -swing, swing, bits.int(20, 50))
        self._zoom = self._curve(bits, UNIT - swing // 4, UNIT + swing // 4, 60)
        light = bits.int(0, k.light)
        self._gain = self._curve(bits, UNIT - light, UNIT + light, bits.int(8, 60))
        self._lift = self._curve(bits, -light // 12, light // 12, 40)
        self._blurred, self._soft, self._grain = bits.chance(k.blur), bits.chance(50), bits.chance(70)
        if self._grain:
            amp = bits.int(2, 9)
            self._grain_tile = bits.ints(-amp, amp, (64, 64, 3)).astype(np.int32)

    def _starts(self, bits: Bits) -> list[tuple[int, int]]:
        """Where the tracked objects start: apart from each other, when there is room."""
        span_x, span_y = self._span
        gap = 2 * self.knobs.size[0]
        starts: list[tuple[int, int]] = []
        for _ in range(200):
            if len(starts) == self.num_objects:
                break
            x = bits.int(span_x * 18 // 100, span_x * 82 // 100)
            y = bits.int(span_y * 18 // 100, span_y * 82 // 100)
            if _far_from(starts, (x, y), gap):
                starts.append((x, y))
        while len(starts) < self.num_objects:
            starts.append((bits.int(span_x // 5, span_x * 4 // 5), bits.int(span_y // 5, span_y * 4 // 5)))
        return starts

    def _free_start(self, bits: Bits, starts: list[tuple[int, int]]) -> tuple[int, int]:
        """A place away from the tracked objects' starts."""
        k = self.knobs
        for _ in range(30):
            spot = (bits.int(0, self._span[0]), bits.int(0, self._span[1]))
            if _far_from(starts, spot, max(k.size[1] + 60, 2 * k.size[0] - 20)):
                break
        return spot

    def _actor(self, bits: Bits, sprite: Sprite, label: int, place: Place, base: int) -> Actor:
        k = self.knobs
        small, large = base * (UNIT - k.growth) // UNIT, base * (UNIT + k.growth) // UNIT
        return Actor(
            sprite=sprite,
            label=label,
            place=place,
            size=self._curve(bits, small, large, bits.int(20, 50)),
            angle=self._curve(bits, 0, bits.pick((TURN // 8, TURN // 2, TURN)), bits.int(30, 70)),
            stretch=self._curve(bits, -k.deform, k.deform, bits.int(12, 40)),
            wobble=bits.int(0, k.deform),
            wobble_rate=bits.int(1, 8),
        )

    def _target(self, bits: Bits, label: int, sprite: Sprite, start: tuple[int, int]) -> tuple[Actor, int]:
        """A tracked object that leaves and comes back, and its size in units."""
        k = self.knobs
        base = bits.int(*k.size)
        x, y = self._path(bits, bits.int(*k.pace), k.roam, start)
        leaves = self._events(bits, k.exits, k.away)
        moves = []
        for a, b in leaves:
            out, back = (bits.pick(((1, 0), (-1, 0), (0, 1), (0, -1))) for _ in range(2))
            moves.append((a, b, out, back, bits.int(6, 14) * TICKS))
        self.absences[label] = [(a // TICKS, b // TICKS) for a, b in leaves]
        place = self._cutting(_leaving(x, y, moves, self._span, base * 2))
        return self._actor(bits, sprite, label, place, base), base

    def _cover(self, bits: Bits, place: Place, base: int, visits: list[tuple[int, int]]) -> Actor:
        """What passes in front of the object at `place` on every visit."""
        boxy = bits.chance(50)
        sprite = (box_sprite if boxy else make_sprite)(bits, self._side, self.split)
        big = base * (bits.int(135, 165) if boxy else bits.int(190, 230)) // 100
        passes = [(a, b, bits.int(0, TURN - 1)) for a, b in visits]
        turn = bits.int(0, TURN - 1)
        path = _passing(place, passes, self._span, big)
        return Actor(sprite=sprite, label=0, place=path, size=_always(big), angle=_always(turn))

    def _stranger(self, bits: Bits, twin: Sprite | None, starts: list[tuple[int, int]]) -> Actor:
        """An untracked object of its own look, or a look-alike."""
        k = self.knobs
        pace, start = bits.int(*k.pace), self._free_start(bits, starts)
        x, y = self._path(bits, pace, k.roam if twin else k.roam + 100, start)
        sprite = twin or make_sprite(bits, self._side, self.split)
        return self._actor(bits, sprite, 0, self._cutting(lambda t: (x(t), y(t))), bits.int(*k.size))

    def _bar(self, bits: Bits, starts: list[tuple[int, int]]) -> Actor:
        """Static in the world, so it drifts with the camera."""
        (x, y), wide, turn = self._free_start(bits, starts), bits.int(50, 110), bits.int(-60, 60)
        return Actor(
            sprite=box_sprite(bits, self._side, self.split),
            label=0,
            place=lambda t: (x - self._cam_x(t) + self._cam_x(0), y),
            size=_always(400),
            stretch=_always(wide * UNIT // 400 - UNIT),
            angle=_always(turn),
        )


def _always(value: Any) -> Callable[[int], Any]:
    return lambda tick: value


def _far_from(starts: list[tuple[int, int]], spot: tuple[int, int], gap: int) -> bool:
    return all((spot[0] - a) ** 2 + (spot[1] - b) ** 2 > gap * gap for a, b in starts)


def _leaving(x, y, moves, span, margin):
    """The path (x, y), pushed out of the frame from tick a to tick b of each move, in over `length` ticks."""
    if not moves:
        return lambda t: (x(t), y(t))

    def place(tick: int) -> tuple[int, int]:
        px, py = x(tick), y(tick)
        for a, b, out, back, length in moves:
            if a - length < tick < b + length:
                dx, dy = out if tick < b else back
                away = ramp(tick, a - length, length) if tick < b else ONE - ramp(tick, b, length)
                px += dx * (span[0] + margin) * away // ONE
                py += dy * (span[1] + margin) * away // ONE
        return px, py

    return place


def _passing(place, passes, span, big):
    """In front of the object at `place` from tick a to b of each pass, outside the frame otherwise."""
    far = max(span) + 3 * big
    cover = 12 * TICKS  # ticks from out of the frame to in front

    def at(tick: int) -> tuple[int, int]:
        for a, b, turn in passes:
            if a - cover < tick < b + cover:
                px, py = place(tick)
                off = far * (ONE - ramp(tick, a - cover, cover) if tick < a else -ramp(tick, b, cover)) // ONE
                return px + off * cos(turn) // ONE, py + off * sin(turn) // ONE
        return -2 * far, -2 * far

    return at

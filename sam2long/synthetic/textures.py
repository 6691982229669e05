"""Procedural textures: integer fields 0..255, coloured by a random palette. Families are split for held-out tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sam2long.synthetic.arith import Bits, cos, sin


def _grid(n: int) -> tuple[np.ndarray, np.ndarray]:
    axis = np.arange(n, dtype=np.int32)
    return axis[None, :], axis[:, None]


def _smooth(bits: Bits, n: int, cells: int) -> np.ndarray:
    """Value noise: random knots on a cells x cells grid, bilinear between them. [n, n] int32, 0..255, tileable."""
    knots = bits.ints(0, 255, (cells, cells)).astype(np.int32)
    knots = np.concatenate([knots, knots[:1]], 0)
    knots = np.concatenate([knots, knots[:, :1]], 1)
    step = n // cells
    at, frac = np.divmod(np.arange(cells * step, dtype=np.int32), step)
    rows = knots[at] * (step - frac)[:, None] + knots[at + 1] * frac[:, None]
    field = (rows[:, at] * (step - frac) + rows[:, at + 1] * frac) // (step * step)
    return field if field.shape[0] == n else np.pad(field, (0, n - field.shape[0]), mode="wrap")


def _waves(bits: Bits, n: int, low: int, high: int) -> np.ndarray:
    """A phase 0..255 that runs across the picture `low`..`high` times, at a random angle."""
    x, y = _grid(n)
    angle, times = bits.int(0, 1023), bits.int(low, high)
    return ((x * cos(angle) + y * sin(angle)) * times // (16 * n) + bits.int(0, 255)) & 255


def _square(phase: np.ndarray) -> np.ndarray:
    return np.where(phase < 128, 40, 215).astype(np.int32)


def _triangle(phase: np.ndarray) -> np.ndarray:
    return np.minimum(phase, 255 - phase) * 2


def noise(bits: Bits, n: int) -> np.ndarray:
    cells = bits.pick((4, 8))
    return (_smooth(bits, n, cells) * 5 + _smooth(bits, n, cells * 2) * 2 + _smooth(bits, n, cells * 4)) // 8


def stripes(bits: Bits, n: int) -> np.ndarray:
    phase = _waves(bits, n, 3, 8)
    return _square(phase) if bits.chance(50) else _triangle(phase)


def checks(bits: Bits, n: int) -> np.ndarray:
    x, y = _grid(n)
    a, c, s = bits.int(2, 5), *(lambda t: (cos(t), sin(t)))(bits.int(0, 1023))
    u, v = (x * c + y * s) * a // (8 * n), (y * c - x * s) * a // (8 * n)
    return np.where(((u ^ v) >> 8) & 1, 220, 35).astype(np.int32)


def dots(bits: Bits, n: int) -> np.ndarray:
    x, y = _grid(n)
    pitch = n // bits.int(3, 7)
    radius = pitch * bits.int(25, 42) // 100
    dx, dy = x % pitch - pitch // 2, y % pitch - pitch // 2
    return np.where(dx * dx + dy * dy < radius * radius, 230, 30).astype(np.int32)


def gradient(bits: Bits, n: int) -> np.ndarray:
    return (_triangle(_waves(bits, n, 1, 1)) * 3 + _smooth(bits, n, 16)) // 4


def plaid(bits: Bits, n: int) -> np.ndarray:
    return (_square(_waves(bits, n, 2, 6)) + _square(_waves(bits, n, 2, 6))) // 2


def mosaic(bits: Bits, n: int) -> np.ndarray:
    cells = bits.pick((4, 8, 16))
    return np.kron(bits.ints(0, 255, (cells, cells)), np.ones((n // cells, n // cells), int)).astype(np.int32)


def speckle(bits: Bits, n: int) -> np.ndarray:
    return (_smooth(bits, n, n // 4) * 2 + _smooth(bits, n, 4)) // 3


def flat(bits: Bits, n: int) -> np.ndarray:
    return _smooth(bits, n, 4) // 4 + bits.int(0, 190)


def spots(bits: Bits, n: int) -> np.ndarray:
    """Discs of all sizes and shades over each other."""
    x, y = _grid(n)
    field = np.full((n, n), bits.int(0, 255), np.int32)
    for px, py, size, shade in bits.ints(0, 255, (bits.int(10, 30), 4)).tolist():
        radius = n * (8 + size // 8) // 256
        dx = abs(x - px * n // 256)
        dy = abs(y - py * n // 256)
        dx, dy = np.minimum(dx, n - dx), np.minimum(dy, n - dy)
        field[dx * dx + dy * dy < radius * radius] = shade
    return field


def terrace(bits: Bits, n: int) -> np.ndarray:
    """Smooth noise in a few flat steps, as on a map."""
    steps = bits.int(3, 6)
    return noise(bits, n) * steps // 256 * 255 // (steps - 1)


def hatch(bits: Bits, n: int) -> np.ndarray:
    """Thin lines in two or three directions on a plain ground."""
    field = np.full((n, n), bits.int(0, 255), np.int32)
    for _ in range(bits.int(2, 3)):
        field[_waves(bits, n, 3, 9) < bits.int(30, 80)] = bits.int(0, 255)
    return field


def patchwork(bits: Bits, n: int) -> np.ndarray:
    """Two other textures, one inside the spots of a third."""
    plain = (noise, stripes, checks, dots, gradient, plaid, speckle, hatch)
    where = _smooth(bits, n, bits.pick((2, 4))) < 128
    return np.where(where, bits.pick(plain)(bits, n), bits.pick(plain)(bits, n))


def cells(bits: Bits, n: int) -> np.ndarray:
    x, y = _grid(n)
    count = bits.int(8, 20)
    points, shade = bits.ints(0, n - 1, (count, 2)).tolist(), bits.ints(0, 255, count).tolist()
    best = np.full((n, n), 4 * n * n, np.int32)
    field = np.zeros((n, n), np.int32)
    for (px, py), value in zip(points, shade, strict=True):
        far = (x - px) ** 2 + (y - py) ** 2
        field[far < best] = value
        np.minimum(best, far, out=best)
    return field


def rings(bits: Bits, n: int) -> np.ndarray:
    x, y = _grid(n)
    px, py = bits.ints(n // 4, 3 * n // 4, 2).tolist()
    far = (x - px) ** 2 + (y - py) ** 2
    return _square(far.astype(np.int64) * bits.int(4, 10) * 256 // (n * n) & 255)


def zigzag(bits: Bits, n: int) -> np.ndarray:
    x, y = _grid(n)
    fold = n // bits.int(3, 6)
    bend = np.minimum(x % fold, fold - x % fold)
    return _square((y + bend) * bits.int(4, 8) * 256 // n & 255)


def marble(bits: Bits, n: int) -> np.ndarray:
    return _triangle((_waves(bits, n, 2, 4) + _smooth(bits, n, 8)) & 255)


def bricks(bits: Bits, n: int) -> np.ndarray:
    x, y = _grid(n)
    tall = max(n // bits.int(6, 10), 4)
    row = y // tall
    seam = (y % tall < max(tall // 6, 1)) | ((x + row % 2 * tall) % (2 * tall) < max(tall // 6, 1))
    return np.where(seam, 20, 150 + (row * 37 + (x + row % 2 * tall) // (2 * tall) * 53) % 80).astype(np.int32)


Texture = Callable[[Bits, int], np.ndarray]


def _by_name(*textures: Texture) -> dict[str, Texture]:
    return {texture.__name__: texture for texture in textures}


FAMILIES: dict[str, dict[str, Texture]] = {
    "train": _by_name(
        noise, stripes, checks, dots, gradient, plaid, mosaic, speckle, flat, spots, terrace, hatch, patchwork
    ),
    "heldout": _by_name(cells, rings, zigzag, marble, bricks),
}


def paint(bits: Bits, n: int, families: dict[str, Texture]) -> np.ndarray:
    """A texture of a random family in random colours: [n, n, 3] uint8."""
    field = families[bits.pick(tuple(families))](bits, n)
    stops = bits.ints(0, 255, (3, 3)).astype(np.int32)
    if bits.chance(40):  # shades of one colour
        stops = stops[:1] * np.array([[2], [5], [8]], np.int32) // 8
    steps = np.arange(256, dtype=np.int32)[:, None]
    low = stops[0] + (stops[1] - stops[0]) * steps // 128
    high = stops[1] + (stops[2] - stops[1]) * (steps - 128) // 128
    table = np.where(steps < 128, low, high).astype(np.uint8)  # [256, 3]
    return table[field]

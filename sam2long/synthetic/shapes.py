"""Silhouettes: polygons and unions of discs on an integer canvas. Families are split for held-out tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sam2long.synthetic.arith import ONE, TURN, Bits, cos, sin

RADIUS = 1000  # canvas units from the centre to the edge
Points = list[tuple[int, int]]


def _canvas(n: int) -> tuple[np.ndarray, np.ndarray]:
    axis = (2 * np.arange(n, dtype=np.int32) + 1 - n) * RADIUS // n
    return axis[None, :], axis[:, None]


def fill(points: Points, n: int) -> np.ndarray:
    """Even-odd interior of a closed polygon in canvas units: [n, n] bool."""
    x, y = _canvas(n)
    inside = np.zeros((n, n), bool)
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        if ay == by:
            continue
        if ay > by:
            ax, ay, bx, by = bx, by, ax, ay
        rows = slice(*np.searchsorted(y[:, 0], (ay, by)))
        inside[rows] ^= (x - ax) * (by - ay) < (y[rows] - ay) * (bx - ax)
    return inside


def _radial(radii: list[int]) -> Points:
    step = TURN // len(radii)
    return [(r * cos(k * step) // ONE, r * sin(k * step) // ONE) for k, r in enumerate(radii)]


def _disc(n: int, px: int, py: int, radius: int) -> np.ndarray:
    x, y = _canvas(n)
    return (x - px) ** 2 + (y - py) ** 2 < radius * radius


def ellipse(bits: Bits, n: int) -> np.ndarray:
    wide = bits.int(450, 980)
    return fill([(980 * cos(k * 32) // ONE, wide * sin(k * 32) // ONE) for k in range(32)], n)


def ngon(bits: Bits, n: int) -> np.ndarray:
    return fill(_radial(bits.ints(700, 990, bits.pick((3, 4, 5, 6, 7))).tolist()), n)


def blob(bits: Bits, n: int) -> np.ndarray:
    two, three, turn = bits.int(0, 200), bits.int(0, 160), bits.int(0, 1023)
    return fill(_radial([640 + (two * sin(64 * k + turn) + three * sin(96 * k)) // ONE for k in range(32)]), n)


def star(bits: Bits, n: int) -> np.ndarray:
    points, inner = bits.int(4, 7), bits.int(500, 700)
    return fill(_radial([980, inner] * points), n)


def pair(bits: Bits, n: int) -> np.ndarray:
    big, small = bits.int(480, 640), bits.int(360, 560)
    return _disc(n, big - 980, 0, big) | _disc(n, 980 - small, bits.int(-200, 200), small)


def slab(bits: Bits, n: int) -> np.ndarray:
    tall, lean = bits.int(420, 800), bits.int(-200, 200)
    return fill([(-760 + lean, -tall), (760 + lean, -tall), (760 - lean, tall), (-760 - lean, tall)], n)


def lump(bits: Bits, n: int) -> np.ndarray:
    """A closed line with random radii: dents and bulges anywhere."""
    knots = bits.ints(420, 990, bits.int(6, 10)).tolist()
    between = [(3 * a + b, 2 * (a + b), a + 3 * b) for a, b in zip(knots, knots[1:] + knots[:1], strict=True)]
    return fill(_radial([r for a, rest in zip(knots, between, strict=True) for r in (a, *(v // 4 for v in rest))]), n)


def petals(bits: Bits, n: int) -> np.ndarray:
    count, deep = bits.int(3, 6), bits.int(120, 300)
    return fill(_radial([980 - deep + deep * sin(k * count * TURN // 48) // ONE for k in range(48)]), n)


def ell(bits: Bits, n: int) -> np.ndarray:
    a, b = bits.int(500, 900), bits.int(500, 900)
    return fill([(-940, -940), (940, -940), (940, a - 940), (b - 940, a - 940), (b - 940, 940), (-940, 940)], n)


def wedge(bits: Bits, n: int) -> np.ndarray:
    """A disc with a slice cut out."""
    steps = bits.int(22, 30)
    rim = [(980 * cos(k * 32) // ONE, 980 * sin(k * 32) // ONE) for k in range(steps)]
    return fill([(0, 0), *rim], n)


def cross(bits: Bits, n: int) -> np.ndarray:
    a, b = bits.int(300, 480), bits.int(300, 480)
    x, y = _canvas(n)
    return (abs(x) < 940) & (abs(y) < a) | (abs(y) < 940) & (abs(x) < b)


def crescent(bits: Bits, n: int) -> np.ndarray:
    return _disc(n, 0, 0, 960) & ~_disc(n, bits.int(620, 800), 0, bits.int(560, 700))


def gear(bits: Bits, n: int) -> np.ndarray:
    inner = bits.int(680, 780)
    return fill(_radial([980, 980, inner, inner] * bits.int(6, 8)), n)


def bean(bits: Bits, n: int) -> np.ndarray:
    dip = bits.int(250, 400)
    return _disc(n, -420, dip, 540) | _disc(n, 0, -dip // 2, 560) | _disc(n, 420, dip, 540)


def arrow(bits: Bits, n: int) -> np.ndarray:
    shaft, neck = bits.int(260, 420), bits.int(-100, 250)
    return fill([(980, 0), (neck, 900), (neck, shaft), (-900, shaft), (-900, -shaft), (neck, -shaft), (neck, -900)], n)


Shape = Callable[[Bits, int], np.ndarray]
FAMILIES: dict[str, dict[str, Shape]] = {
    "train": {f.__name__: f for f in (ellipse, ngon, blob, star, pair, slab, lump, petals, ell, wedge)},
    "heldout": {f.__name__: f for f in (cross, crescent, gear, bean, arrow)},
}

"""Numbers that are the same on every machine: raw PCG64 bits, a sine table and integer curves.

Nothing here, and nothing built on it, goes through floating point once the sine table is rounded, so one seed gives
one sequence of pixels whatever the processor, the C library or the NumPy release.
"""

from __future__ import annotations

import math

import numpy as np

TURN = 1024  # one full turn in table steps
ONE = 4096  # fixed-point 1.0 of the sine table

# No entry lies within 1e-4 of a rounding tie (tests/test_synthetic.py checks it), so no libm can change the table.
SINE = np.array([round(math.sin(2 * math.pi * k / TURN) * ONE) for k in range(TURN)], dtype=np.int32)


Integer = int  # which a method below is called, too


def sin(angle: int) -> int:
    return int(SINE[angle % TURN])


def cos(angle: int) -> int:
    return int(SINE[(angle + TURN // 4) % TURN])


class Bits:
    """Random integers from PCG64's raw output, whose stream NumPy keeps fixed (that of `Generator` it does not)."""

    def __init__(self, *key: Integer) -> None:
        self._raw = np.random.PCG64(np.random.SeedSequence(list(key)))

    def ints(self, low: Integer, high: Integer, size: Integer | tuple[Integer, ...]) -> np.ndarray:
        """int64 array of the given size, uniform in low..high (both included)."""
        count = int(np.prod(size))
        raw = self._raw.random_raw(count).reshape(size) >> np.uint64(32)
        return low + ((raw * np.uint64(high - low + 1)) >> np.uint64(32)).astype(np.int64)

    def int(self, low: Integer, high: Integer) -> Integer:
        return low + ((int(self._raw.random_raw()) >> 32) * (high - low + 1) >> 32)

    def chance(self, percent: Integer) -> bool:
        return self.int(0, 99) < percent

    def pick(self, items):
        return items[self.int(0, len(items) - 1)]


class Curve:
    """A smooth path through random knots (uniform cubic B-spline), evaluated exactly at any tick."""

    def __init__(self, bits: Bits, low: int, high: int, period: int, last_tick: int, start: int | None = None) -> None:
        """`low`..`high` bounds every value; a knot every `period` ticks; `start`: the value at tick 0."""
        self._period = period
        self._phase = 0 if start is not None else bits.int(0, period - 1)
        knots = bits.ints(low, high, (last_tick + self._phase) // period + 5).tolist()
        if start is not None:
            knots[:3] = [start, start, start]
        self._knots = knots

    def __call__(self, tick: int) -> int:
        period = self._period
        k, f = divmod(max(tick + self._phase, 0), period)
        p0, p1, p2, p3 = self._knots[k : k + 4]
        g, cube = period - f, period**3
        w1 = 3 * f**3 - 6 * f * f * period + 4 * cube
        w2 = -3 * f**3 + 3 * f * f * period + 3 * f * period * period + cube
        return (p0 * g**3 + p1 * w1 + p2 * w2 + p3 * f**3) // (6 * cube)


def ramp(tick: int, start: int, length: int) -> int:
    """0 before `start`, ONE after `start + length`, smoothstep between."""
    f = min(max(tick - start, 0), length)
    return ONE * f * f * (3 * length - 2 * f) // length**3

"""A progress line with the time left, or plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time


def clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Progress:
    """Counts frames; the time left is of frames, because videos differ in length."""

    def __init__(self, frames: int, videos: int, label: str, stream=None):
        self.total, self.videos, self.label = frames, videos, label
        self.stream = stream or sys.stderr
        self.done = self.finished = 0
        self._started = time.monotonic()
        self._shown = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.stream.isatty():
            self.stream.write("\n")

    def left(self) -> float:
        """Seconds, from the pace so far."""
        elapsed = time.monotonic() - self._started
        return elapsed / self.done * (self.total - self.done) if self.done else float("inf")

    def frame(self, count: int = 1) -> None:
        self.done += count
        now = time.monotonic()
        if self.stream.isatty() and now - self._shown > 0.2:
            self._shown = now
            self.stream.write(f"\r{self._line()}\x1b[K")
            self.stream.flush()

    def _line(self) -> str:
        share = self.done / self.total if self.total else 1.0
        bar = "#" * int(30 * share) + "." * (30 - int(30 * share))
        left = clock(self.left()) if self.done else "?"
        pace = self.done / max(time.monotonic() - self._started, 1e-9)
        return (
            f"{self.label} [{bar}] {100 * share:.0f} % video {self.finished + 1}/{self.videos} {pace:.1f} "
            f"frames/s, {left} left"
        )

    def _say(self, text: str) -> None:
        start, end = ("\r", "\x1b[K\n") if self.stream.isatty() else ("", "\n")
        self.stream.write(f"{start}{text}{end}")
        self.stream.flush()

    def video(self, name: str, record) -> None:
        self.finished += 1
        left = f", {clock(self.left())} left" if self.done and self.finished < self.videos else ""
        self._say(
            f"{self.finished}/{self.videos} {name}: {record.frames} frames, {record.objects} objects in "
            f"{record.seconds:.1f} s, "
            f"peak {record.peak_memory_bytes / 2**20:.0f} MiB{left}"
        )

    def failure(self, name: str, reason: str) -> None:
        self.finished += 1
        self._say(f"{self.finished}/{self.videos} {name}: FAILED: {reason}")

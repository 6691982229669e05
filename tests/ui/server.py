"""`sam2long annotate` in a process of its own, and what its page asks of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

START_SECONDS = 180  # on a busy machine torch alone takes half a minute to import


class Server:
    """The real command.

    Args:
        clip, out: the video and the folder of the project.
        environment: variables beside this process's own.
        program: what runs `annotate`, in the place of `python -m sam2long.cli`.
    """

    def __init__(
        self,
        clip: Path,
        out: Path,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "sam2long.cli"),
    ) -> None:
        command = [sys.executable, *program, "annotate", str(clip), "--out", str(out), "--port", "0"]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*command, "--no-browser", "--device", "cpu"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env | dict(environment or {}),
        )  # fmt: skip
        late = threading.Timer(START_SECONDS, self.process.kill)
        late.start()
        line = self.process.stdout.readline()
        late.cancel()
        found = re.search(r"open (http://\S+)", line)
        assert found, line + self.process.stdout.read()
        self.address = found.group(1)

    def get(self, path):
        answer = httpx.get(self.address + path, timeout=START_SECONDS)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def annotations(self):
        """Everything that must not be lost."""
        state = self.get("api/state")
        frames = range(state["video"]["frames"])
        return {
            "objects": state["objects"],
            "view": state["view"],
            "frames": [self.get(f"api/frames/{frame}")["objects"] for frame in frames],
        }

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """(what it has printed, its exit code)"""
        self.process.terminate()
        return self.process.communicate(timeout=START_SECONDS)[0], self.process.returncode

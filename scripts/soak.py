"""A scripted user at `sam2long annotate` for as long as is asked: does the server's memory stay where it is?

    python scripts/soak.py --minutes 60 --out runs/soak
    python scripts/soak.py --minutes 20 --out runs/soak --trace      # names what grows

The user clicks, draws boxes and masks, tracks forth and back, corrects, takes back, removes, exports, downloads, says
what makes no sense, and closes pages; every now and then everything is reset. Once a minute: the memory of the server's
process, what malloc has given out and what it holds free, descriptors, threads, files in the temporary folder, size of
the project. soak.csv has them, soak.json the verdict: growth per hour after the first third, as Theil and Sen's slope
with its 95 % interval. It is flat where the interval holds 0, or where the slope is below 1 % an hour.
With --trace, traced.txt has the lines of Python that hold most of what was asked for after the first third.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import json
import os
import random
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pandas as pd

WARM_UP = 1 / 3  # of the time; caches fill, allocators find their size
FLAT = 0.01  # of what is there, an hour
FRAMES, SIDE, OBJECTS = 20, 128, 3
CLIENT_SECONDS = 600
FEWEST = 4  # samples, however little time there is
WATCHED = ("MiB", "malloc in use, MiB", "descriptors", "threads", "temporary files")
FORMATS = ("palette-png", "coco", "object-png", "labelme", "report", "matte")
ASK, ANSWER = "ask", "answer.json"  # files by which the server is asked for what only it knows


# ---- the user -------------------------------------------------------------------------------------------------------


class User:
    """Does something sensible or senseless, again and again.

    Args:
        client: httpx.Client of the server.
        scene: the video's frames, for where objects are.
    """

    def __init__(self, client, scene, seed: int) -> None:
        self.client, self.scene = client, scene
        self.choose = random.Random(seed)
        self.rounds, self.refused = 0, 0
        self.formats = {entry["name"] for entry in client.get("api/state").json()["formats"]} & set(FORMATS)

    def ask(self, method: str, path: str, may_be_refused: bool = False, **what) -> dict:
        answer = self.client.request(method, path, **what)
        if answer.status_code >= 400:
            self.refused += 1
            if answer.status_code >= 500 or not may_be_refused:
                raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def wait(self) -> None:
        while self.client.get("api/state").json()["busy"] is not None:
            time.sleep(0.05)

    def round(self) -> None:
        """A little work, as a user does it from one object to the next."""
        self.rounds += 1
        if self.rounds % 25 == 0:
            self.ask("POST", "api/reset", json={"keep_masks": self.choose.random() < 0.3})
        objects = [entry["id"] for entry in self.client.get("api/state").json()["objects"]]
        while len(objects) < OBJECTS:
            objects.append(self.ask("POST", "api/objects", json={"label": f"thing {self.rounds}"})["id"])
        chosen, frame = self.choose.choice(objects), self.choose.randrange(FRAMES)
        for obj_id in objects:
            self.click(obj_id, 0, 1 + obj_id % OBJECTS)
        self.track({"direction": "forward", "start": 0})
        self.look()
        self.correct(chosen, frame)
        way = self.choose.choice(("forward", "backward", "both"))
        self.track({"direction": way, "start": frame, "objects": [chosen]}, cancelled=self.choose.random() < 0.3)
        for _ in range(self.choose.randrange(4)):
            self.ask("POST", "api/undo", may_be_refused=True)
        self.export()
        self.senseless(chosen)
        if self.choose.random() < 0.3:
            self.ask("DELETE", f"api/objects/{chosen}")
        elif self.choose.random() < 0.3:
            self.ask("POST", f"api/objects/{chosen}/reset")

    def click(self, obj_id: int, frame: int, thing: int, positive: bool = True) -> None:
        rows, columns = (self.scene[frame].ids == thing).nonzero()
        at = self.choose.randrange(len(rows)) if len(rows) else None
        x, y = (SIDE / 2, SIDE / 2) if at is None else (float(columns[at]), float(rows[at]))
        said = {"object": obj_id, "frame": frame, "x": x, "y": y, "positive": positive}
        self.ask("POST", "api/prompts/click", may_be_refused=True, json=said)

    def correct(self, obj_id: int, frame: int) -> None:
        from PIL import Image

        on = {"object": obj_id, "frame": frame}
        how = self.choose.randrange(5)
        if how == 0:
            self.click(obj_id, frame, 1 + obj_id % OBJECTS, positive=False)
        elif how == 1:
            x, y = self.choose.randrange(SIDE // 2), self.choose.randrange(SIDE // 2)
            self.ask("POST", "api/prompts/box", json={**on, "box": [x, y, x + 40, y + 40]})
        elif how == 2:
            data = io.BytesIO()
            Image.fromarray(self.scene[frame].ids == self.choose.randrange(4)).save(data, "png")
            path = f"api/objects/{obj_id}/frames/{frame}/mask"
            self.ask("PUT", path, may_be_refused=True, content=data.getvalue())
        elif how == 3:
            self.ask("POST", "api/prompts/lock", may_be_refused=True, json=on)
        else:
            ring = [[self.choose.randrange(-99, SIDE + 99) for _ in "xy"] for _ in range(9)]
            shape = {"label": "drawn", "group_id": obj_id, "shape_type": "polygon", "points": ring}
            content = {"shapes": [shape], "imageWidth": SIDE, "imageHeight": SIDE}
            self.ask("PUT", f"api/frames/{frame}/shapes", may_be_refused=True, content=json.dumps(content))
        if self.choose.random() < 0.2:
            self.ask("POST", "api/prompts/clear", may_be_refused=True, json=on)

    def track(self, said: dict, cancelled: bool = False) -> None:
        self.ask("POST", "api/track", may_be_refused=True, json=said)
        if cancelled:
            time.sleep(self.choose.random())
            self.ask("POST", "api/cancel")
        self.wait()

    def look(self) -> None:
        """Through the video, as a page does that was just opened."""
        with self.client.stream("GET", "api/events") as events:
            next(events.iter_lines())
            self.ask("GET", "api/timeline")
            for frame in range(0, FRAMES, 3):
                self.ask("GET", f"api/frames/{frame}?shapes=true")
                self.client.get(f"api/frames/{frame}.jpg").raise_for_status()
            self.ask("GET", "api/looks")
            self.ask("PUT", "api/view", json={"frame": self.choose.randrange(FRAMES)})

    def export(self) -> None:
        name = self.choose.choice(sorted(self.formats))
        self.ask("POST", "api/export", may_be_refused=True, json={"format": name, "overwrite": True})
        self.wait()
        with self.client.stream("GET", f"api/exports/{name}.zip") as answer:
            for _ in answer.iter_bytes():
                if self.choose.random() < 0.1:
                    break  # the user has closed the page

    def senseless(self, obj_id: int) -> None:
        for method, path, content in (
            ("POST", "api/prompts/click", b'{"object": 1, "fra'),
            ("PUT", f"api/objects/{obj_id}/frames/0/mask", b"GIF89a"),
            ("PUT", "api/frames/0/shapes", b"[" * 10_000),
            ("GET", f"api/frames/{FRAMES}.jpg", None),
            ("POST", "api/objects", b'{"name": "' + b"n" * 100_000 + b'"}'),
        ):
            self.ask(method, path, may_be_refused=True, content=content)


# ---- what is seen of the server -------------------------------------------------------------------------------------


def sample(process, temporary: Path, project: Path) -> dict[str, float]:
    """The server as the system sees it, and what malloc says within it."""
    (temporary.parent / ASK).touch()
    answer = temporary.parent / ANSWER
    for _ in range(600):
        if answer.exists():
            break
        time.sleep(0.1)
    inside = json.loads(answer.read_text())
    answer.unlink()
    return {
        "MiB": process.memory_info().rss / 2**20,
        "malloc in use, MiB": inside["in use"] / 2**20,
        "malloc free, MiB": inside["free"] / 2**20,
        "descriptors": process.num_fds(),
        "threads": process.num_threads(),
        "temporary files": sum(1 for _ in temporary.rglob("*")),
        "project, MiB": sum(path.stat().st_size for path in project.rglob("*") if path.is_file()) / 2**20,
    }


def verdict(table: pd.DataFrame) -> dict[str, dict[str, float | bool]]:
    """Growth per hour of each number after the warm-up, and whether it is none."""
    from scipy.stats import theilslopes

    late = table[table["minute"] >= WARM_UP * table["minute"].max()]
    found = {}
    for name in WATCHED:
        slope, _, low, high = theilslopes(late[name], late["minute"] / 60)
        level = float(late[name].median())
        flat = bool(low <= 0 or slope <= FLAT * level)
        found[name] = {"level": level, "an hour": float(slope), "from": float(low), "to": float(high), "flat": flat}
    return found


# ---- within the server ----------------------------------------------------------------------------------------------


class _Malloc(ctypes.Structure):
    """glibc's mallinfo2: bytes in use are those of all arenas and of mapped blocks."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def malloc() -> dict[str, int]:
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except AttributeError:  # another C library
        return {"in use": 0, "free": 0}
    ask.restype = _Malloc
    told = ask()
    return {"in use": told.uordblks + told.hblkhd, "free": told.fordblks}


def serve(folder: Path, warm_up: float, trace: bool, arguments: list[str]) -> int:
    """`sam2long` with a thread that answers how memory is used."""
    from sam2long.cli import main as sam2long

    begun = time.monotonic()

    def answer() -> None:
        while True:
            time.sleep(0.1)
            if not (folder / ASK).exists():
                continue
            (folder / ASK).unlink()
            if tracemalloc.is_tracing():
                kept = tracemalloc.take_snapshot().statistics("traceback")[:20]
                lines = [f"{line}\n  " + "\n  ".join(line.traceback.format()) for line in kept]
                (folder / "traced.txt").write_text("\n".join(lines))
            elif trace and time.monotonic() - begun > warm_up:
                tracemalloc.start(6)
            (folder / "writing").write_text(json.dumps(malloc()))
            (folder / "writing").replace(folder / ANSWER)

    threading.Thread(target=answer, daemon=True).start()
    return sam2long(arguments)


# ---- the command ----------------------------------------------------------------------------------------------------


def soak(out: Path, minutes: float, every: float, seed: int, trace: bool) -> pd.DataFrame:
    """A row for each minute."""
    import httpx
    import psutil

    from sam2long.synthetic import generate
    from sam2long.video import VideoWriter
    from tests.ui.server import Server

    out.mkdir(parents=True, exist_ok=True)
    scene = list(generate("occlusion", seed=seed, num_frames=FRAMES, size=SIDE, num_objects=OBJECTS))
    with VideoWriter(out / "soak.mp4", 25, SIDE, SIDE) as video:
        for frame in scene:
            video.write(frame.image)
    temporary, project = out / "tmp", out / f"project-{os.getpid()}"
    temporary.mkdir(exist_ok=True)
    program = (__file__, "--within", str(out), str(minutes * 60 * WARM_UP), str(int(trace)))
    server = Server(out / "soak.mp4", project, {"TMPDIR": str(temporary)}, program)
    begun, rows = time.monotonic(), []
    try:
        process = psutil.Process(server.process.pid)
        with httpx.Client(base_url=server.address, timeout=CLIENT_SECONDS) as client:
            user = User(client, scene, seed)
            while (spent := time.monotonic() - begun) < minutes * 60 or len(rows) < FEWEST:
                user.round()
                if spent >= len(rows) * every:
                    rows.append({"minute": spent / 60, "rounds": user.rounds, **sample(process, temporary, project)})
                    pd.DataFrame(rows).to_csv(out / "soak.csv", index=False)
                    told = ", ".join(f"{name} {value:.5g}" for name, value in rows[-1].items())
                    print(told, flush=True)
            print(f"{user.rounds} rounds, {user.refused} requests refused", flush=True)
    finally:
        printed, code = server.stop()
    (out / "server.txt").write_text(f"{printed}\nexit code {code}\n")
    return pd.DataFrame(rows)


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--within"]:
        return serve(Path(argv[1]), float(argv[2]), argv[3] == "1", argv[4:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--every", type=float, default=60, help="seconds from one sample to the next")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trace", action="store_true", help="name the lines of Python that grow")
    parser.add_argument("--out", type=Path, default=Path("runs/soak"))
    args = parser.parse_args(argv)
    out = args.out.resolve()
    table = soak(out, args.minutes, args.every, args.seed, args.trace)
    found = verdict(table)
    commit = ""
    with contextlib.suppress(OSError):
        command = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    about = {"commit": commit, "minutes": args.minutes, "rounds": int(table["rounds"].max()), "trace": args.trace}
    (out / "soak.json").write_text(json.dumps({**about, "growth": found}, indent=2) + "\n")
    for name, of in found.items():
        said = "flat" if of["flat"] else "GROWS"
        print(f"{name}: {said}: {of['level']:.5g}, {of['an hour']:+.3g} an hour ({of['from']:+.3g} to {of['to']:+.3g})")
    return 0 if all(of["flat"] for of in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

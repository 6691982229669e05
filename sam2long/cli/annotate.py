"""`sam2long annotate`: a page in the browser to prompt, track, correct and export."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, UseAppendAction, arg

from sam2long.cli.flags import Frames, MethodOrOnline, Network, asked, shown
from sam2long.errors import ConfigError, DataError
from sam2long.extras import require
from sam2long.runs import opening
from sam2long.runs.opening import absolute, index_of, require_length

if TYPE_CHECKING:
    from sam2long.runs.settings import RunSettings
    from sam2long.ui.security import Access

PORT = 8642
TOKEN_BYTES = 24
TOKEN_VARIABLE = "SAM2LONG_TOKEN"

EXAMPLES = """Prompt, track, correct and export in the browser; everything is saved as you go.

examples:
  sam2long annotate dog.mp4
  sam2long annotate dog.mp4 --out runs/dog --model sam2.1-large
  sam2long annotate frames/ --host 0.0.0.0       # from another computer; prints an address with a token"""


@dataclass(kw_only=True)
class Annotate:
    """Prompt, track, correct and export in the browser; everything is saved as you go."""

    video: Annotated[Positional[str], arg(metavar="VIDEO", help_behavior_hint="")]
    """Video file, or folder of JPEG/PNG images."""
    out: Annotated[Path | None, shown("DIR")] = None
    """Folder of the project; one that is there is opened where you left it, and a run of `sam2long track` can be
    corrected. Default: beside the video, with its name and .sam2long."""
    frame: Annotated[int | None, shown("N")] = None
    """Frame of the video to begin with, by position from 0. Default: where you left it."""
    port: Annotated[int, arg(metavar="N")] = PORT
    """Port to listen on; 0 takes a free one."""
    host: Annotated[str, arg(metavar="ADDRESS")] = "127.0.0.1"
    """Address to listen on. Any but this computer's own needs a token; one is made where you give none."""
    token_file: Annotated[Path | None, shown("FILE")] = None
    """File with a token: who does not send it does not get in. Or set SAM2LONG_TOKEN. On the command line, everybody on
    this computer could read it."""
    allow_host: Annotated[UseAppendAction[tuple[str, ...]], shown("NAME")] = ()
    """A name under which browsers reach this server, e.g. of a proxy; may be repeated."""
    root: Annotated[Path | None, shown("DIR")] = None
    """Exports may be written below this folder and the project's. Default: the video's folder."""
    no_browser: bool = False
    """Do not open a browser."""
    frames: Frames = field(default_factory=Frames)
    """Which frames are looked at."""
    network: Network = field(default_factory=Network)
    """Which network, and where."""
    method: MethodOrOnline = field(default_factory=MethodOrOnline)
    """How hypotheses and memories are chosen; docs/method.md explains it."""

    def run(self) -> int:
        for module in ("fastapi", "uvicorn", "cv2"):
            require(module, extra="ui", purpose="the page")
        from sam2long.ui.app import create_app
        from sam2long.ui.desk import Desk
        from sam2long.ui.project import Project
        from sam2long.ui.serving import serve
        from sam2long.video import open_source

        folder, root = self._folders()
        access = self._access()
        settings = self._settings(folder)
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(
                open_source(settings.video, start=settings.start, stop=settings.stop(), stride=settings.stride)
            )
            require_length(source, settings.video)
            at = None if self.frame is None else index_of(self.frame, source, "open")
            listening = stack.enter_context(self._listen())
            predictor = opening.build_predictor(settings)
            project = stack.enter_context(contextlib.closing(Project(folder, source, settings)))
            desk = stack.enter_context(contextlib.closing(Desk(project, predictor, [root], Path(self.video).name)))
            port = listening.getsockname()[1]
            access = replace(access, cookie=f"sam2long-{port}")
            self._announce(port, access, folder, at)
            serve(create_app(desk, access), listening, desk.hub)
        print("sam2long: saved", file=sys.stderr)
        return 0

    # ---- what was asked for -------------------------------------------------------------------------------------

    def _folders(self) -> tuple[Path, Path]:
        """(of the project, below which files are reached)"""
        video = Path(self.video)
        if "://" in self.video or not video.exists():
            raise ConfigError(f"{self.video} does not exist; expected a video file or a folder of images")
        root = self.root if self.root is not None else video.resolve().parent
        if not root.is_dir():
            raise ConfigError(f"--root {root} is not a folder; name one that exists")
        out = self.out if self.out is not None else video.resolve().with_name(f"{video.resolve().stem}.sam2long")
        if out.exists() and not out.is_dir():
            raise ConfigError(f"--out {out} is a file; name a folder")
        if out.is_dir() and any(out.iterdir()) and not any((out / name).exists() for name in _OURS):
            raise DataError(f"{out} holds other files and no project; choose an empty folder or a new one")
        return out.resolve(), root.resolve()

    def _access(self) -> Access:
        from sam2long.ui.security import LOOPBACK_NAMES, Access, is_loopback

        token = self._token()
        names = LOOPBACK_NAMES | {name.lower() for name in self.allow_host}
        if is_loopback(self.host):
            return Access(hosts=names | {self.host}, token=token)
        return Access(
            hosts=names | {self.host, socket.gethostname().lower()},
            any_address=True,
            token=token or secrets.token_urlsafe(TOKEN_BYTES),
        )

    def _token(self) -> str | None:
        """The one in --token-file or in SAM2LONG_TOKEN, which is taken out of the environment of child processes."""
        token, where = os.environ.pop(TOKEN_VARIABLE, None), TOKEN_VARIABLE
        if self.token_file is not None:
            try:
                token, where = self.token_file.read_text(encoding="utf-8").strip(), f"the token in {self.token_file}"
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not text"
                raise ConfigError(f"cannot read --token-file {self.token_file}: {reason}") from None
        if token is not None and (len(token) < 8 or not token.isascii() or not _is_plain(token)):
            raise ConfigError(f"{where} is shorter than 8 characters or has other ones than letters, digits, - and _")
        return token

    def _settings(self, folder: Path) -> RunSettings:
        """What was asked for; where a project or run is there already, its choice of frames and its tracker."""
        from sam2long.runs.run_folder import RunFolder

        given = asked(self.network, self.method, vars(self.frames))
        run = RunFolder(folder)
        if not run.info.exists() or self.method.config is not None:
            return given.settings(absolute(self.video))
        return given.over(run.read_settings().to_dict(), absolute(self.video))

    # ---- the address --------------------------------------------------------------------------------------------

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            return socket.create_server((self.host, self.port), family=family)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"cannot listen on {self.host}, port {self.port} ({reason}); choose another --port, or 0 for a free one"
            ) from None

    def _announce(self, port: int, access: Access, folder: Path, at: int | None) -> None:
        import webbrowser

        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self.host, self.host)
        host = f"[{host}]" if ":" in host else host
        address = f"http://{host}:{port}/" + (f"?token={access.token}" if access.token else "")
        address += "" if at is None else f"#frame={at}"
        print(f"sam2long: open {address}", flush=True)
        print(f"sam2long: saving to {folder}; Ctrl-C stops", flush=True)
        if not self.no_browser and _has_screen():
            webbrowser.open(address)


_OURS = ("prompts.json", "masks.jsonl", "run.json", ".lock")


def _has_screen() -> bool:
    """Without one, a text browser would take the terminal."""
    return sys.platform in ("win32", "darwin") or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))


def _is_plain(token: str) -> bool:
    return all(character.isalnum() or character in "-_" for character in token)

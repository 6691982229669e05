"""A task's pictures and videos: from Label Studio itself, from its local-files storage, or from the web."""

from __future__ import annotations

import hashlib
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, urlsplit

from filelock import FileLock

from sam2long.atomic import replacing, write_json
from sam2long.errors import ConfigError, DataError, VideoError

PROJECTS, PRIVATE = "projects.json", 0o700
LOCAL = "/data/local-files/"
SECONDS = 60  # that a server may take to answer
TOKEN_PARTS = 3  # of a JSON web token, which is exchanged for one that opens files
MOST_BYTES = 20 << 30  # that downloads take on disk before the oldest go


class Files:
    """Where a task's files are.

    Args:
        cache: folder for downloads.
        address: of Label Studio, from its user; None to believe what each project says of itself.
        token: an API key of that address, sent nowhere else.
        local: the folder behind local-files storage, when it is on this machine too.
    """

    def __init__(
        self, cache: Path, address: str | None = None, token: str | None = None, local: Path | None = None
    ) -> None:
        if local is not None and not local.is_dir():
            raise ConfigError(f"--local-files {local} is not a folder; give the one that Label Studio serves")
        self.cache, self.address, self.token = cache, address and address.rstrip("/"), token
        self.local = local and local.resolve()

    def known(self) -> dict[str, tuple[str | None, str | None]]:
        """What `remember` was told last: Label Studio sets a project up once, and not again when this is restarted."""
        with suppress(OSError, ValueError):
            stored = json.loads((self.cache / PROJECTS).read_text(encoding="utf-8"))
            return {project: (str(address), str(token)) for project, (address, token) in stored.items()}
        return {}

    def remember(self, projects: Mapping[str, tuple[str | None, str | None]]) -> None:
        """Keep each project's address and token, in a folder that others cannot read."""
        self.cache.mkdir(parents=True, exist_ok=True)
        self.cache.chmod(PRIVATE)
        write_json(self.cache / PROJECTS, {name: each for name, each in projects.items() if all(each)})

    def fetch(self, url: str, address: str | None, token: str | None) -> Path:
        """The file behind a task's value; downloaded once.

        Args:
            url: of the task. address, token: of Label Studio, as the project's set-up said.
        Raises:
            DataError: an address of a kind that is not read, or one that gives no file.
        """
        if self.address is not None:
            address, token = self.address, self.token or token
        parts = urlsplit(url)
        if parts.scheme not in ("", "http", "https"):
            raise DataError(
                f"{parts.scheme}:// files are not read; let Label Studio hand them out itself (pre-signed URLs off, "
                "proxy on), or use local-files storage"
            )
        if self.local is not None and parts.path == LOCAL:
            return self._local(self.local, parse_qs(parts.query).get("d", [""])[-1])
        if not parts.scheme:
            if not address:
                raise DataError("it is not known where Label Studio is; start with --label-studio ADDRESS")
            url = f"{address.rstrip('/')}/{url.lstrip('/')}"
        ours = address is not None and urlsplit(url).netloc == urlsplit(address).netloc
        return self._download(url, self._key(address, token) if ours and address and token else None)

    @staticmethod
    def _local(folder: Path, name: str) -> Path:
        path = (folder / name.lstrip("/")).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            raise DataError(f"{name} is no file below {folder}; see that --local-files is Label Studio's own folder")
        return path

    def _download(self, url: str, key: str | None) -> Path:
        parts = urlsplit(url)
        named = Path(parse_qs(parts.query).get("d", [parts.path])[-1])
        folder = self.cache / hashlib.sha256(f"{url} {key is not None}".encode()).hexdigest()[:16]
        path = folder / f"file{named.suffix.lower()}"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if not path.exists():
                with _opened(url, key) as answer, replacing(path) as partial, partial.open("wb") as file:
                    shutil.copyfileobj(answer, file)
                self._tidy()
        path.touch()  # used now
        return path

    def _tidy(self) -> None:
        """The files that were not used for longest go when there are too many bytes."""
        files = sorted(self.cache.glob("*/file*"), key=lambda path: path.stat().st_mtime)
        left = sum(path.stat().st_size for path in files)
        for path in files[:-1]:
            if left <= MOST_BYTES:
                return
            left -= path.stat().st_size
            path.unlink(missing_ok=True)

    def _key(self, address: str, token: str) -> str:
        """What opens files: the token, or what a personal access token is exchanged for."""
        if len(token.split(".")) != TOKEN_PARTS:
            return f"Token {token}"
        asked = urllib.request.Request(
            f"{address.rstrip('/')}/api/token/refresh", json.dumps({"refresh": token}).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        with _opened(asked, None) as answer:
            return f"Bearer {json.load(answer)['access']}"


@contextmanager
def _opened(url: str | urllib.request.Request, key: str | None) -> Iterator[IO[bytes]]:
    """An answer of a server; what goes wrong is a sentence."""
    asked = urllib.request.Request(url) if isinstance(url, str) else url
    if key:
        asked.add_unredirected_header("Authorization", key)  # not to where a redirect leads
    shown = asked.full_url.split("?")[0] if "token" in asked.full_url else asked.full_url
    try:
        with urllib.request.urlopen(asked, timeout=SECONDS) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        hint = (
            "; start with LABEL_STUDIO_API_KEY and --label-studio"
            if error.code in (401, 403)
            else "; see that it is there"
        )
        raise DataError(f"{shown} gives no file ({error.code} {error.reason}){hint}") from None
    except urllib.error.URLError as error:
        raise DataError(f"{shown} cannot be reached ({error.reason}); see that it is there") from None
    except TimeoutError:
        raise VideoError(f"{shown} took more than {SECONDS} seconds; try again") from None

"""`sam2long label-studio`: a backend for Label Studio's projects."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from sam2long.cli.flags import Method, Network, asked, shown
from sam2long.errors import ConfigError
from sam2long.runs.opening import build_predictor

PORT = 9090

EXAMPLES = """Track and segment for Label Studio: connect this as a model in a project's settings.

examples:
  sam2long label-studio
  sam2long label-studio --model sam2.1-large --port 9090
  LABEL_STUDIO_API_KEY=... sam2long label-studio --label-studio http://localhost:8080   # legacy tokens are off"""

LOGIN, KEY = "SAM2LONG_LOGIN", "LABEL_STUDIO_API_KEY"  # variables: flags can be read by others


@dataclass(kw_only=True)
class LabelStudio:
    """Track and segment for Label Studio: connect this as a model in a project's settings."""

    port: Annotated[int, arg(metavar="N")] = PORT
    """Port to listen on; 0 takes a free one."""
    host: Annotated[str, arg(metavar="ADDRESS")] = "127.0.0.1"
    """Address to listen on. Any but this computer's own needs SAM2LONG_LOGIN=USER:PASSWORD in the environment, which
    Label Studio is to send as its "Basic authentication" of the model."""
    label_studio: Annotated[str | None, shown("URL")] = None
    """Where Label Studio is; its files are opened with LABEL_STUDIO_API_KEY from the environment, a personal access
    token or a legacy one. Default: where it says it is, and the token that it sends."""
    local_files: Annotated[Path | None, shown("DIR")] = None
    """The folder behind Label Studio's local-files storage, to read it without downloads."""
    network: Network = field(default_factory=Network)
    """Which network, and where."""
    method: Method = field(default_factory=Method)
    """How hypotheses and memories are chosen."""

    def run(self) -> int:
        import ipaddress

        from sam2long.hosts.label_studio.backend import Backend
        from sam2long.hosts.label_studio.files import Files
        from sam2long.hosts.label_studio.server import Server

        local = self.host == "localhost"
        if not local:
            try:
                local = ipaddress.ip_address(self.host).is_loopback
            except ValueError:
                local = False
        login = os.environ.get(LOGIN) or None
        if login is not None and ":" not in login:
            raise ConfigError(f"{LOGIN} has no colon; expected USER:PASSWORD")
        if not local and login is None:
            raise ConfigError(f"--host {self.host} can be reached by others; set {LOGIN}=USER:PASSWORD")
        settings = asked(self.network, self.method, {}).settings("")
        key = os.environ.get(KEY) if self.label_studio else None
        files = Files(_cache(), self.label_studio, key, self.local_files)
        backend = Backend(build_predictor(settings), f"sam2long-{Path(settings.model).name}", files)
        with Server((self.host, self.port), backend, login) as server:
            print(
                f"sam2long: connect http://{self.host}:{server.server_port} in Label Studio; Ctrl-C stops", flush=True
            )
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print("\nsam2long: stopped", file=sys.stderr)
        return 0


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sam2long" / "label-studio"

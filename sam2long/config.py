"""The settings of SAM2Long: frozen, checked on creation, defaults from the paper."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sam2long.errors import ConfigError

TWINS = ("keep", "merge")
EMIT = ("settled", "online")
MEMORY_TOKENS = ("all", "sparse")
GONE = ("merge_agreeing", "zoom_in")  # of earlier versions; None there means that it was not used
SPARSE_SHARE = 0.05  # of a memory's tokens, how many "sparse" keeps in each layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Sam2LongConfig:
    """How SAM2Long tracks. The defaults are the paper's (arXiv 2410.16268, Sec. 4.1).

    `Sam2LongConfig.sam2()` switches everything off and is plain SAM 2, bit for bit on the CPU.

    Raises:
        ConfigError: a value out of its range; the message names the field.
    """

    num_pathways: int = 3  # P, hypotheses kept per object; 1 never branches
    iou_threshold: float = 0.3  # delta_iou: a frame is reliable memory above this predicted IoU
    certainty_threshold: float = 2.0  # delta_conf: a frame is certain above this |object logit|
    modulation: tuple[float, float] = (0.95, 1.05)  # key weight of the least and the most visible memory
    object_aware_memory: bool = True  # False: SAM 2's own choice, the latest frames whatever their quality
    twins: str = "keep"  # "keep": the released program; "merge": the paper's literal text
    emit: str = "settled"  # "settled": once all pathways agree on a frame; "online": at once
    max_lag: int | None = 256  # frames a mask may wait for agreement; None: as long as it takes
    max_prompted_frames: int | None = 8  # prompted frames read at once: the first and the nearest; None: all of them
    stills: bool | None = None  # prompts are answered by a network for still pictures; None: in nano
    redraw: bool | None = None  # tracked masks are drawn once more by a network for still pictures; None: in nano
    close_up: bool | None = None  # small objects are tracked in a window that goes with them; None: in nano
    memory_tokens: str = "all"  # "sparse": of older memories only the tokens that were attended to; faster, not exact

    def __post_init__(self) -> None:
        object.__setattr__(self, "modulation", _pair(self.modulation))
        low, high = self.modulation
        _require(_is_int(self.num_pathways) and self.num_pathways >= 1, self, "num_pathways", "an integer of 1 or more")
        _require(_is_number(self.iou_threshold), self, "iou_threshold", "a number (useful: 0 to 1)")
        _require(
            _is_number(self.certainty_threshold) and self.certainty_threshold >= 0,
            self,
            "certainty_threshold",
            "a number of 0 or more",
        )
        _require(0 < low <= high, self, "modulation", "two numbers with 0 < low <= high")
        _require(isinstance(self.object_aware_memory, bool), self, "object_aware_memory", "true or false")
        _require(self.twins in TWINS, self, "twins", f"one of {TWINS}")
        _require(self.emit in EMIT, self, "emit", f"one of {EMIT}")
        _require(
            self.max_lag is None or (_is_int(self.max_lag) and self.max_lag >= 0),
            self,
            "max_lag",
            "an integer of 0 or more, or None for no bound",
        )
        _require(
            self.max_prompted_frames is None or (_is_int(self.max_prompted_frames) and self.max_prompted_frames >= 1),
            self,
            "max_prompted_frames",
            "an integer of 1 or more, or None for no bound",
        )
        _require(self.stills is None or isinstance(self.stills, bool), self, "stills", "true, false or None")
        _require(self.redraw is None or isinstance(self.redraw, bool), self, "redraw", "true, false or None")
        _require(self.close_up is None or isinstance(self.close_up, bool), self, "close_up", "true, false or None")
        _require(self.memory_tokens in MEMORY_TOKENS, self, "memory_tokens", f"one of {MEMORY_TOKENS}")

    @property
    def sparse_share(self) -> float:
        """Of a memory's tokens, how many stay readable once it is no longer the newest."""
        return SPARSE_SHARE if self.memory_tokens == "sparse" else 1.0

    @property
    def most_prompted(self) -> int:
        """`max_prompted_frames` as a number; no bound is one that no video reaches."""
        return sys.maxsize if self.max_prompted_frames is None else self.max_prompted_frames

    @classmethod
    def sam2(cls) -> Sam2LongConfig:
        """Plain SAM 2: one pathway, its own memory choice, no key weights, every prompted frame read."""
        return cls(
            num_pathways=1, object_aware_memory=False, modulation=(1.0, 1.0), max_prompted_frames=None, stills=False,
            redraw=False, close_up=False,
        )  # fmt: skip

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Sam2LongConfig:
        """From a plain mapping (YAML, JSON, Hydra). Unknown keys raise ConfigError and are named."""
        known = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in values.items() if not (key in GONE and value is None)}
        if unknown := sorted(str(key) for key in values if key not in known):
            raise ConfigError(
                f"unknown sam2long setting {', '.join(unknown)}; the settings are {', '.join(sorted(known))}"
            )
        return cls(**dict(values))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON; `from_mapping` reads them back."""
        return dataclasses.asdict(self) | {"modulation": list(self.modulation)}


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _pair(value: Any) -> tuple[float, float]:
    try:
        low, high = value
        return float(low), float(high)
    except (TypeError, ValueError):
        raise ConfigError(f"modulation is {value!r}; expected two numbers, lowest and highest key weight") from None


def _require(condition: bool, config: Sam2LongConfig, field: str, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{field} is {getattr(config, field)!r}; expected {expected}")

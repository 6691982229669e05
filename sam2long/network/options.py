"""Keywords and options that cannot be honoured are refused, and where a setting belongs is said."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable
from typing import Any

from sam2long.config import Sam2LongConfig
from sam2long.errors import ConfigError

SETTINGS = tuple(field.name for field in dataclasses.fields(Sam2LongConfig))


def options_of(model: type) -> set[str]:
    """What a class of sam2 takes, with its parents."""
    taken = set()
    for each in model.__mro__:
        if "__init__" in vars(each) and each is not object:
            taken |= set(inspect.signature(vars(each)["__init__"]).parameters)
    return taken - {"self", "args", "kwargs"}


def refuse_unknown(keywords: Iterable[str], taken: Iterable[str] = ()) -> None:
    """Raise where a keyword is not one.

    Args:
        keywords: that were given.
        taken: what the builder takes, when it is the builder who asks; else options of sam2's model are taken.
    Raises:
        ConfigError: with the place where it belongs.
    """
    from sam2.sam2_video_predictor import SAM2VideoPredictor

    of_model, taken = options_of(SAM2VideoPredictor), [name for name in taken if name != "unknown"]
    for name in keywords:
        if name in SETTINGS:
            raise ConfigError(f"{name} is a setting of SAM2Long: pass sam2long=Sam2LongConfig({name}=...)")
        if name not in of_model:
            known = ", ".join(taken or ("network", "sam2long", "dtype", "processor", *sorted(of_model)))
            raise ConfigError(f"unknown keyword {name}; expected one of {known}")
        if taken:
            raise ConfigError(
                f'{name} is an option of sam2\'s model: pass hydra_overrides_extra=["++model.{name}=..."]'
            )


def check_model_options(model: Any) -> None:
    """Refuse what a sam2 model asks for and SAM2Long cannot do.

    Raises:
        ConfigError: naming the option.
    """
    if getattr(model, "clear_non_cond_mem_around_input", False):
        raise ConfigError(
            "clear_non_cond_mem_around_input=true is not available: which memories a correction leaves behind is up to "
            "the memory tree; leave it out"
        )
    if model.num_maskmem < 2:
        raise ConfigError(f"num_maskmem is {model.num_maskmem}; SAM2Long needs memories, so 2 or more")


def only_sam2s(name: str, **options: Any) -> None:
    """Refuse options that only models of sam2's package have; what is empty was not given."""
    if given := [option for option, value in options.items() if value]:
        raise ConfigError(f"{name} takes no {given[0]}: that is for sam2's models; leave it out")

"""torch as we expect it inside a host program that has set it up otherwise.

sam2 makes many tensors without saying of what type and where. A host may have changed torch's defaults for both
(`torch.set_default_dtype`, `torch.set_default_device`, `with torch.device(...)`); then sam2's masks would be other
ones, or none. So the defaults are torch's own while one of our calls runs, and the host's again when it returns or
yields.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])

PLAIN = torch.float32

_lock = threading.Lock()
_calls = 0  # of ours that run now, in all threads: torch has one default dtype for all of them
_hosts_dtype = PLAIN


@contextmanager
def plain_torch() -> Iterator[None]:
    """Within it, torch makes float32 tensors on the CPU where nothing else is said."""
    elsewhere = torch.empty(0).device.type != "cpu"  # torch 2.5's get_default_device fails after it has been unset
    with _plain_dtype(), torch.device("cpu") if elsewhere else nullcontext():
        yield


def with_plain_torch(function: Function) -> Function:
    """Run a function, or each step of a generator, in `plain_torch`."""
    if not inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with plain_torch():
                return function(*args, **kwargs)

        return cast(Function, call)

    @functools.wraps(function)
    def steps(*args: Any, **kwargs: Any) -> Iterator[Any]:
        generator = function(*args, **kwargs)
        try:
            while True:
                with plain_torch():
                    try:
                        value = next(generator)
                    except StopIteration:
                        return
                yield value
        finally:
            with plain_torch():
                generator.close()

    return cast(Function, steps)


@contextmanager
def _plain_dtype() -> Iterator[None]:
    global _calls, _hosts_dtype
    with _lock:
        if _calls == 0:
            _hosts_dtype = torch.get_default_dtype()
            if _hosts_dtype != PLAIN:
                torch.set_default_dtype(PLAIN)
        _calls += 1
    try:
        yield
    finally:
        with _lock:
            _calls -= 1
            # Not when the host has chosen anew meanwhile, in another thread.
            if _calls == 0 and _hosts_dtype != PLAIN and torch.get_default_dtype() == PLAIN:
                torch.set_default_dtype(_hosts_dtype)

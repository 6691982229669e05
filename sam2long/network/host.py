"""The host program's torch defaults: they neither change our masks, nor are they changed by us."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from inspect import isgeneratorfunction
from typing import TypeVar

import torch

Method = TypeVar("Method", bound=Callable)


@contextmanager
def torch_defaults() -> Iterator[None]:
    """New tensors are float32 on the CPU in here, whatever the host has set; afterwards its setting is back.

    Costs nothing where torch's own defaults are set, as almost everywhere. A default device is a mode that sees every
    operation, so ours is entered only in the place of another.
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    with ExitStack() as undo:
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
            undo.callback(torch.set_default_dtype, dtype)
        if device.type != "cpu":
            undo.enter_context(torch.device("cpu"))
        yield


def indifferent(method: Method) -> Method:
    """A method that runs under `torch_defaults`; a generator only while it works, not while its caller does."""
    if isgeneratorfunction(method):

        @wraps(method)
        def steps(*args, **kwargs):
            work = method(*args, **kwargs)
            try:
                while True:
                    with torch_defaults():
                        try:
                            step = next(work)
                        except StopIteration:
                            return
                    yield step
            finally:
                work.close()

        return steps

    @wraps(method)
    def call(*args, **kwargs):
        with torch_defaults():
            return method(*args, **kwargs)

    return call

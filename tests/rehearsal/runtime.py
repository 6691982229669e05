"""torch.cuda as a program finds it: streams and events, generators, what is asked of a device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from tests.rehearsal.device import PretendedCuda

machines: list[PretendedCuda] = []  # that are pretended now, the innermost last


def the_machine() -> PretendedCuda:
    if not machines:
        raise RuntimeError("a tensor of a pretended device was used after it was gone")
    return machines[-1]


class Stream:
    """A queue of the device. Work gets numbers; `done` is the last one that the host knows to be complete."""

    def __init__(self, device: Any = None, priority: int = 0, **_: Any) -> None:
        self.device = the_machine().device(device)
        self.given = self.done = 0
        self.after: list[tuple[int, Stream, int]] = []  # (from this number on, that stream's work up to there is done)

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if event.stream is not None:
            self.after.append((self.given + 1, event.stream, event.number))

    def wait_stream(self, other: Stream) -> None:
        self.after.append((self.given + 1, other, other.given))

    def query(self) -> bool:
        return self.done >= self.given

    def synchronize(self) -> None:
        the_machine().wait_for(self, self.given, "stream")

    def __enter__(self) -> Stream:
        machine = the_machine()
        self._before = machine.current(self.device)
        machine.streams[self.device] = self
        return self

    def __exit__(self, *_: Any) -> None:
        the_machine().streams[self.device] = self._before


class Event:
    """A point in a stream."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, **_: Any) -> None:
        self.stream: Stream | None = None
        self.number = 0

    def record(self, stream: Stream | None = None) -> None:
        self.stream = stream or the_machine().current(None)
        self.number = self.stream.given

    def wait(self, stream: Stream | None = None) -> None:
        (stream or the_machine().current(None)).wait_event(self)

    def query(self) -> bool:
        return self.stream is None or self.stream.done >= self.number

    def synchronize(self) -> None:
        if self.stream is not None:
            the_machine().wait_for(self.stream, self.number, "event")

    def elapsed_time(self, end: Event) -> float:
        return 0.0


class Generator(torch.Generator):
    """Random numbers of the device."""

    def __new__(cls, device: Any = "cpu") -> torch.Generator:
        wanted = torch.device(device)
        made = super().__new__(cls, device="cpu") if wanted.type == "cuda" else _RealGenerator(device=device)
        if wanted.type == "cuda":
            made.place = the_machine().device(wanted)
        return made

    @property
    def device(self) -> torch.device:
        return self.place


_RealGenerator = torch.Generator


def patches(machine: PretendedCuda) -> Iterator[Any]:
    """Everything of torch that is another one while a machine is pretended."""
    cuda = "torch.cuda."
    properties = SimpleNamespace(
        name="pretended", major=9, minor=0, total_memory=80 << 30, multi_processor_count=132, is_integrated=False
    )
    answers: dict[str, Callable] = {
        "_lazy_init": lambda: None,
        "init": lambda: None,
        "is_initialized": lambda: True,
        "is_available": lambda: True,
        "is_bf16_supported": lambda including_emulation=True: True,
        "device_count": lambda: machine.devices,
        "current_device": lambda: machine.index,
        "set_device": lambda device: setattr(machine, "index", machine.device(device).index),
        "device": machine.device_context,
        "get_device_name": lambda device=None: "pretended",
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_properties": lambda device=None: properties,
        "current_stream": machine.current,
        "default_stream": machine.default_stream,
        "stream": lambda stream: stream,
        "Stream": Stream,
        "Event": Event,
        "synchronize": machine.synchronize,
        "memory_allocated": lambda device=None: machine.ledger.in_use,
        "max_memory_allocated": lambda device=None: machine.ledger.peak,
        "memory_reserved": lambda device=None: machine.ledger.in_use,
        "max_memory_reserved": lambda device=None: machine.ledger.peak,
        "reset_peak_memory_stats": lambda device=None: setattr(machine.ledger, "peak", machine.ledger.in_use),
        "empty_cache": lambda: None,
        "mem_get_info": lambda device=None: ((80 << 30) - machine.ledger.in_use, 80 << 30),
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
    }
    for name, answer in answers.items():
        yield mock.patch(cuda + name, answer)
    yield mock.patch("torch.Generator", Generator)
    if hasattr(torch, "accelerator"):
        yield mock.patch("torch.accelerator.is_available", lambda: True)
        yield mock.patch("torch.accelerator.current_accelerator", lambda *a, **k: torch.device("cuda"))
    attention = torch.nn.functional.scaled_dot_product_attention

    def fused(*args: Any, **kwargs: Any) -> Tensor:  # outside inference mode torch would take it apart first
        with torch._C._AutoDispatchBelowAutograd():
            return attention(*args, **kwargs)

    yield mock.patch("torch.nn.functional.scaled_dot_product_attention", fused)
    run = threading.Thread.run

    def watched(thread: threading.Thread) -> None:
        with _as_mode(machine):
            run(thread)

    yield mock.patch.object(threading.Thread, "run", watched)
    yield _lifting_on_the_host()
    yield _replacing_parameters()
    yield torch.backends.cudnn.flags(enabled=False)  # torch's own kernels, which the CPU has too


@contextmanager
def _as_mode(machine: PretendedCuda) -> Iterator[None]:
    """The machine in another thread: torch's modes are a thread's own."""
    TorchDispatchMode.__enter__(machine)
    try:
        yield
    finally:
        TorchDispatchMode.__exit__(machine, None, None, None)


@contextmanager
def _lifting_on_the_host() -> Iterator[None]:
    """`torch.tensor(..., device="cuda")` makes its tensor on the host first, where the mode sees it leave."""
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        yield
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


@contextmanager
def _replacing_parameters() -> Iterator[None]:
    """`Module.to` makes new parameters instead of refilling the old ones, which are ordinary tensors."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)

"""Load from other processes, so that it is not the server's interpreter that makes it."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_CONTEXT = multiprocessing.get_context("spawn")

START_TIMEOUT = 300.0
"""Seconds until a load must be ready: some thousands of logins."""


class LoadError(Exception):
    """A process of the load has failed. The text is its traceback."""


class Control:
    """What a function in another process hears from the benchmark."""

    def __init__(self, pipe: Connection, go: Event, stop: Event) -> None:
        self._pipe = pipe
        self._go = go
        self._stop = stop

    def ready(self) -> None:
        """Tell that all is prepared, and wait until it is to begin."""
        self._pipe.send(None)
        self._go.wait()
        self.began = time.monotonic()
        self.cpu_before = time.process_time()

    @property
    def is_running(self) -> bool:
        """Whether to go on."""
        return not self._stop.is_set()

    def tell(self, result: object) -> None:
        """Hand over the function's result, or the traceback why there is none."""
        self._pipe.send(result)

    def wait(self) -> None:
        """Do nothing until it is over."""
        self._stop.wait()


class Load:
    """`function`, run in a process of its own on the last core, with a `Control` and `args`.

    It is ready when this is made, works from `begin` on, and `end` returns what it returned.

    :param first: whether it goes before all others on its core, where that is permitted: for
        what measures, and must not wait for what makes the load.
    """

    def __init__(
        self,
        function: Callable[Concatenate[Control, P], T],
        *args: Any,
        first: bool = False,
    ) -> None:
        self._go, self._stop = _CONTEXT.Event(), _CONTEXT.Event()
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_run,
            args=(function, Control(theirs, self._go, self._stop), first, args),
            daemon=True,
        )
        self._process.start()
        theirs.close()
        self.busy = 0.0
        """The share of a core that it has used; 1 is all of it."""
        self._is_ready = False

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.join()

    def wait_until_ready(self) -> None:
        """Return once all is prepared."""
        if not self._is_ready:
            self._receive(START_TIMEOUT)
            self._is_ready = True

    def begin(self) -> None:
        """Let it work."""
        self.wait_until_ready()
        self._go.set()

    def is_done(self) -> bool:
        """Tell whether it has come to its end by itself."""
        return self._pipe.poll()

    def end(self, timeout: float = 60.0) -> Any:
        """Let it end, and return what the function returned.

        :raises LoadError: it has failed
        """
        self._stop.set()
        result, self.busy = self._receive(timeout)
        self._process.join()
        return result

    def _receive(self, timeout: float) -> Any:
        if not self._pipe.poll(timeout):
            raise LoadError(f"a process of the load did nothing for {timeout:g} s")
        try:
            received = self._pipe.recv()
        except EOFError:
            raise LoadError(f"a process of the load died: {self._process.exitcode}") from None
        if isinstance(received, str):
            raise LoadError(received)
        return received


def count(
    loads: Sequence[Load], seconds: float, cpus: Callable[[], Mapping[str, float]]
) -> tuple[int, float, dict[str, float]]:
    """Let `loads`, each of which counts what it does, work for some seconds.

    :param cpus: returns what the parts of the server have used of their processors so far
    :returns: how much was done in all, in how many seconds, and what of `cpus` it took
    """
    for load in loads:
        load.wait_until_ready()
    before, begin = cpus(), time.monotonic()
    for load in loads:
        load.begin()
    time.sleep(seconds)
    done = sum(load.end() for load in loads)
    spent = time.monotonic() - begin
    return done, spent, {name: now - before[name] for name, now in cpus().items()}


def _run(
    function: Callable[..., object],
    control: Control,
    first: bool,
    args: tuple[Any, ...],
) -> None:
    """Run `function` in this process, and send what it returns."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if first and hasattr(os, "setpriority"):
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, -20)
    try:
        result = function(control, *args)
        seconds = time.monotonic() - control.began
        control.tell((result, (time.process_time() - control.cpu_before) / seconds))
    except BaseException:
        control.tell(traceback.format_exc())

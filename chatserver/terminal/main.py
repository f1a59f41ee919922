"""The console script ``asyncchat``: from a command line to an exit status."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from typing import Any

from twisted.internet import asyncioreactor

from chatserver.streams import discard_output, open_closed_streams
from chatserver.terminal.ending import FAILED, USAGE, UserQuit
from chatserver.terminal.options import Options, UsageError, parse
from chatserver.terminal.pipe import Pipe
from chatserver.terminal.signing_in import SignInError, ask_address, sign_in

_SIGNALS = {
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
}


PATIENCE = 6
"""Seconds from a signal until the process ends in any case: more than closing may take."""


def main() -> None:
    """Run the terminal client, and end the process."""
    _complete_streams()
    try:
        status = _run(parse(sys.argv[1:], os.environ))
    except UsageError as error:
        status = _complain(str(error), USAGE)
    except KeyboardInterrupt:
        status = _complain("interrupted", 128 + signal.SIGINT)
    try:
        sys.stdout.flush()
    except OSError:
        discard_output()  # Nobody reads it any more.
    sys.exit(status)


def _complete_streams() -> None:
    """See to it that the standard streams are there, and can show everything."""
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # What the encoding can't hold shows as an escape.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _run(options: Options) -> int:
    """Run the reactor until all is done. Return the exit status."""
    # prompt_toolkit runs on asyncio, and so Twisted does.
    loop = asyncio.SelectorEventLoop()
    asyncio.set_event_loop(loop)
    asyncioreactor.install(loop)
    from twisted.internet import reactor as installed  # noqa: PLC0415 - it is there only now

    reactor: Any = installed
    chatting = loop.create_task(_chat(reactor, options))
    chatting.add_done_callback(lambda _: reactor.stop())
    set_alarm = getattr(signal, "alarm", lambda seconds: None)
    received: list[int] = []

    def cancel() -> None:
        set_alarm(PATIENCE)
        chatting.cancel()

    def interrupt(number: int, _: object) -> None:
        received.append(number)
        set_alarm(1)
        loop.call_soon_threadsafe(cancel)

    # Not the loop's own handlers, which wait for the loop: it may be stuck in a write.
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # which nohup sets
            signal.signal(number, interrupt)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, lambda *_: os._exit(128 + received[0]))
    reactor.run(installSignalHandlers=False)
    _end_tasks(loop)
    try:
        return chatting.result()
    except SignInError as error:
        return _complain(str(error), FAILED)
    except UserQuit:  # at a question
        return _complain("not connected", 128 + signal.SIGINT)
    except asyncio.CancelledError:
        number = received[0] if received else signal.SIGINT
        return _complain("interrupted" if number == signal.SIGINT else "terminated", 128 + number)


def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Let what still waits come to its end."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()


async def _chat(reactor: Any, options: Options) -> int:
    """Log in, and chat. Return the exit status."""
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not is_terminal and options.to is None and options.accept is None:
        raise UsageError("this is no terminal: say whom to talk to, with --to NAME or --accept")
    if not is_terminal and options.save is not None:
        raise UsageError("--save: is for a terminal; here, redirect the output")
    if not is_terminal and options.address is None:
        raise UsageError("who are you, and where? Give NAME@HOST; see asyncchat --help")
    if not is_terminal:
        pipe = Pipe(options)
        return await pipe.run(await sign_in(reactor, options, None, pipe))

    # Not before: to load prompt_toolkit takes its time, and scripts do without.
    from chatserver.terminal.questions import Questions  # noqa: PLC0415
    from chatserver.terminal.session import Session  # noqa: PLC0415

    questions = Questions()
    if options.address is None:
        options = replace(options, address=await ask_address(questions))
    session = Session(options)
    return await session.run(await sign_in(reactor, options, questions, session))


def _complain(text: str, status: int) -> int:
    """Say what went wrong. Return `status`."""
    print(f"asyncchat: {text}", file=sys.stderr)
    return status

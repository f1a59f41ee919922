"""Chats without a terminal: lines in, lines out."""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import CancelledError
from contextlib import suppress
from threading import Thread

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from chatserver.client import (
    Chat,
    ChatClient,
    ChatError,
    ConnectionEndedError,
    Handler,
    InvitationError,
    Message,
    PeerLeftError,
    RefusedError,
)
from chatserver.packets import MAX_BODY
from chatserver.printable import visible
from chatserver.terminal.ending import DONE, FAILED, NOT_ACCEPTED, NOT_DELIVERED
from chatserver.terminal.options import ANYBODY, Options
from chatserver.terminal.waiting import result

UNDER_WAY = 64
"""Messages that are sent before the first of them is answered: enough for a network with some
delay, and little to remember. Then the input has to wait, and so does who writes it."""

READ_SIZE = 2**16
"""Bytes that are read of the input at once: what a pipe of Linux holds."""

SHOWN_BYTES = 40
"""How much is shown of a line that was not delivered."""


class Pipe(Handler):
    """Says what comes from standard input, and prints what the other one says.

    What happens besides is told on standard error.
    """

    def __init__(self, options: Options) -> None:
        self._to = options.to
        self._accept = options.accept
        self._keeps_on = options.keeps_on
        self._lines = Lines()
        self._undelivered = 0
        self._events: asyncio.Queue[Chat | Exception | None] = asyncio.Queue()
        """Each chat that begins; how it ends, None if this side has left; how the connection
        does; and what can't be written to standard output any more."""

    async def run(self, client: ChatClient) -> int:
        """Chat, and return the exit status."""
        client.when_closed().addCallback(self._events.put_nowait)
        try:
            while True:
                await self._talk(await self._meet(client))
                if not self._keeps_on:
                    break
        except (RefusedError, InvitationError) as error:
            _complain(f"{visible(self._to or '')}: {error}")
            return NOT_ACCEPTED
        except ConnectionEndedError as error:
            _complain(str(error))
            return FAILED
        except BrokenPipeError:  # Who reads the output has enough of it.
            return FAILED
        except OSError as error:
            _complain(f"standard input or output: {error.strerror}")
            return FAILED
        finally:
            await result(client.close())
        return NOT_DELIVERED if self._undelivered else DONE

    # --- What comes unasked -----------------------------------------------------------------

    def invited(self, client: ChatClient, inviter: str) -> object:
        """Accept, if it is somebody to accept."""
        if client.chat is not None or self._accept not in (ANYBODY, inviter):
            return None
        # If it is too late by now, there may be a next one.
        return client.accept(inviter).addErrback(lambda failure: failure.trap(RefusedError))

    def chat_began(self, chat: Chat) -> None:
        """See `Handler`."""
        self._events.put_nowait(chat)

    def message_received(self, chat: Chat, message: Message) -> None:
        """Print what was said, on one line."""
        try:
            print(f"{visible(message.sender)}: {visible(message.data)}", flush=True)
        except OSError as error:
            self._events.put_nowait(error)

    def chat_ended(self, chat: Chat, reason: ChatError | None) -> None:
        """See `Handler`."""
        self._events.put_nowait(reason)

    # --- What is done -----------------------------------------------------------------------

    async def _meet(self, client: ChatClient) -> Chat:
        """Invite somebody, or wait for an invitation. Return the chat."""
        if self._to is not None:
            invitation = await result(client.invite(self._to))
            await result(invitation.when_answered())
        while not isinstance(event := await self._events.get(), Chat):
            if event is not None:
                raise event
        _complain(f"in a chat with {visible(event.peer)}")
        return event

    async def _talk(self, chat: Chat) -> None:
        """Say all that comes, until it ends or the other one leaves."""
        saying = asyncio.create_task(self._say_all(chat))
        ending = asyncio.create_task(self._events.get())
        try:
            await asyncio.wait({saying, ending}, return_when=asyncio.FIRST_COMPLETED)
            if saying.done():
                saying.result()  # It may have failed.
            if self._to is not None and chat.is_open:
                await result(chat.leave())
            reason = await ending
        finally:
            saying.cancel()
            ending.cancel()
        if isinstance(reason, PeerLeftError):
            self._note_departure(visible(chat.peer))
        elif isinstance(reason, Exception):
            raise reason

    def _note_departure(self, peer: str) -> None:
        """The partner has left: tell whether there was more to be said."""
        if self._to is not None:
            is_cut_short = not self._lines.are_at_end
        else:  # One who accepts need not say anything.
            is_cut_short = self._lines.is_left_over()
        if is_cut_short:
            self._undelivered += 1
            _complain(f"{peer} has left before the end of the input")
        else:
            _complain(f"{peer} has left")

    async def _say_all(self, chat: Chat) -> None:
        """Say each line. Return when all are answered.

        With ``--forever`` nothing is said: what is for one would be heard by the next.
        """
        if self._keeps_on:
            return
        room = asyncio.Semaphore(UNDER_WAY)
        while (line := await self._lines.next()) is not None:
            await room.acquire()
            self._say(chat, line).addBoth(lambda _: room.release())
        for _ in range(UNDER_WAY):
            await room.acquire()

    def _say(self, chat: Chat, line: bytes) -> Deferred[None]:
        """Say a line. Return what fires when it is answered, and never fails."""
        return chat.send(line).addErrback(self._note_undelivered, line)

    def _note_undelivered(self, failure: Failure, line: bytes) -> None:
        if failure.check(ConnectionEndedError):  # which is told, once, for all of them
            return
        self._undelivered += 1
        shown = visible(line[:SHOWN_BYTES]) + ("..." if len(line) > SHOWN_BYTES else "")
        _complain(f"not delivered: {shown!r}: {failure.getErrorMessage()}")


class Lines:
    """The lines of a file, read as they are asked for.

    :param descriptor: the file's; 0 is standard input
    """

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self.are_at_end = False
        self._queue: asyncio.Queue[bytes | OSError | None] | None = None

    def is_left_over(self) -> bool:
        """Tell whether one was read that nobody has taken. It is dropped."""
        try:
            return self._queue is not None and self._queue.get_nowait() is not None
        except asyncio.QueueEmpty:
            return False

    async def next(self) -> bytes | None:
        """Return the next line without its end, or None after the last.

        :raises OSError: the file can't be read
        """
        if self.are_at_end:
            return None
        if self._queue is None:
            self._queue = asyncio.Queue(maxsize=1)
            # In a thread, since a file can't be waited for; one that ends with the process,
            # since a read can't be interrupted.
            arguments = self._descriptor, self._queue, asyncio.get_running_loop()
            Thread(target=_read_lines, args=arguments, daemon=True).start()
        line = await self._queue.get()
        if isinstance(line, OSError):
            raise line
        self.are_at_end = line is None
        return line


def _read_lines(
    descriptor: int,
    queue: asyncio.Queue[bytes | OSError | None],
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Put the lines of a file into `queue`, and after the last None, or what went wrong."""

    def put(line: bytes | OSError | None) -> None:
        try:
            asyncio.run_coroutine_threadsafe(queue.put(line), loop).result()
        except (CancelledError, RuntimeError):  # The chat is over.
            sys.exit()

    rest = b""
    try:
        # Not sys.stdin: the lock that its read would hold is in the way at the end of the process.
        while data := os.read(descriptor, READ_SIZE):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                put(line.removesuffix(b"\r"))
            rest = rest[: MAX_BODY + 1]  # Too long to be sent, whatever follows.
    except OSError as error:
        put(error)
        return
    if rest:
        put(rest)
    put(None)


def _complain(text: str) -> None:
    """Tell the user something, beside what is said in the chat."""
    with suppress(OSError):
        print(f"asyncchat: {text}", file=sys.stderr, flush=True)

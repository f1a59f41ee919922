"""A chat at a terminal: commands in, what happens out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable
from typing import Any

from twisted.python.failure import Failure

from chatserver.client import (
    Chat,
    ChatClient,
    ChatError,
    ClosedError,
    ConnectionEndedError,
    Handler,
    InvitationError,
    LostError,
    Message,
    PeerLeftError,
    RefusedError,
    WithdrawnError,
)
from chatserver.limits import MAX_RECEIVED_INVITATIONS
from chatserver.packets import EXIT_TEXT
from chatserver.printable import visible, visible_lines
from chatserver.terminal.ending import DONE, FAILED, UserQuit
from chatserver.terminal.options import ANYBODY, Options
from chatserver.terminal.screen import Screen, is_command
from chatserver.terminal.transcript import Transcript
from chatserver.terminal.waiting import result

HELP = """\
/invite NAME      invite somebody who is online
/accept [NAME]    accept an invitation: the last one, if there is no name
/decline [NAME]   decline it
/withdraw         take your own invitation back
/leave            leave the chat; /exit does the same
/quit             end the program; so do Ctrl-D and Ctrl-C
Anything else is said to the one you are in a chat with. Alt-Enter begins a new
line, Tab completes, the arrow keys bring back what you typed before. To say
something that begins with a slash, type two: //etc says /etc."""


QUIT = "/quit"
"""The command that ends the program."""

MAX_NAMES = 1000
"""How many names are kept for completion: more than anybody meets."""

SHOWN = 40
"""How many characters are shown of a message that was not delivered."""


class Session(Handler):
    """One user's chats at a terminal.

    :raises UsageError: the file to save the chats in can't be written
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._screen = Screen(self._status, self._complete)
        self._screen.on_key = self._read_all
        self._transcript = Transcript(options.save, self._screen.show_trouble)
        self._client: ChatClient | None = None
        self._commands = {
            "/accept": self._accept,
            "/decline": self._decline,
            "/exit": self._leave,
            "/help": self._help,
            "/invite": self._invite,
            "/leave": self._leave,
            "/withdraw": self._withdraw,
        }
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_quitting = False
        self._inviters: deque[str] = deque(maxlen=MAX_RECEIVED_INVITATIONS)
        """Whose invitations wait, as far as one knows; the newest last."""
        self._invitee: str | None = None
        self._names = set(_names_in(self._screen.typed_before()))
        """Names met, for completion."""
        self._unread = 0
        """Messages since the last key: nobody may have been there to read them."""
        self._under_way = 0
        self._delivery = ""

    async def run(self, client: ChatClient) -> int:
        """Chat until the user or the server ends it. Return the exit status."""
        self._client = client
        self._news(f"You are {visible(client.name)}. /invite NAME starts a chat, /help shows more.")
        if self._options.to is not None:
            self._start(self._invite(self._options.to))
        ending = asyncio.ensure_future(result(client.when_closed()))
        try:
            await self._read_and_obey(ending)
        finally:
            for task in self._tasks:
                task.cancel()
            reason = await result(client.close())
            self._screen.flush()
            self._transcript.close()
        if isinstance(reason, ClosedError):
            print("Goodbye.")
            return DONE
        print(f"Disconnected: {reason}.")
        return FAILED

    async def _read_and_obey(self, ending: asyncio.Future[ChatError]) -> None:
        """Do what the user types, until they have enough or the connection is over."""
        text = ""
        while not (ending.done() or self._is_quitting):
            reading = asyncio.create_task(self._screen.read(text))
            either: set[asyncio.Future[Any]] = {reading, ending}
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not reading.done():
                    reading.cancel()
                    await asyncio.wait({reading})  # It gives the terminal back.
            if reading.cancelled() or isinstance(reading.exception(), UserQuit):
                return
            text = self._obey(reading.result())

    # --- What the user types ----------------------------------------------------------------

    def _obey(self, text: str) -> str:
        """Do what `text` says. Return what is to stand on the line again."""
        if not text.strip():
            return ""
        if not is_command(text):
            is_doubled = text.startswith("//") and "\n" not in text.strip()
            return self._say(text, text[1:] if is_doubled else text)
        word, _, argument = text.strip().partition(" ")
        if word == QUIT:
            self._is_quitting = True
            return ""
        command = self._commands.get(word)
        if command is None:
            self._trouble(f"There is no command {visible(word)}: /help shows them.")
            return text
        self._start(command(argument.strip()))
        return ""

    def _start(self, command: Coroutine[Any, Any, None]) -> None:
        """Do something that takes its time, and tell what the server has against it."""
        task = asyncio.create_task(self._finish(command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, command: Coroutine[Any, Any, None]) -> None:
        try:
            await command
        except ConnectionEndedError:
            pass  # That is told by itself.
        except ChatError as error:
            self._trouble(f"Refused: {error}.")

    def _say(self, typed: str, text: str) -> str:
        """Say `text`. Return what is to be typed again: nothing, if it could be sent."""
        chat = self._chat
        data = text.encode("utf-8", "surrogateescape")
        if chat is None or not chat.is_open:
            self._trouble("You're not in a chat, so nobody heard that. /invite NAME starts one.")
            return typed
        if data == EXIT_TEXT:
            self._trouble("/exit can't be said: the protocol reserves it for leaving.")
            return typed
        if len(data) > chat.room:
            self._trouble(f"Too long: {len(data)} bytes, and {chat.room} fit. Nothing was sent.")
            return typed
        self._message(chat.own_name, data, is_own=True)
        self._under_way += 1
        saying = chat.send(data)
        saying.addCallbacks(self._note_delivery, self._note_loss, errbackArgs=(chat, data))
        return ""

    def _note_delivery(self, _: None) -> None:
        self._under_way -= 1
        self._delivery = "delivered"
        self._screen.refresh()

    def _note_loss(self, failure: Failure, chat: Chat, data: bytes) -> None:
        self._under_way -= 1
        self._delivery = "not delivered"
        lines = visible_lines(data)
        shown = lines[0][:SHOWN] + ("..." if len(lines) > 1 or len(lines[0]) > SHOWN else "")
        self._trouble(f"Not delivered to {visible(chat.peer)}: {shown} ({failure.value})")

    async def _invite(self, name: str) -> None:
        if not name:
            self._trouble("Usage: /invite NAME")
            return
        assert self._client is not None
        if self._chat is not None:
            self._trouble(f"You are in a chat with {visible(self._chat.peer)}: /leave it first.")
            return
        shown = visible(name)
        self._meet(name)
        try:
            invitation = await result(self._client.invite(name))
            self._invitee = name
            self._news(f"Invited {shown}.")
            await result(invitation.when_answered())
        except WithdrawnError:
            pass  # It was the user's own doing.
        except (RefusedError, InvitationError) as error:
            self._trouble(f"{shown}: {error}.")
        finally:
            if self._invitee == name:
                self._invitee = None
            self._screen.refresh()

    async def _withdraw(self, _: str) -> None:
        assert self._client is not None
        if self._invitee is None:
            self._trouble("You have invited nobody.")
            return
        name = self._invitee
        await result(self._client.withdraw(name))
        self._news(f"Withdrew the invitation to {visible(name)}.")

    async def _accept(self, name: str) -> None:
        assert self._client is not None
        inviter = self._find_inviter(name)
        if inviter is None:
            return
        if self._chat is not None:
            self._trouble(f"You are in a chat with {visible(self._chat.peer)}: /leave it first.")
            return
        shown = visible(inviter)
        try:
            await result(self._client.accept(inviter))
        except LostError:
            self._trouble(f"{shown}: that invitation is gone. Invite {shown} instead.")
        except RefusedError as error:
            self._trouble(f"{shown}: {error}.")
        finally:
            self._forget(inviter)

    async def _decline(self, name: str) -> None:
        assert self._client is not None
        inviter = self._find_inviter(name)
        if inviter is None:
            return
        shown = visible(inviter)
        try:
            await result(self._client.decline(inviter))
            self._news(f"Declined {shown}'s invitation.")
        except RefusedError as error:
            self._trouble(f"{shown}: {error}.")
        finally:
            self._forget(inviter)

    async def _leave(self, _: str) -> None:
        if self._chat is None:
            self._trouble("You're not in a chat. /quit ends the program.")
        else:
            await result(self._chat.leave())

    async def _help(self, _: str) -> None:
        self._screen.show_plain(HELP)

    def _find_inviter(self, name: str) -> str | None:
        """Return whose invitation is meant: `name`'s, or the newest."""
        if name:
            return name
        if self._inviters:
            return self._inviters[-1]
        self._trouble("Nobody has invited you.")
        return None

    def _forget(self, inviter: str) -> None:
        if inviter in self._inviters:
            self._inviters.remove(inviter)
        self._screen.refresh()

    # --- What comes unasked -----------------------------------------------------------------

    def invited(self, client: ChatClient, inviter: str) -> None:
        """Ring, and say what to type."""
        self._meet(inviter)
        self._forget(inviter)
        self._inviters.append(inviter)
        self._screen.ring()
        shown = visible(inviter)
        self._news(f"{shown} invites you: /accept {shown} or /decline {shown}")
        if self._options.accept in (ANYBODY, inviter) and self._chat is None:
            self._start(self._accept(inviter))

    def chat_began(self, chat: Chat) -> None:
        """See `Handler`."""
        self._inviters.clear()
        self._invitee = None
        self._delivery = ""
        self._meet(chat.peer)
        shown = visible(chat.peer)
        self._news(f"You are in a chat with {shown}: what you type is said to {shown}.")

    def message_received(self, chat: Chat, message: Message) -> None:
        """See `Handler`."""
        self._unread += 1
        self._message(message.sender, message.data, is_own=False)

    def chat_ended(self, chat: Chat, reason: ChatError | None) -> None:
        """See `Handler`."""
        self._delivery = ""
        shown = visible(chat.peer)
        if reason is None:
            self._news(f"You have left the chat with {shown}.")
        elif isinstance(reason, PeerLeftError):
            self._news(f"{shown} has left the chat.")

    # --- What is shown ----------------------------------------------------------------------

    @property
    def _chat(self) -> Chat | None:
        return None if self._client is None else self._client.chat

    def _message(self, name: str, data: bytes, is_own: bool) -> None:
        lines = visible_lines(data)
        self._screen.show_message(visible(name), lines, is_own)
        self._transcript.write(f"{visible(name)}: {visible(data)}")

    def _news(self, text: str) -> None:
        self._screen.show_news(text)
        self._transcript.write(f"* {text}")

    def _trouble(self, text: str) -> None:
        self._screen.show_trouble(text)

    def _status(self) -> str:
        """Return the line at the bottom."""
        if self._chat is not None:
            state = f"in a chat with {visible(self._chat.peer)}"
        elif self._invitee is not None:
            state = f"inviting {visible(self._invitee)}"
        elif self._inviters:
            state = f"{visible(self._inviters[-1])} invites you"
        else:
            state = "not in a chat"
        delivery = f"sending {self._under_way}" if self._under_way else self._delivery
        address = "" if self._options.address is None else visible(str(self._options.address))
        parts = [state, f"{self._unread} unread", delivery, address]
        return " " + " | ".join(filter(None, parts)) + " "

    def _meet(self, name: str) -> None:
        if len(self._names) < MAX_NAMES:
            self._names.add(name)

    def _read_all(self) -> None:
        self._unread = 0

    def _complete(self, text: str) -> Iterable[str]:
        """Return what the last word of `text` may become: a command, or a name after one."""
        *before, word = text.split(" ")
        if not before:
            words: Iterable[str] = (*self._commands, QUIT) if word.startswith("/") else ()
        else:
            words = self._names if before[0] in self._commands else ()
        # A name that does not show as it is, or has a space, can't be typed as one word either.
        plain = (each for each in words if visible(each) == each and " " not in each)
        return sorted(each for each in plain if each.startswith(word))


def _names_in(lines: Iterable[str]) -> Iterable[str]:
    """Return the names that commands were about, of those typed before."""
    for line in lines:
        match line.split():
            case ["/invite" | "/accept" | "/decline", name]:
                yield name

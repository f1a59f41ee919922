"""Requests and their answers: which answer belongs to which request, and what is news.

docs/protocol.md has the rules. The answers come in the order of the requests; news comes at any
time. What a packet is shows in its command and its code alone, with one exception: ChatAccept
(and the reference server's Ack ``CHAT``) is the answer to one's own accept, or the news that an
invitation was accepted. Both mean that the chat has begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred

from chatserver.packets import EXIT_TEXT, AckCode, Command, ErrorCode, Packet

Answer = AckCode | ErrorCode
"""What a request is answered with."""


@dataclass(eq=False)
class Request:
    """Something that the server is asked for. `outcome` fires with what comes of it."""

    command: Command
    body: bytes
    outcome: Deferred[Any] = field(default_factory=Deferred)

    @property
    def other(self) -> bytes:
        """The name of the user whom an invitation, an accept or a decline is about."""
        return self.body


_ANSWERS: dict[Command, set[Answer]] = {
    Command.REGISTER: {
        AckCode.OK,
        ErrorCode.MALFORMED,
        ErrorCode.NAME_TAKEN,
        ErrorCode.ALREADY_LOGGED_IN,
        ErrorCode.SLOW_DOWN,
        ErrorCode.REGISTRATION_CLOSED,
        ErrorCode.FAILED,
    },
    Command.LOGIN: {
        AckCode.OK,
        ErrorCode.MALFORMED,
        ErrorCode.NOT_AUTHENTICATED,
        ErrorCode.ALREADY_LOGGED_IN,
        ErrorCode.SLOW_DOWN,
        ErrorCode.FAILED,
    },
    Command.MESSAGE: {
        AckCode.OK,
        AckCode.BYE,
        ErrorCode.NOT_IN_CHAT,
        ErrorCode.LOST,
        ErrorCode.TOO_LONG,
    },
    Command.CHAT_REQUEST: {
        AckCode.SENT,
        ErrorCode.NOT_LOGGED_IN,
        ErrorCode.NOT_ONLINE,
        ErrorCode.YOURSELF,
        ErrorCode.BUSY,
        ErrorCode.SLOW_DOWN,
        ErrorCode.FAILED,
    },
    Command.CHAT_ACCEPT: {
        AckCode.CHAT,
        ErrorCode.NOT_LOGGED_IN,
        ErrorCode.NO_INVITATION,
        ErrorCode.LOST,
        ErrorCode.BUSY,
        ErrorCode.FAILED,
    },
    Command.CHAT_DECLINE: {
        AckCode.OK,
        ErrorCode.NOT_LOGGED_IN,
        ErrorCode.NO_INVITATION,
        ErrorCode.BUSY,
    },
    Command.EXIT_CHAT: {AckCode.BYE, ErrorCode.NOT_LOGGED_IN, ErrorCode.NOT_IN_CHAT},
}
"""What may answer each command: docs/protocol.md, "Answers and news". CHAT is ChatAccept too."""

_NEW = {Command.CHAT_REQUEST, Command.CHAT_ACCEPT, Command.CHAT_DECLINE, Command.EXIT_CHAT}
"""What the reference server answers with UNKN."""


class Dialect(Enum):
    """What the server understands. It shows at the first command that is new."""

    UNKNOWN = "not known yet"
    CURRENT = "all of docs/protocol.md"
    REFERENCE = "0x01 to 0x06, as the reference server"


class Exchange:
    """Sends requests, and finds the request for each answer.

    It sends without waiting for the answer before, with these exceptions, so that no text can
    reach somebody else than was meant:

    * nothing is sent behind an accept, nor behind a login (see `_send_fence`),
    * no Message and no ExitChat is sent behind an invitation: with whom the chat is has to be
      known first,
    * one at a time is sent until it is known that the server understands all commands: the
      reference server loses a packet that comes right behind another.

    :param send: sends a packet
    :param settle: is told of each answer: the request, and an `AckCode` or `ErrorCode`. CHAT
        stands for ChatAccept too.
    :param invitee: returns whom one's own invitation is waiting at, or an empty name
    """

    def __init__(
        self,
        send: Callable[[Packet], None],
        settle: Callable[[Request, Answer], None],
        invitee: Callable[[], bytes],
    ) -> None:
        self.dialect = Dialect.UNKNOWN
        self.newest_inviter = b""
        """Who has invited last, until that is answered. The reference server knows no other."""
        self._send = send
        self._settle = settle
        self._invitee = invitee
        self._waiting: deque[Request] = deque()
        self._under_way: deque[Request] = deque()
        self._open_accept: Request | None = None
        """An accept that the reference server may answer or not."""

    def submit(self, request: Request) -> None:
        """Send `request`, now or as soon as it may be sent."""
        self._waiting.append(request)
        self._send_waiting()

    def answer_received(self, code: Answer) -> bool:
        """Give `code` to the request that it answers, and send what was waiting for that.

        Return whether there was one that it could answer.
        """
        request = self._take(code)
        if request is None:
            return False
        if request.command in _NEW and self.dialect is Dialect.UNKNOWN:
            self.dialect = Dialect.CURRENT
        self._settle(request, code)
        self._send_waiting()
        return True

    def accept_received(self, peer: bytes) -> bool:
        """ChatAccept came, with the name of `peer`: as `answer_received`.

        If each has invited the other, it is the answer to one's own
        accept, or the news of theirs: then the answer still comes.
        """
        oldest = self._under_way[0] if self._under_way else None
        if oldest is None or oldest.command is not Command.CHAT_ACCEPT or oldest.other != peer:
            return False
        if peer == self._invitee():
            self._send_fence()
        return self.answer_received(AckCode.CHAT)

    def unknown_received(self) -> bool:
        """The server did not know a command: put the request in the old form if there is one."""
        if not self._under_way or self._under_way[0].command not in _NEW:
            return False
        request = self._under_way.popleft()
        if self.dialect is Dialect.UNKNOWN:
            self.dialect = Dialect.REFERENCE
            self._waiting.appendleft(request)
        else:
            self._settle(request, ErrorCode.UNKNOWN)
        self._send_waiting()
        return True

    def take_back(self, *commands: Command) -> list[Request]:
        """Return those with one of `commands` that are not sent yet, and don't send them."""
        taken = [request for request in self._waiting if request.command in commands]
        self._waiting = deque(request for request in self._waiting if request not in taken)
        return taken

    def end(self) -> list[Request]:
        """Return all that has no answer, and will have none, the oldest first."""
        accepts = [self._open_accept] if self._open_accept is not None else []
        ended = [*accepts, *self._under_way, *self._waiting]
        self._open_accept = None
        self._under_way.clear()
        self._waiting.clear()
        return ended

    def _take(self, code: Answer) -> Request | None:
        """Return the request that `code` answers: it does not wait any more."""
        accept = self._open_accept
        if accept is not None and code in _ANSWERS[Command.CHAT_ACCEPT]:
            self._open_accept = None
            return accept
        if self._under_way and code in _ANSWERS[self._under_way[0].command]:
            return self._under_way.popleft()
        return None

    def _send_waiting(self) -> None:
        while self._waiting and self._may_send(self._waiting[0]):
            request = self._waiting.popleft()
            if self.dialect is Dialect.REFERENCE and request.command in _NEW:
                self._send_in_old_form(request)
            else:
                self._under_way.append(request)
                self._send(Packet(request.command, request.body))

    def _send_fence(self) -> None:
        """Send a Login: once it is answered, all before it is, and nothing is sent meanwhile.

        It is the one command that has no effect on who is logged in, and one answer, ALREADY,
        which answers nothing else that may be under way.
        """
        fence = Request(Command.LOGIN, b"")
        fence.outcome.addErrback(lambda _: None)
        self._under_way.append(fence)
        self._send(Packet(fence.command, fence.body))

    def _may_send(self, request: Request) -> bool:
        if not self._under_way:
            return True
        if self.dialect is not Dialect.CURRENT:
            return False
        before = {each.command for each in self._under_way}
        if not before.isdisjoint((Command.CHAT_ACCEPT, Command.LOGIN)):
            return False
        in_chat = request.command in (Command.MESSAGE, Command.EXIT_CHAT)
        return not (in_chat and Command.CHAT_REQUEST in before)

    def _send_in_old_form(self, request: Request) -> None:
        """Send what the reference server understands, and answers only if it fails, or never."""
        match request.command:
            case Command.CHAT_REQUEST | Command.CHAT_ACCEPT if self._is_asking(request.other):
                self._settle(request, ErrorCode.BUSY)
            case Command.CHAT_REQUEST:
                self._send(Packet(Command.FIND_PEER, request.body))
                self._settle(request, AckCode.SENT)
            case Command.CHAT_ACCEPT if request.other == self.newest_inviter:
                self._open_accept = request
                self.newest_inviter = b""
                self._send(Packet(Command.ACK))
            case Command.CHAT_DECLINE if request.other == self.newest_inviter:
                self.newest_inviter = b""
                self._send(Packet(Command.ERROR))
                self._settle(request, AckCode.OK)
            case Command.CHAT_DECLINE if request.other == self._invitee():
                self._settle(request, ErrorCode.UNKNOWN)  # It can't be withdrawn.
            case Command.EXIT_CHAT:
                self._under_way.append(request)
                self._send(Packet(Command.MESSAGE, EXIT_TEXT))
            case _:
                self._settle(request, ErrorCode.NO_INVITATION)

    def _is_asking(self, name: bytes) -> bool:
        """Tell whether the reference server may still open a chat with somebody else than `name`.

        Its Ack CHAT names nobody: there must be no doubt whom it is about.
        """
        return self._open_accept is not None or self._invitee() not in (b"", name)

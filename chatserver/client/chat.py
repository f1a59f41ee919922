"""What an application holds of a conversation: an invitation of its own, a chat, a message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred, fail

from chatserver.client.errors import NotInChatError, ReservedTextError, TooLongError
from chatserver.client.exchange import Request
from chatserver.client.once import Once
from chatserver.packets import EXIT_TEXT, MAX_BODY, SEPARATOR, Command


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody said: `data` as it came, `text` as it is to be read."""

    sender: str
    data: bytes

    @property
    def text(self) -> str:
        """The text. What is not UTF-8 is U+FFFD, the replacement character, in it."""
        return self.data.decode("utf-8", "replace")


class Invitation:
    """An invitation of one's own that was delivered to `invitee`."""

    def __init__(self, invitee: str, answered: Once[Chat]) -> None:
        self.invitee = invitee
        self._answered = answered

    def when_answered(self) -> Deferred[Chat]:
        """Return a Deferred that fires with the `Chat` once the invitation is accepted.

        It fails with `DeclinedError`, `TimedOutError`, `NotFreeError` or `WithdrawnError`; with
        `ConnectionEndedError`; and, from a server that does not say at once that nobody of
        that name is there, with `NotOnlineError` or another `RefusedError`.
        """
        return self._answered.when_fired()


class Chat:
    """A chat with `peer`.

    `is_open` tells whether something can be said in it, `room` how many bytes at once.
    """

    def __init__(
        self,
        peer: str,
        own_name: str,
        say: Callable[[Request], None],
        leave: Callable[[Request], None],
    ) -> None:
        self.peer = peer
        self.own_name = own_name
        self.is_open = True
        self.room = MAX_BODY - len(own_name.encode("utf-8", "surrogateescape")) - len(SEPARATOR)
        self._say = say
        self._leave = leave

    def send(self, text: str | bytes) -> Deferred[None]:
        """Say `text`: a string, sent as UTF-8, or any bytes.

        There is no need to wait before the next: texts arrive in the order in which they are sent.

        :return: fires when the server has handed the text to the peer's connection. It
            fails with `NotInChatError`, `LostError` or `ConnectionEndedError`; with nothing sent,
            with `TooLongError`, or with `ReservedTextError` if the text is ``/exit``.
        :raises UnicodeEncodeError: the text is no Unicode text: it holds half of a surrogate pair
        """
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        if data == EXIT_TEXT:
            return fail(ReservedTextError())
        if len(data) > self.room:
            return fail(TooLongError(f"{len(data)} bytes are too long: {self.room} fit"))
        return self._request(self._say, Request(Command.MESSAGE, data))

    def leave(self) -> Deferred[None]:
        """Leave the chat.

        :return: fires when this side has left, also if the peer has left first; fails with
            `NotInChatError` if the chat was over before, or with `ConnectionEndedError`
        """
        return self._request(self._leave, Request(Command.EXIT_CHAT, b""))

    def _request(self, put: Callable[[Request], None], request: Request) -> Deferred[None]:
        if not self.is_open:
            return fail(NotInChatError())
        put(request)
        return request.outcome

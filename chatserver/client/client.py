"""What an application uses of a connection, and what it hears of it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatserver.client.chat import Chat, Invitation, Message
from chatserver.client.conversation import (
    Wire,
    converse,
    decode_name,
    encode_name,
    packet_received,
)
from chatserver.client.errors import (
    ChatError,
    ClosedError,
    MalformedCredentialsError,
    NoInvitationError,
    NotOnlineError,
)
from chatserver.client.exchange import Request
from chatserver.packets import MAX_BODY, Command, Packet


class Handler(Protocol):
    """Hears what happens on a connection. Inherit from it, and override what matters to you.

    A method may return a Deferred, or be an ``async def``. Nobody waits for it: the next event
    comes when it comes. An error that it ends with is logged.
    """

    def connected(self, client: ChatClient) -> object:
        """A `ReconnectingClient` has connected and logged in, at first or again."""
        return None

    def invited(self, client: ChatClient, inviter: str) -> object:
        """Somebody wants to chat: see `ChatClient.accept` and `ChatClient.decline`."""
        return None

    def chat_began(self, chat: Chat) -> object:
        """A chat has begun, whoever has invited."""
        return None

    def message_received(self, chat: Chat, message: Message) -> object:
        """The peer said something."""
        return None

    def chat_ended(self, chat: Chat, reason: ChatError | None) -> object:
        """A chat is over.

        :param reason: None if this side has left, `PeerLeftError`, or `ConnectionEndedError`
        """
        return None

    def connection_lost(self, client: ChatClient, reason: ChatError) -> object:
        """The connection is over. Its chat has ended before.

        :param reason: `ConnectionLostError`, `ReplacedError`, `ShutdownError`, `ClosedError` or
            another `ConnectionEndedError`
        """
        return None


class ChatClient:
    """One connection to a server: `connect` makes it.

    Each method that asks the server for something returns a Deferred, which an ``async def``
    can await. It fails with a `RefusedError`, which has a subclass for each of the server's codes,
    or with `ConnectionEndedError`. There is no need to wait for one before the next.
    """

    def __init__(self, wire: Wire, handler: Handler) -> None:
        self._events = _Events(self, handler, self._tell_waiters)
        self._session, self._core = converse(wire, self._events)
        self._end: ChatError | None = None
        self._waiters: list[Deferred[ChatError]] = []

    @property
    def name(self) -> str:
        """The user who is logged in; empty before that."""
        return decode_name(self._core.name)

    @property
    def chat(self) -> Chat | None:
        """The present chat, if there is one."""
        return self._core.chat

    # --- What an application asks for -------------------------------------------------------

    def register(self, name: str, password: str | bytes) -> Deferred[None]:
        """Make an account, and log in to it.

        It fails with `NameTakenError`, `MalformedCredentialsError`, `RegistrationClosedError`,
        `SlowDownError`, `AlreadyLoggedInError` or `FailedError`.

        :param password: 8 bytes or more. A string is sent as UTF-8, in Unicode's form NFC.
        """
        return self._sign_in(Command.REGISTER, name, password)

    def log_in(self, name: str, password: str | bytes) -> Deferred[None]:
        """Log in.

        It fails with `NotAuthenticatedError`, and otherwise as `register` does.
        """
        return self._sign_in(Command.LOGIN, name, password)

    def invite(self, name: str) -> Deferred[Invitation]:
        """Invite a user. Of several invitations only the last one stands.

        :return: fires once the invitation is delivered: `Invitation.when_answered` tells
            what comes of it. It fails with `NotOnlineError`, `BusyError`, `YourselfError`
            or `NotLoggedInError`.
        """
        return self._ask(Command.CHAT_REQUEST, name)

    def accept(self, name: str) -> Deferred[Chat]:
        """Accept the invitation of a user.

        It fails with `NoInvitationError`; with `LostError` if the invitation is gone; or with
        `BusyError` if somebody else has just accepted an invitation of this side.
        """
        return self._ask(Command.CHAT_ACCEPT, name)

    def decline(self, name: str) -> Deferred[None]:
        """Decline the invitation of a user. It fails with `NoInvitationError` or `BusyError`."""
        return self._ask(Command.CHAT_DECLINE, name)

    def withdraw(self, name: str) -> Deferred[None]:
        """Withdraw the invitation that was sent to a user. Fails as `decline`."""
        return self._ask(Command.CHAT_DECLINE, name)

    def close(self) -> Deferred[ChatError]:
        """Close the connection, and with it the chat. Return what `when_closed` does."""
        self._session.close(ClosedError())
        return self.when_closed()

    def when_closed(self) -> Deferred[ChatError]:
        """Return a Deferred that fires with the reason once the connection is over."""
        waiter: Deferred[ChatError] = Deferred()
        self._waiters.append(waiter)
        if self._end is not None:
            self._tell_waiters(self._end)
        return waiter

    def tell_connected(self) -> None:
        """Tell the handler of this connection, of a `ReconnectingClient`."""
        self._events.connected()

    # --- What the connection tells ----------------------------------------------------------

    def packet_received(self, packet: Packet) -> None:
        """The server sent `packet`."""
        packet_received(self._session, self._core, packet)

    def abandon(self, reason: ChatError) -> None:
        """Close the connection, for `reason`."""
        self._session.close(reason)

    def lost(self, reason: ChatError) -> None:
        """The connection is gone: for `reason`, unless another had ended it before."""
        self._session.connection_lost(reason)

    # --- Helpers ----------------------------------------------------------------------------

    def _sign_in(self, command: Command, name: str, password: str | bytes) -> Deferred[None]:
        if ":" in name:
            return fail(MalformedCredentialsError("a name can't hold a colon"))
        try:
            if isinstance(password, str):
                password = unicodedata.normalize("NFC", password).encode("utf-8", "surrogateescape")
            body = encode_name(name) + b":" + password
        except UnicodeEncodeError:  # a half of a surrogate pair
            return fail(MalformedCredentialsError("a name or a password has to be Unicode text"))
        if len(body) > MAX_BODY:
            return fail(MalformedCredentialsError("that is too long for a name and a password"))
        request = Request(command, body)
        self._session.sign_in(request)
        return request.outcome

    def _ask(self, command: Command, name: str) -> Deferred[Any]:
        """Ask for something about the user `name`. An empty name would mean the newest."""
        try:
            body = encode_name(name)
        except UnicodeEncodeError:  # a half of a surrogate pair
            body = b""
        if not 0 < len(body) <= MAX_BODY:
            return fail(
                NotOnlineError() if command is Command.CHAT_REQUEST else NoInvitationError()
            )
        request = Request(command, body)
        self._session.ask(request)
        return request.outcome

    def _tell_waiters(self, end: ChatError) -> None:
        self._end = end
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(end)


class _Events:
    """Tells a `Handler` what happens, and logs what it fails at.

    :param lost: told of the end of the connection, after the handler
    """

    _log = Logger()

    def __init__(
        self, client: ChatClient, handler: Handler, lost: Callable[[ChatError], None]
    ) -> None:
        self._client = client
        self._handler = handler
        self._lost = lost

    def connected(self) -> None:
        self._call(self._handler.connected, self._client)

    def invited(self, inviter: str) -> None:
        self._call(self._handler.invited, self._client, inviter)

    def chat_began(self, chat: Chat) -> None:
        self._call(self._handler.chat_began, chat)

    def message_received(self, chat: Chat, message: Message) -> None:
        self._call(self._handler.message_received, chat, message)

    def chat_ended(self, chat: Chat, reason: ChatError | None) -> None:
        self._call(self._handler.chat_ended, chat, reason)

    def connection_lost(self, reason: ChatError) -> None:
        self._call(self._handler.connection_lost, self._client, reason)
        self._lost(reason)

    def _call(self, method: Callable[..., object], *arguments: object) -> None:
        """Call a method of the handler, which may be an ``async def``."""
        outcome = maybeDeferred(method, *arguments)
        outcome.addErrback(self._log_error, method.__name__)

    def _log_error(self, failure: Failure, name: str) -> None:
        if failure.check(ChatError):  # What the server answered, and nobody took.
            self._log.warn("{name}: {error}", name=name, error=failure.getErrorMessage())
        else:
            self._log.failure("The handler failed at {name}", failure, name=name)

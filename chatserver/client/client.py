"""What an application uses of a connection, and what it hears of it."""

from __future__ import annotations

import unicodedata
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatserver.client.chat import Chat, Invitation, Message
from chatserver.client.conversation import (
    Core,
    Session,
    Wire,
    converse,
    decode_name,
    encode_name,
)
from chatserver.client.errors import (
    ChatError,
    ClosedError,
    MalformedCredentialsError,
    NoInvitationError,
    NotOnlineError,
)
from chatserver.client.exchange import Request
from chatserver.client.once import Once
from chatserver.packets import MAX_BODY, Command

_log = Logger()


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

    def __init__(self, session: Session, core: Core, events: Events) -> None:
        self._session = session
        self._core = core
        self._events = events

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
        return self._events.closed.when_fired()

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


class Events:
    """Tells a `Handler` what happens on a connection. `closed` fires after it, at the end."""

    def __init__(self, handler: Handler) -> None:
        self.client: ChatClient
        self.closed: Once[ChatError] = Once()
        self._handler = handler

    def invited(self, inviter: str) -> None:
        """See `Handler`."""
        tell(self._handler, "invited", self.client, inviter)

    def chat_began(self, chat: Chat) -> None:
        """See `Handler`."""
        tell(self._handler, "chat_began", chat)

    def message_received(self, chat: Chat, message: Message) -> None:
        """See `Handler`."""
        tell(self._handler, "message_received", chat, message)

    def chat_ended(self, chat: Chat, reason: ChatError | None) -> None:
        """See `Handler`."""
        tell(self._handler, "chat_ended", chat, reason)

    def connection_lost(self, reason: ChatError) -> None:
        """See `Handler`."""
        tell(self._handler, "connection_lost", self.client, reason)
        self.closed.fire(reason)


def tell(handler: Handler, event: str, *arguments: object) -> None:
    """Call the method of `handler` named `event`, and log what it fails at.

    It may be an ``async def``, or return a Deferred.
    """
    outcome = maybeDeferred(lambda: getattr(handler, event)(*arguments))
    outcome.addErrback(_log_error, event)


def _log_error(failure: Failure, event: str) -> None:
    if failure.check(ChatError):  # What the server answered, and nobody took.
        _log.warn("{event}: {error}", event=event, error=failure.getErrorMessage())
    else:
        _log.failure("The handler failed at {event}", failure, event=event)


def open_conversation(wire: Wire, handler: Handler) -> tuple[ChatClient, Session, Core]:
    """Begin the client's side of a conversation over `wire`.

    :return: what the application uses, and what its connection does
    """
    events = Events(handler)
    session, core = converse(wire, events)
    events.client = ChatClient(session, core, events)
    return events.client, session, core

"""What an application writes to hear what comes unasked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from chatserver.client.chat import Chat, Message
from chatserver.client.errors import ChatError

if TYPE_CHECKING:
    from chatserver.client.client import ChatClient


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

"""Handlers and a wire that note what happens, for tests of `chatserver.client`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from chatserver.client import Chat, ChatClient, ChatError, Handler, Message
from chatserver.client.client import Events
from chatserver.client.conversation import converse, packet_received
from chatserver.packets import Packet

Event = tuple[Any, ...]


class Recorder(Handler):
    """Notes each event as a tuple, in `events`. Reasons are noted by their classes."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._waiting: list[tuple[Event, Deferred[None]]] = []

    def take(self) -> list[Event]:
        """Return the events since the last time."""
        events, self.events = self.events, []
        return events

    def hear(self, *event: Any) -> Deferred[None]:
        """Return a Deferred that fires once `event` is among the events."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append((event, waiter))
        self._tell_waiters()
        return waiter

    def connected(self, client: ChatClient) -> object:
        return self._note("connected", client.name)

    def invited(self, client: ChatClient, inviter: str) -> object:
        return self._note("invited", inviter)

    def chat_began(self, chat: Chat) -> object:
        return self._note("chat_began", chat.peer)

    def message_received(self, chat: Chat, message: Message) -> object:
        return self._note("message", message.sender, message.data)

    def chat_ended(self, chat: Chat, reason: ChatError | None) -> object:
        return self._note("chat_ended", chat.peer, reason and type(reason))

    def connection_lost(self, client: ChatClient, reason: ChatError) -> object:
        return self._note("connection_lost", type(reason))

    def _note(self, *event: Any) -> None:
        self.events.append(event)
        self._tell_waiters()

    def _tell_waiters(self) -> None:
        heard = [each for each in self._waiting if each[0] in self.events]
        self._waiting = [each for each in self._waiting if each not in heard]
        for _, waiter in heard:
            waiter.callback(None)


class ListWire:
    """Keeps what a client sends: the server's side is played by the test."""

    def __init__(self) -> None:
        self.sent: list[Packet] = []
        self.is_closed = False

    def send(self, packet: Packet) -> None:
        self.sent.append(packet)

    def close(self) -> None:
        self.is_closed = True

    def take(self) -> list[Packet]:
        """Return the packets since the last time."""
        sent, self.sent = self.sent, []
        return sent


class WiredClient(ChatClient):
    """A client whose connection is the test."""

    def __init__(self, wire: Any, handler: Handler) -> None:
        events = Events(handler)
        super().__init__(*converse(wire, events), events)
        events.client = self

    def packet_received(self, packet: Packet) -> None:
        packet_received(self._session, self._core, packet)

    def lost(self, reason: ChatError) -> None:
        self._session.connection_lost(reason)

"""The floods: each is a function for a process of its own, and returns how many packets it sent."""

from __future__ import annotations

import os
import selectors

from benchmarks.client import LoadClient, log_in
from benchmarks.load import Control
from chatserver.packets import Command, Packet, encode

LISTENERS = 50
"""How many others there are to be invited."""

BATCH = 500
"""Packets that are sent at once. Two such batches are always under way, so that the server never
waits for more, and little enough that their answers don't count as unread."""

UNKNOWN = encode(Packet(0x77))
"""It is answered: where others are not, it tells that they have been handled."""

ATTEMPTS_FROM = "127.0.3.1"
"""The address of those who try to log in: when it may not any more, others still may."""

_LISTENERS = [b"listener-%d" % i for i in range(LISTENERS)]


def _invite(name: bytes) -> bytes:
    return encode(Packet(Command.CHAT_REQUEST, name))


def _withdraw(name: bytes) -> bytes:
    return encode(Packet(Command.CHAT_DECLINE, name))


BATCHES: dict[str, list[bytes]] = {
    "acks": [encode(Packet(Command.ACK))] * (BATCH - 1) + [UNKNOWN],
    "unknown commands": [UNKNOWN] * BATCH,
    "invitations": [_invite(_LISTENERS[i % LISTENERS]) for i in range(BATCH)],
    "invite and withdraw": [_invite(_LISTENERS[0]), _withdraw(_LISTENERS[0])] * (BATCH // 2),
}
"""What one client sends over and over, by the flood's name."""


def names() -> list[bytes]:
    """Return the accounts that the floods need."""
    return [b"flooder", *_LISTENERS]


def listen(control: Control, port: int) -> None:
    """Be there to be invited, and read what comes."""
    clients = [log_in(port, name) for name in _LISTENERS]
    control.ready()
    with selectors.DefaultSelector() as selector:
        for client in clients:
            client.set_blocking(False)
            selector.register(client, selectors.EVENT_READ, client)
        while control.is_running:
            for key, _ in selector.select(0.1):
                key.data.receive_some()


def small_packets(control: Control, port: int, name: str) -> int:
    """Send the batch of this name over and over, as one client that reads its answers."""
    batch = BATCHES[name]
    data = b"".join(batch)
    answers = sum(packet != encode(Packet(Command.ACK)) for packet in batch)
    sent = 0
    with log_in(port, b"flooder") as client:
        control.ready()
        client.send_bytes(data)
        while control.is_running:
            client.send_bytes(data)
            for _ in range(answers):
                if not control.is_running:  # Who is told SLOWDOWN has an answer a second.
                    return sent
                client.receive()
            sent += len(batch)
    return sent


def attempts(control: Control, port: int, connections: int, register: bool) -> int:
    """Log in with wrong passwords, or register, from many connections: each again once answered."""
    clients = [LoadClient(port, ATTEMPTS_FROM) for _ in range(connections)]
    run = os.urandom(4).hex().encode()
    control.ready()
    sent = 0

    def attempt(client: LoadClient) -> None:
        nonlocal sent
        sent += 1
        if register:
            client.send(Command.REGISTER, b"new-%s-%d:some password" % (run, sent))
        else:
            client.send(Command.LOGIN, b"nobody:wrong password")

    with selectors.DefaultSelector() as selector:
        for client in clients:
            client.set_blocking(False)
            selector.register(client, selectors.EVENT_READ, client)
            attempt(client)
        while control.is_running:
            for key, _ in selector.select(0.1):
                client = key.data
                answer = client.receive_now()
                if answer == Packet(Command.ACK, b"OK"):
                    # Registered, and logged in: it takes a new connection to do that again.
                    selector.unregister(client)
                    client.close()
                    client = LoadClient(port, ATTEMPTS_FROM)
                    client.set_blocking(False)
                    selector.register(client, selectors.EVENT_READ, client)
                if answer is not None:
                    attempt(client)
    return sent

"""Conversations written down as they happen, and played against a whole server in memory.

A script has a line for each thing that happens::

    alice, bob log in
    alice -> ChatRequest bob
    bob   <- FindPeer alice
    alice <- Ack SENT
    60 s pass
    alice <- Error TIMEOUT

What a client receives stands right after what caused it, each client's in its order; the
order between clients means nothing. Something else received, or nothing, is a failure.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from chatserver.packets import Command, Packet
from tests.memory import MemoryClient, MemoryServer

COMMANDS = {command.name.title().replace("_", ""): command for command in Command}
NAMES = {command: name for name, command in COMMANDS.items()}


def parse_packet(text: str) -> Packet:
    """Return the packet that `text` stands for: a command, and the body after a space."""
    name, _, body = text.strip().partition(" ")
    return Packet(COMMANDS[name], body.encode())


def describe(packet: Packet) -> str:
    """Return how `packet` stands in a script."""
    return f"{NAMES[Command(packet.command)]} {packet.body.decode()}".strip()


class Stage:
    """Plays scripts. Clients stay as they are from one script to the next."""

    def __init__(self, server: MemoryServer | None = None) -> None:
        self.server = server or MemoryServer()
        self.clients: dict[str, MemoryClient] = {}
        self._unseen: dict[str, list[str]] = {}

    def play(self, script: str) -> None:
        """Do what `script` says.

        :raises AssertionError: something was received that isn't in it, or was not.
        """
        for line in filter(None, map(str.strip, script.splitlines())):
            if (match := re.fullmatch(r"(\w+) +<- (.+)", line)) is not None:
                self._expect(match[1], match[2], line)
                continue
            self._expect_no_more(f"before: {line}")
            self._do(line)
            for name, client in self.clients.items():
                self._unseen.setdefault(name, []).extend(map(describe, client.take()))
        self._expect_no_more("at the end")

    def _expect(self, name: str, packet: str, line: str) -> None:
        received = self._unseen.get(name) or ["nothing"]
        assert received[0] == packet, f"{line}: {name} received {received[0]}"
        received.pop(0)

    def _expect_no_more(self, where: str) -> None:
        unseen = {name: packets for name, packets in self._unseen.items() if packets}
        assert not unseen, f"{where}: not in the script: {unseen}"

    def _do(self, line: str) -> None:
        actions: dict[str, Callable[..., None]] = {
            r"(\w+) +-> (.+)": self._send,
            r"(.+) logs? in": self._log_in,
            r"(\w+) disconnects": self._disconnect,
            r"(\w+) reads? (nothing|on)": self._read,
            r"([\d.]+) s pass": self._pass,
        }
        for pattern, action in actions.items():
            if (match := re.fullmatch(pattern, line)) is not None:
                action(*match.groups())
                return
        raise ValueError(f"not a line of a script: {line}")

    def _send(self, name: str, packets: str) -> None:
        self.clients[name].send(*map(parse_packet, packets.split(" + ")))

    def _log_in(self, names: str) -> None:
        for name in names.split(","):
            self.clients[name.strip()] = self.server.log_in(name.strip())

    def _disconnect(self, name: str) -> None:
        self.clients.pop(name).close()

    def _read(self, name: str, what: str) -> None:
        if what == "on":
            self.clients[name].start_reading()
            return
        self.clients[name].stop_reading()
        # Answers that are never read, until the server takes no more packets.
        while self.clients[name].transport.is_reading:
            self.clients[name].send(*[Packet(0x7F)] * 1000)

    def _pass(self, seconds: str) -> None:
        self.server.advance(float(seconds))

"""What a message costs, in counts that no busy machine can change. Times are in benchmarks/."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.tcp import Server
from twisted.internet.threads import blockingCallFromThread

from chatserver.packets import Command, Packet, encode
from chatserver.writing import write_through
from tests.test_server import OK, ServerCase, in_thread

MESSAGES = 16


class CostTests(ServerCase):
    """Two in a chat, over real sockets."""

    def count(self, calls: Counter[str], owner: Any, name: str) -> None:
        """Count the calls of a method."""
        method = getattr(owner, name)

        def counting(*arguments: Any, **more: Any) -> Any:
            calls[name] += 1
            return method(*arguments, **more)

        self.patch(owner, name, counting)

    def cost(self, work: Callable[[], None]) -> Counter[str]:
        """Return what the server has called for `work`."""
        calls: Counter[str] = Counter()
        for owner, name in (
            (write_through(Server), "doRead"),
            (write_through(Server), "writeSomeData"),
            (reactor, "addWriter"),
            (SSL.Connection, "send"),
        ):
            self.count(calls, owner, name)
        work()
        return calls

    @in_thread
    def test_lockstep(self: Any) -> None:
        """A message that waits for its delivery: one read, a write to each side, at once."""
        alice, bob = self.open_chat()
        # Else what came before may still be read.
        blockingCallFromThread(reactor, lambda: None)

        def talk() -> None:
            for number in range(MESSAGES):
                alice.send(Command.MESSAGE, b"%d" % number)
                self.assertEqual(bob.receive(), Packet(Command.MESSAGE, b"alice: %d" % number))
                self.assertEqual(alice.receive(), OK)

        calls = self.cost(talk)
        self.assertEqual(
            calls,
            {"doRead": MESSAGES, "send": 2 * MESSAGES, "writeSomeData": 2 * MESSAGES},
        )

    @in_thread
    def test_pipelined(self: Any) -> None:
        """Messages that come in one read leave in one TLS record and one write to each side."""
        alice, bob = self.open_chat()
        blockingCallFromThread(reactor, lambda: None)
        packets = [Packet(Command.MESSAGE, b"%d" % number) for number in range(MESSAGES)]

        def talk() -> None:
            alice.send_bytes(b"".join(map(encode, packets)))
            for packet in packets:
                self.assertEqual(bob.receive(), Packet(Command.MESSAGE, b"alice: " + packet.body))
                self.assertEqual(alice.receive(), OK)

        self.assertEqual(self.cost(talk), {"doRead": 1, "send": 2, "writeSomeData": 2})

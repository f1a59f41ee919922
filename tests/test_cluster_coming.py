"""Coming to a cluster: from the login's number to the moment when all machines find the user."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from chatserver.limits import CLUSTER_ANNOUNCE_INTERVAL, CLUSTER_ANSWER_TIMEOUT
from chatserver.packets import Command, Packet
from tests.memory_cluster import MemoryCluster

OK = Packet(Command.ACK, b"OK")


class ComingTests(SynchronousTestCase):
    """Logging in while the bus takes its time."""

    def setUp(self) -> None:
        """Let bob log in on the second machine, whose bus does not know of him yet."""
        self.cluster = MemoryCluster()
        self.waiting: list[Callable[[], None]] = []
        self.patch(self.cluster.machines[1].bus, "settle", self.waiting.append)
        self.bob = self.cluster.connect_to(1)
        self.bob.handshake()
        self.bob.send(Packet(Command.LOGIN, b"bob:password"))

    def settle(self) -> None:
        """Let the second machine's bus know of all that it was told."""
        self.waiting.pop(0)()
        self.cluster.run()

    def test_found_when_told(self) -> None:
        """Who hears that they are logged in can be found from other machines. Who looks for them
        before that waits until then.
        """
        alice = self.cluster.connect_to(0)
        alice.handshake()
        alice.send(Packet(Command.LOGIN, b"alice:password"))
        alice.send(Packet(Command.CHAT_REQUEST, b"bob"))
        self.assertEqual(alice.take(), [OK])
        self.assertEqual(self.bob.take(), [])
        self.settle()
        self.assertEqual(self.bob.take(), [OK, Packet(Command.FIND_PEER, b"alice")])
        self.assertEqual(alice.take(), [Packet(Command.ACK, b"SENT")])

    def test_later_login_elsewhere(self) -> None:
        """A later login on another machine wins, also over one that is not told yet."""
        other = self.cluster.connect_to(0)
        other.handshake()
        other.send(Packet(Command.LOGIN, b"bob:password"))
        self.settle()
        self.assertEqual(other.take(), [OK])
        self.assertEqual(self.bob.take(), [OK, Packet(Command.ERROR, b"REPLACED")])

    def test_split(self) -> None:
        """Of two who could not hear each other when they logged in one is found out later."""
        self.settle()
        with patch.object(self.cluster.nats, "publish"):
            other = self.cluster.connect_to(0)
            other.handshake()
            other.send(Packet(Command.LOGIN, b"bob:password"))
            self.cluster.advance(CLUSTER_ANSWER_TIMEOUT)
        self.assertEqual((self.bob.take(), other.take()), ([OK], [OK]))
        for _ in range(round(CLUSTER_ANNOUNCE_INTERVAL)):
            self.cluster.clock.advance(1)
            self.cluster.run()
        self.assertEqual(self.bob.take(), [Packet(Command.ERROR, b"REPLACED")])
        self.assertEqual(other.take(), [])

    def test_gone_before(self) -> None:
        """Of who has gone before they could be told nothing stays."""
        self.bob.reset()
        self.settle()
        online = self.cluster.machines[1].online
        self.assertEqual((online._users, online._logins, online._presences), ({}, {}, {}))

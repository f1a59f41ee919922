"""A whole server in memory, for tests of applications on `chatserver.client`.

Its rules, its TLS and its packets are the real ones; the network, the clock and the accounts are
the test's::

    server = MemoryServer()
    alice = server.log_in("alice", handler)
    bob = server.log_in("bob")
    inviting = bob.invite("alice")
    server.run()              # carries bytes until nothing happens any more
    server.advance(61)        # lets time pass, in seconds

Nothing waits and nothing listens. An application that connects by itself, with `connect` or as a
`ReconnectingClient`, is given ``server.clock`` as its reactor, and `MemoryServer.endpoint` and
`MemoryServer.trust`.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from twisted.internet import main
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionRefusedError
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint, ITCPTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from chatserver.addresses import Address
from chatserver.certificates import ServerCertificate, load_or_create
from chatserver.client import ChatClient, Fingerprint, Handler, connect
from chatserver.conversation import Authenticator, Conversation
from chatserver.credentials import MalformedCredentialsError, for_login, for_registration
from chatserver.directory import LocalDirectory
from chatserver.factory import ChatFactory
from chatserver.limits import (
    INVITATION_TIMEOUT,
    MIN_PASSWORD_LENGTH,
    STALL_TIMEOUT,
    ConnectionLimits,
)
from chatserver.packets import Command, ErrorCode
from chatserver.tls import TLSFactory

HOST = "localhost"
"""The name that the server's certificate is made out to."""

PASSWORD = "password"
"""The password of the accounts that `MemoryServer.log_in` makes."""

SERVER_ADDRESS = IPv4Address("TCP", "192.0.2.2", 5555)

STEP = 1 / 8
"""Seconds that the clock advances at a time: an eighth, so that the steps add up exactly."""

_Result = TypeVar("_Result")


@cache
def server_certificate() -> ServerCertificate:
    """Return a certificate for a server, made once for all tests."""
    with TemporaryDirectory() as folder:
        paths = os.path.join(folder, "server.crt"), os.path.join(folder, "server.key")
        certificate, _ = load_or_create(*paths, None, datetime.now(UTC))
    return certificate


class MemoryAuthenticator:
    """Keeps the accounts in a dictionary, `accounts`: names and passwords."""

    def __init__(self) -> None:
        self.accounts: dict[str, bytes] = {}

    def register(self, conversation: Conversation, body: bytes, address: Address) -> None:
        """See `Authenticator`."""
        try:
            new = for_registration(body, MIN_PASSWORD_LENGTH)
        except MalformedCredentialsError:
            conversation.refused(Command.REGISTER, ErrorCode.MALFORMED)
            return
        if new.name in self.accounts:
            conversation.refused(Command.REGISTER, ErrorCode.NAME_TAKEN)
        else:
            self.accounts[new.name] = new.password
            conversation.admitted(new.name.encode())

    def log_in(self, conversation: Conversation, body: bytes, address: Address) -> None:
        """See `Authenticator`."""
        try:
            given = for_login(body)
        except MalformedCredentialsError:
            conversation.refused(Command.LOGIN, ErrorCode.MALFORMED)
            return
        if self.accounts.get(given.name) == given.password:
            conversation.admitted(given.name.encode())
        else:
            conversation.refused(Command.LOGIN, ErrorCode.NOT_AUTHENTICATED)


@implementer(ITCPTransport)
class MemoryTransport(FileDescriptor):
    """One end of a connection in memory, with the buffers of a real one.

    :param peer: the address of the other end
    :param host: the address of this one

    `room` is how many bytes the network still takes; `sent` is what it took.
    """

    def __init__(self, clock: Clock, protocol: Any, peer: IPv4Address, host: IPv4Address) -> None:
        super().__init__(reactor=self)  # type: ignore[arg-type]
        self.clock = clock
        self.protocol = protocol
        self.room = float("inf")
        self.sent = bytearray()
        self.is_reading = self.is_writing = False
        self.has_no_delay = False
        self.is_kept_alive = False
        self.bytes_written = 0
        self._peer = peer
        self._host = host
        self.connected = 1
        self.startReading()  # type: ignore[no-untyped-call]
        protocol.makeConnection(self)

    # What a FileDescriptor asks of its reactor.

    def addReader(self, _: object) -> None:
        """Read from now on."""
        self.is_reading = True

    def removeReader(self, _: object) -> None:
        """Read no more."""
        self.is_reading = False

    def addWriter(self, _: object) -> None:
        """Write from now on."""
        self.is_writing = True

    def removeWriter(self, _: object) -> None:
        """Write no more."""
        self.is_writing = False

    # What a socket does.

    def write(self, data: bytes) -> None:
        """Keep `data` until it is sent, and count it."""
        self.bytes_written += len(data)
        super().write(data)

    def writeSomeData(self, data: bytes) -> int:
        """Give the network what it takes of `data`; return how much that is."""
        taken = int(min(len(data), self.room))
        self.sent += data[:taken]
        self.room -= taken
        return taken

    def run(self) -> bool:
        """Do what a reactor does when the socket is writable. Return whether anything happened."""
        if not (self.is_writing and self.connected and (self.room or not self.dataBuffer)):
            return False
        before = len(self.sent)
        if (end := self.doWrite()) is not None:  # type: ignore[no-untyped-call]
            self.connectionLost(Failure(end))
        return len(self.sent) > before or not self.connected

    def abortConnection(self) -> None:
        """Break the connection off."""
        if self.connected and not self.disconnected:
            self.stopReading()  # type: ignore[no-untyped-call]
            self.stopWriting()  # type: ignore[no-untyped-call]
            self.clock.callLater(0, self.connectionLost, Failure(ConnectionAborted()))

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone."""
        if self.connected:
            super().connectionLost(reason)  # type: ignore[no-untyped-call]
            self.protocol.connectionLost(reason)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See `ITCPTransport`."""
        self.has_no_delay = enabled

    def getTcpNoDelay(self) -> bool:
        """See `ITCPTransport`."""
        return self.has_no_delay

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """See `ITCPTransport`."""
        self.is_kept_alive = enabled

    def getTcpKeepAlive(self) -> bool:
        """See `ITCPTransport`."""
        return self.is_kept_alive

    def getPeer(self) -> IPv4Address:
        """See `ITCPTransport`."""
        return self._peer

    def getHost(self) -> IPv4Address:
        """See `ITCPTransport`."""
        return self._host


class Connection:
    """What is between a client's transport and the server's.

    `is_cut` stops the bytes in both directions, and neither end notices.
    """

    def __init__(self, client: MemoryTransport, server: MemoryTransport) -> None:
        self.client = client
        self.server = server
        self.is_cut = False

    def exchange(self, most: int = 2**20) -> bool:
        """Carry bytes both ways, `most` at most each way. Return whether anything happened."""
        there = self.to_server(most)
        return self.to_client(most) or there

    def to_server(self, most: int = 2**20) -> bool:
        """Carry at most `most` bytes from the client to the server, and none back."""
        return self._carry(self.client, self.server, most)

    def to_client(self, most: int = 2**20) -> bool:
        """Carry at most `most` bytes from the server to the client, and none back."""
        return self._carry(self.server, self.client, most)

    def _carry(self, source: MemoryTransport, target: MemoryTransport, most: int) -> bool:
        if self.is_cut:
            return False
        happened = source.run()
        if source.sent and target.connected and target.is_reading:
            data = bytes(source.sent[:most])
            del source.sent[:most]
            target.protocol.dataReceived(data)
            happened = True
        if not source.connected and target.connected and not (source.sent and target.is_reading):
            target.connectionLost(Failure(main.CONNECTION_DONE))
            happened = True
        return happened

    def lose(self) -> None:
        """Break the connection off, at both ends."""
        for transport in (self.client, self.server):
            transport.connectionLost(Failure(main.CONNECTION_LOST))


class MemoryNetwork:
    """A server in memory, and all connections to it.

    :param clock: the time of the network and of all that is in it
    :param authenticator: who may use the server
    :param online: who is online
    :param limits: what connections may take
    """

    def __init__(
        self,
        clock: Clock,
        authenticator: Authenticator,
        online: LocalDirectory,
        limits: ConnectionLimits | None = None,
    ) -> None:
        self.clock = clock
        self.online = online
        self.factory = ChatFactory(authenticator, online, clock, limits)
        self.tls_factory = TLSFactory(self.factory, server_certificate().tls_options, self.clock)
        self.connections: list[Any] = []

    def run(self) -> None:
        """Carry bytes, and let time stand still, until nothing happens any more."""
        happened = True
        while happened:
            self.clock.advance(0)
            happened = False
            for connection in list(self.connections):
                happened = connection.exchange() or happened

    def advance(self, seconds: float) -> None:
        """Let time pass, and carry what is sent meanwhile."""
        for _ in range(round(seconds / STEP)):
            self.clock.advance(STEP)
            self.run()

    def accept(self, port: int) -> MemoryTransport:
        """Return the server's end of a new connection, from a client's `port`."""
        address = IPv4Address("TCP", "192.0.2.1", port)
        protocol = self.tls_factory.buildProtocol(address)
        return MemoryTransport(self.clock, protocol, address, SERVER_ADDRESS)


class MemoryServer(MemoryNetwork):
    """A server in memory, and clients of `chatserver.client`.

    `trust` is what its clients trust it by, and `accounts` who can log in.

    :param invitation_timeout: seconds until an unanswered invitation ends
    :param stall_timeout: seconds until a client that reads nothing is cut off
    """

    def __init__(
        self,
        invitation_timeout: float = INVITATION_TIMEOUT,
        stall_timeout: float = STALL_TIMEOUT,
    ) -> None:
        clock = Clock()
        authenticator = MemoryAuthenticator()
        online = LocalDirectory(clock, invitation_timeout)
        limits = ConnectionLimits(stall_timeout=stall_timeout)
        super().__init__(clock, authenticator, online, limits)
        self.accounts = authenticator.accounts
        self.trust = Fingerprint(server_certificate().fingerprint)
        self.is_reachable = True

    def endpoint(self) -> IStreamClientEndpoint:
        """Return the way to this server. While it `is_reachable` is false, it is refused."""
        return _Endpoint(self)

    def connect(self, handler: Handler | None = None) -> ChatClient:
        """Return a new client, connected."""
        return self.result(
            connect(self.clock, HOST, trust=self.trust, handler=handler, endpoint=self.endpoint())
        )

    def log_in(self, name: str, handler: Handler | None = None) -> ChatClient:
        """Return a new client, logged in as `name`. The account is made if need be."""
        password = self.accounts.setdefault(name, PASSWORD.encode())
        client = self.connect(handler)
        self.result(client.log_in(name, password))
        return client

    def result(self, waiting: Deferred[_Result]) -> _Result:
        """Carry bytes until nothing happens any more, and return what `waiting` has fired with.

        What it has failed with is raised.

        :raises AssertionError: it has not fired
        """
        outcome: list[Any] = []
        waiting.addBoth(outcome.append)
        self.run()
        if not outcome:
            raise AssertionError("it has not fired, and nothing happens any more")
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        result: _Result = outcome[0]
        return result


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """Connects to a `MemoryServer`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        """See `IStreamClientEndpoint`."""
        server = self._server
        if not server.is_reachable:
            return fail(ConnectionRefusedError())
        protocol = protocolFactory.buildProtocol(SERVER_ADDRESS)
        port = 50000 + len(server.connections)
        address = IPv4Address("TCP", "192.0.2.1", port)
        there = server.accept(port)
        here = MemoryTransport(server.clock, protocol, SERVER_ADDRESS, address)
        server.connections.append(Connection(here, there))
        return succeed(protocol)

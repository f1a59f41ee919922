"""Connections through a proxy, which says in a header where the client is (the PROXY protocol).

Twisted reads the header, for ports named with ``haproxy:``. But it makes the connection before
that, when all that is known is the proxy.
"""

from __future__ import annotations

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure


class ProxiedFactory(Factory):
    """Makes the connections of `factory` as soon as it is known where their clients are.

    :param factory: takes connections, or refuses them, by the address of the client
    :param clock: where the deadline runs
    :param timeout: seconds that the header may take; None is for ever
    """

    noisy = False

    def __init__(self, factory: Factory, clock: IReactorTime, timeout: float | None) -> None:
        self.factory = factory
        self.clock = clock
        self.timeout = timeout

    def buildProtocol(self, addr: IAddress | None) -> HeaderAwaited:
        """Wait for the header of the proxy at `addr`."""
        return HeaderAwaited(self)


class HeaderAwaited(Protocol):
    """Waits for the header, and then makes way for the client's own protocol."""

    transport: ProtocolWrapper  # type: ignore[assignment]

    def __init__(self, proxied: ProxiedFactory) -> None:
        self._proxied = proxied
        self._deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Wait, but not for ever."""
        if self._proxied.timeout is not None:
            self._deadline = self._proxied.clock.callLater(
                self._proxied.timeout, self.transport.abortConnection
            )

    def dataReceived(self, data: bytes) -> None:
        """Take the first bytes behind the header: now it is known where the client is."""
        self._cancel_deadline()
        client = self._proxied.factory.buildProtocol(self.transport.getPeer())
        if client is None:
            self.transport.abortConnection()
            return
        self.transport.wrappedProtocol = client
        client.makeConnection(self.transport)  # type: ignore[arg-type]
        client.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection ended before it was anybody's."""
        self._cancel_deadline()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

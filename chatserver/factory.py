"""Makes the connections of a server, and knows them all."""

from __future__ import annotations

from collections import Counter

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from chatserver.addresses import Address
from chatserver.conversation import Authenticator, Directory
from chatserver.limits import ConnectionLimits
from chatserver.protocol import ChatProtocol, address_of


class ChatFactory(Factory):
    """Makes a `ChatProtocol` for each client.

    :param authenticator: who may use the server
    :param online: who is online: the directory that the connections share
    :param clock: where deadlines run
    :param limits: what connections may take
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        authenticator: Authenticator,
        online: Directory,
        clock: IReactorTime,
        limits: ConnectionLimits | None = None,
    ) -> None:
        self.online = online
        self._authenticator = authenticator
        self._clock = clock
        self._limits = limits or ConnectionLimits()
        self._connections: dict[ChatProtocol, str | None] = {}  # and the network of each
        self._by_network: Counter[str] = Counter()
        self._all_gone: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> ChatProtocol | None:
        """Make the connection of a client that has just come, or return None if there are too many.

        What listens closes the socket then.
        """
        address = address_of(addr)
        reason = self._too_many() or self._too_many_there(address)
        if reason is not None:
            self._log_refusal(address, reason)
            return None
        return ChatProtocol(self._authenticator, self.online, self, self._clock, self._limits)

    def _too_many(self) -> str | None:
        """Return why there may be no more connections, or None if there may."""
        total = self._limits.total
        if total is None or len(self._connections) < total:
            return None
        return f"{total} connections are as many as there may be"

    def _too_many_there(self, address: Address) -> str | None:
        """Return why there may be no more connections of `address`, or None if there may."""
        most, network = self._limits.per_address, address.network
        if most is None or network is None or self._by_network[network] < most:
            return None
        return f"there are {most} connections from there"

    def _log_refusal(self, address: Address, reason: str) -> None:
        self._log.warn(
            "Client refused: {client}, {reason}",
            client=str(address),
            reason=reason,
            network=address.network,
        )

    def opened(self, connection: ChatProtocol) -> None:
        """See `Connections`."""
        self._count(connection, connection.address.network)

    def located(self, connection: ChatProtocol, address: Address) -> bool:
        """See `Connections`."""
        reason = self._too_many_there(address)
        if reason is not None:
            self._log_refusal(address, reason)
            return False
        self._count(connection, address.network)
        return True

    def ended(self, connection: ChatProtocol) -> None:
        """See `Connections`."""
        if connection not in self._connections:
            return
        network = self._connections.pop(connection)
        if network is not None:
            self._by_network[network] -= 1
            if not self._by_network[network]:
                del self._by_network[network]
        self._tell_if_all_gone()

    def _count(self, connection: ChatProtocol, network: str | None) -> None:
        self._connections[connection] = network
        if network is not None:
            self._by_network[network] += 1

    def shut_down(self) -> Deferred[None]:
        """Tell every client that the server is going down, and close.

        :return: fires when the last connection is gone, the drain time-out from now at the latest
        """
        if self._all_gone is None:
            self._all_gone = Deferred()
            self.online.close()
            for connection in list(self._connections):
                try:
                    connection.shut_down()
                except Exception:  # It is one connection's, and the others are to hear it.
                    self._log.failure("Not shut down: {client}", client=str(connection))
            self._tell_if_all_gone()
        return self._all_gone

    def _tell_if_all_gone(self) -> None:
        if self._all_gone is not None and not self._all_gone.called and not self._connections:
            self._all_gone.callback(None)

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
        self._connections: set[ChatProtocol] = set()
        self._by_network: Counter[str] = Counter()
        self._all_gone: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> ChatProtocol | None:
        """Make the connection of a client that has just come, or return None if there are too many.

        What listens closes the socket then.
        """
        address = address_of(addr)
        if (refusal := self._refusal(address)) is not None:
            self._log.warn(
                "Client refused: {client}, {reason}", client=str(address), reason=refusal
            )
            return None
        return ChatProtocol(self._authenticator, self.online, self, self._clock, self._limits)

    def _refusal(self, address: Address) -> str | None:
        """Return why a client at `address` can't be taken, or None if it can."""
        total, per_address = self._limits.total, self._limits.per_address
        if total is not None and len(self._connections) >= total:
            return f"{total} connections are as many as there may be"
        if (
            per_address is not None
            and address.network is not None
            and self._by_network[address.network] >= per_address
        ):
            return f"there are {per_address} connections from there"
        return None

    def opened(self, connection: ChatProtocol) -> None:
        """See `Connections`."""
        self._connections.add(connection)
        if (network := connection.address.network) is not None:
            self._by_network[network] += 1

    def ended(self, connection: ChatProtocol) -> None:
        """See `Connections`."""
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        if (network := connection.address.network) is not None:
            self._by_network[network] -= 1
            if not self._by_network[network]:
                del self._by_network[network]
        self._tell_if_all_gone()

    def shut_down(self) -> Deferred[None]:
        """Tell every client that the server is going down, and close.

        :return: fires when the last connection is gone, the drain time-out from now at the latest
        """
        if self._all_gone is None:
            self._all_gone = Deferred()
            self.online.close()
            for connection in list(self._connections):
                connection.shut_down()
            self._tell_if_all_gone()
        return self._all_gone

    def _tell_if_all_gone(self) -> None:
        if self._all_gone is not None and not self._all_gone.called and not self._connections:
            self._all_gone.callback(None)

"""Makes the connections of a server, and knows them all."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory

from chatserver.conversation import Authenticator, Directory
from chatserver.limits import STALL_TIMEOUT
from chatserver.protocol import ChatProtocol


class ChatFactory(Factory):
    """Makes a `ChatProtocol` for each client.

    :param authenticator: who may use the server
    :param online: who is online: the directory that the connections share
    :param clock: where deadlines run
    :param stall_timeout: seconds without progress in sending until a client is cut off
    """

    noisy = False

    def __init__(
        self,
        authenticator: Authenticator,
        online: Directory,
        clock: IReactorTime,
        stall_timeout: float = STALL_TIMEOUT,
    ) -> None:
        self.online = online
        self._authenticator = authenticator
        self._clock = clock
        self._stall_timeout = stall_timeout
        self._connections: set[ChatProtocol] = set()
        self._all_gone: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> ChatProtocol:
        """Make the connection of a client that has just come."""
        return ChatProtocol(
            self._authenticator, self.online, self, self._clock, self._stall_timeout
        )

    def opened(self, connection: ChatProtocol) -> None:
        """See `Connections`."""
        self._connections.add(connection)

    def ended(self, connection: ChatProtocol) -> None:
        """See `Connections`."""
        self._connections.discard(connection)
        self._tell_if_all_gone()

    def shut_down(self) -> Deferred[None]:
        """Tell every client that the server is going down, and close.

        :return: fires when the last connection is gone, `CLOSE_TIMEOUT` from now at the latest
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

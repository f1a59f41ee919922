"""Makes the connections of a server, and knows them all."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory

from chatserver.conversation import Accounts
from chatserver.directory import LocalDirectory
from chatserver.limits import INVITATION_TIMEOUT, STALL_TIMEOUT
from chatserver.protocol import ChatProtocol


class ChatFactory(Factory):
    """Makes a `ChatProtocol` for each client. `online` is the directory that they share.

    :param accounts: who may use the server
    :param clock: where deadlines run
    :param invitation_timeout: seconds that an invitation waits for its answer
    :param stall_timeout: seconds without progress in sending until a client is cut off
    """

    noisy = False

    def __init__(
        self,
        accounts: Accounts,
        clock: IReactorTime,
        invitation_timeout: float = INVITATION_TIMEOUT,
        stall_timeout: float = STALL_TIMEOUT,
    ) -> None:
        self.online = LocalDirectory(clock, invitation_timeout)
        self._accounts = accounts
        self._clock = clock
        self._stall_timeout = stall_timeout
        self._connections: set[ChatProtocol] = set()
        self._shutting_down: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> ChatProtocol:
        """Make the connection of a client that has just come."""
        return ChatProtocol(self._accounts, self.online, self, self._clock, self._stall_timeout)

    def opened(self, connection: ChatProtocol) -> None:
        """See `Connections`."""
        self._connections.add(connection)

    def ended(self, connection: ChatProtocol) -> None:
        """See `Connections`."""
        self._connections.discard(connection)
        if not self._connections and self._shutting_down is not None:
            self._shutting_down.callback(None)

    def shut_down(self) -> Deferred[None]:
        """Tell every client that the server is going down, and close.

        :return: fires when the last connection is gone, `CLOSE_TIMEOUT` from now at the latest
        """
        self.online.clear()
        if not self._connections:
            return succeed(None)
        self._shutting_down = Deferred()
        for connection in list(self._connections):
            connection.shut_down()
        return self._shutting_down

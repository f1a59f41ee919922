"""A client that comes back by itself when its connection is lost."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from twisted.application.internet import ClientService, backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError, inlineCallbacks
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatserver.client.client import ChatClient, Handler, tell
from chatserver.client.connection import DEFAULT_PORT, ClientFactory, ClientProtocol
from chatserver.client.errors import (
    CertificateError,
    ChatError,
    ClosedError,
    FailedError,
    RefusedError,
    ReplacedError,
    SlowDownError,
)
from chatserver.client.once import Once
from chatserver.client.trust import Trust

LOGIN_TIMEOUT = 60.0
"""Seconds to wait for the answer to a login: more than a busy server's queue takes."""

_log = Logger()


class ReconnectingClient(Service):
    """Logs in, and after each loss of the connection again, until it is stopped.

    Between the attempts it waits, longer each time, and a random time more. `Handler.connected`
    tells of each login. A chat does not outlive its connection: `Handler.chat_ended` tells.

    It gives up when there is no point in going on: the name or the password is wrong, the
    certificate is not to be trusted, or the account has logged in elsewhere (two clients of one
    user would throw each other out for ever).

    :param name: who logs in; the account must exist
    :param retry_policy: takes the number of failures in a row and gives seconds to wait; None is
        Twisted's `backoffPolicy`: up to a minute
    :raises CertificateError: `trust` can't be used: its file can't be read, say

    The other parameters are those of `connect`.
    """

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int = DEFAULT_PORT,
        *,
        name: str,
        password: str | bytes,
        handler: Handler,
        trust: Trust | None = None,
        endpoint: IStreamClientEndpoint | None = None,
        retry_policy: Callable[[int], float] | None = None,
    ) -> None:
        self.client: ChatClient | None = None
        """The present connection, logged in."""
        self._reactor = reactor
        self._name = name
        self._password = password
        self._handler = handler
        self._factory = _Factory(reactor, host, port, trust, handler)
        self._factory.opened = self._opened
        self._retry_policy = retry_policy or backoffPolicy()
        self._failures = 0
        self._protocol: ClientProtocol | None = None  # The present one or the last.
        self._stopped: Once[ChatError] = Once()
        self._is_stopped = False
        self._service = ClientService(
            self._factory.secure(endpoint), self._factory, self._delay, reactor
        )

    def startService(self) -> None:
        """Begin to connect."""
        super().startService()  # type: ignore[no-untyped-call]
        if self._is_stopped:
            self._stopped = Once()
            self._is_stopped = False
        self._failures = 0
        self._service.startService()

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Close the connection, and don't come back."""
        super().stopService()  # type: ignore[no-untyped-call]
        yield self._stop(ClosedError())

    def when_stopped(self) -> Deferred[ChatError]:
        """Return a Deferred that fires with the reason once it has given up or was stopped."""
        return self._stopped.when_fired()

    def _delay(self, _: int) -> float:
        # Not Twisted's count, which begins anew whenever TCP connects: a server that
        # refuses the login would be asked every other second.
        self._failures += 1
        return self._retry_policy(self._failures)

    @inlineCallbacks
    def _opened(self, protocol: ClientProtocol) -> Generator[Deferred[Any], Any, None]:
        """There is a TCP connection: log in, and wait for its end."""
        try:
            client: ChatClient = yield protocol.when_ready()
        except Exception:
            error = self._factory.explain(Failure()).value
            _log.warn("Not connected: {reason}", reason=str(error))
            if isinstance(error, CertificateError):
                yield self._stop(error)
            return
        self._protocol = protocol
        logging_in = client.log_in(self._name, self._password)
        try:
            yield logging_in.addTimeout(LOGIN_TIMEOUT, self._reactor)
        except (ChatError, TimeoutError) as error:
            _log.warn("Not logged in: {reason}", reason=str(error) or "no answer")
            yield client.close()
            if isinstance(error, RefusedError) and not _is_passing(error):
                yield self._stop(error)
            return
        self._failures = 0
        self.client = client
        tell(self._handler, "connected", client)
        reason: ChatError = yield client.when_closed()
        self.client = None
        if isinstance(reason, ReplacedError):
            yield self._stop(reason)

    @inlineCallbacks
    def _stop(self, reason: ChatError) -> Generator[Deferred[Any], Any, None]:
        if self._is_stopped:  # Who waits for that may stop it once more.
            return
        if not isinstance(reason, ClosedError):
            _log.error("Not trying any more: {reason}", reason=str(reason))
        if self._protocol is not None:  # Else its end would have no reason, and no deadline.
            self._protocol.abandon(reason)
        yield self._service.stopService()
        self._is_stopped = True
        self._stopped.fire(reason)


class _Factory(ClientFactory):
    """Tells of each connection that it makes."""

    opened: Callable[[ClientProtocol], Deferred[None]]

    def buildProtocol(self, addr: IAddress | None) -> ClientProtocol:
        protocol = super().buildProtocol(addr)
        self.opened(protocol).addErrback(lambda failure: _log.failure("A fault", failure))
        return protocol


def _is_passing(error: RefusedError) -> bool:
    """Tell whether the same login may succeed later."""
    return isinstance(error, SlowDownError | FailedError)

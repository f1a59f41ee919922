"""Listens for clients: on a port number, or wherever a Twisted endpoint description says."""

from __future__ import annotations

import errno
import re
import socket
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import (
    StandardIOEndpoint,
    TCP4ServerEndpoint,
    serverFromString,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port
from twisted.python.failure import Failure
from zope.interface import implementer

from chatserver.errors import OperatorError
from chatserver.limits import ACCEPT_TIME, ACCEPTS_AT_ONCE, LISTEN_BACKLOG
from chatserver.proxied import HeaderFactory, ProxiedTLSFactory
from chatserver.tls import TLSFactory
from chatserver.writing import WriteBatch, write_through

DEFAULT_PORT = "5555"
"""The reference server's port."""

_PROXIED = "haproxy:"
"""What the description of a port begins with that is behind a proxy."""

_LOCKED = "Cannot acquire lock"
"""What Twisted says in place of the system's error when somebody has a UNIX socket."""

_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where to reach who listens at all addresses."""


class ListenError(OperatorError):
    """The server can't listen there. The text says in one line why, and what to do."""


class PortInUseError(ListenError):
    """Somebody listens there already.

    `address` is the host and the port where they can be reached; None if TLS does not begin at
    once there (behind a proxy), or if it is no TCP port.
    """

    def __init__(self, text: str, address: tuple[str, int] | None) -> None:
        super().__init__(text)
        self.address = address


def listen(
    reactor: Any,
    description: str,
    creator: IOpenSSLServerConnectionCreator,
    factory: Factory,
    writes: WriteBatch | None = None,
) -> IListeningPort:
    """Listen at `description` for connections of `factory`, with TLS below them.

    :param description: a port number, for IPv4 and IPv6, or a Twisted endpoint description
        such as ``tcp:5555:interface=127.0.0.1`` or, behind a proxy, ``haproxy:tcp:5555``
    :param creator: makes the TLS of each connection
    :param writes: see `TLSFactory`
    :raises ListenError: the description is none, or the port can't be had
    """
    if _is_proxied(description):
        proxied = ProxiedTLSFactory(factory, creator, reactor, writes)
        reading = HeaderFactory(proxied)  # type: ignore[no-untyped-call]
        return _listen(reactor, description, reading)
    return _listen(reactor, description, TLSFactory(factory, creator, reactor, writes))


def rehearse(reactor: Any, description: str) -> None:
    """Listen at `description` for a moment. The reactor need not run.

    :raises ListenError: as `listen` does
    """
    port: Any = _listen(reactor, description, Factory())
    if isinstance(port, Port):
        # At once: a UNIX socket is a file, which would stay if the reactor never ran.
        port.stopReading()
        port.connectionLost(Failure(CONNECTION_DONE))
    else:
        port.stopListening()


def _listen(reactor: Any, description: str, factory: IProtocolFactory) -> IListeningPort:
    outcome: list[Any] = []
    _endpoint(reactor, description).listen(factory).addBoth(outcome.append)
    if not outcome:  # Each of Twisted's own endpoints listens, or fails, at once.
        raise ListenError(f"--port {description}: does not listen at once; give a tcp: endpoint")
    (port,) = outcome
    if IListeningPort.providedBy(port):
        # Of a Windows reactor's port it stays what it is.
        if isinstance(port, Port):
            port.transport = write_through(port.transport)
            _accept_in_turns(port, reactor)
        return port
    raise _explain(description, port.value) from None


def _accept_in_turns(port: Any, clock: IReactorTime) -> None:
    """Let `port` accept for `ACCEPT_TIME` in a turn: Twisted's takes ever more at once."""
    accept_some = port.doRead

    def accept() -> None:
        end = clock.seconds() + ACCEPT_TIME
        while True:
            port.numberAccepts = ACCEPTS_AT_ONCE
            accept_some()
            # Twisted makes it more if there were so many.
            if port.numberAccepts <= ACCEPTS_AT_ONCE or clock.seconds() >= end:
                return

    port.doRead = accept


def _endpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    if description.isascii() and description.isdecimal():
        number = int(description[:6])  # One digit more than any port number has.
        if number > 0xFFFF:
            raise ListenError(f"--port {description}: a port number is at most 65535")
        return DualStackEndpoint(reactor, number)
    plain = description[len(_PROXIED) :] if _is_proxied(description) else description
    if plain.lower().startswith(("ssl:", "tls:")):
        raise ListenError(
            f"--port {description}: TLS is always put on top; "
            "give a tcp: endpoint, and the certificate with --certificate"
        )
    if _is_proxied(plain):
        raise ListenError(f"--port {description}: haproxy: once is enough")
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, _with_backlog(plain))
    except Exception as error:  # Each parser of a description has errors of its own.
        raise ListenError(
            f"--port {description}: neither a port number nor an endpoint description "
            f"such as tcp:5555:interface=127.0.0.1 ({error})"
        ) from error
    if isinstance(endpoint, StandardIOEndpoint):  # It is one for servers, and has no port.
        raise ListenError(f"--port {description}: is no port; give a tcp: endpoint")
    return endpoint


def _is_proxied(description: str) -> bool:
    """Tell whether a port is behind a proxy. Twisted takes the name of an endpoint in any case."""
    return description.lower().startswith(_PROXIED)


def _with_backlog(description: str) -> str:
    """Return `description` with `LISTEN_BACKLOG`, if it says nothing of that.

    Twisted's own is 50: of a proxy that comes back with more, all others wait for a second, or
    at a UNIX socket are refused.
    """
    kind, *arguments = re.split(r"(?<!\\):", description)  # Not at one that is escaped.
    is_plain = kind in ("tcp", "tcp6", "unix") and all("=" in each for each in arguments[1:])
    if is_plain and not any(each.startswith("backlog=") for each in arguments):
        return f"{description}:backlog={LISTEN_BACKLOG}"
    return description


@implementer(IStreamServerEndpoint)
class DualStackEndpoint:
    """Listens on a port for IPv4 and IPv6, or for IPv4 alone where there is nothing else."""

    def __init__(self, reactor: Any, port: int) -> None:
        self._reactor = reactor
        self._port = port

    def listen(self, protocolFactory: Any) -> Deferred[IListeningPort]:
        """See `IStreamServerEndpoint`. Fails with CannotListenError."""
        if socket.has_dualstack_ipv6():
            try:
                return succeed(self._listen_on_both(protocolFactory))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    return fail(CannotListenError("", self._port, error))
        ipv4 = TCP4ServerEndpoint(self._reactor, self._port, LISTEN_BACKLOG)
        listening: Deferred[IListeningPort] = ipv4.listen(protocolFactory)
        return listening

    def _listen_on_both(self, factory: Any) -> IListeningPort:
        with socket.create_server(
            ("", self._port), family=socket.AF_INET6, backlog=LISTEN_BACKLOG, dualstack_ipv6=True
        ) as listener:
            listener.setblocking(False)
            # The reactor makes a socket of its own from it.
            port: IListeningPort = self._reactor.adoptStreamPort(
                listener.fileno(), socket.AF_INET6, factory
            )
            return port


def _explain(description: str, failure: object) -> ListenError:
    error = getattr(failure, "socketError", failure)  # CannotListenError carries it.
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE or error == _LOCKED:
        return PortInUseError(
            f"--port {description}: in use; stop the server that has it, or give another --port",
            _address(description, failure),
        )
    if number == errno.EACCES:
        why = "not permitted to listen there; give a --port above 1023"
    elif number == errno.EADDRNOTAVAIL:
        why = "this machine has no such address; give one that it has"
    else:
        why = f"can't listen there: {error}; give another --port"
    return ListenError(f"--port {description}: {why}")


def _address(description: str, failure: object) -> tuple[str, int] | None:
    """Return where who listens at `description` can be reached; see `PortInUseError`."""
    if _is_proxied(description) or not isinstance(failure, CannotListenError):
        return None
    if failure.interface is None:  # A UNIX socket has none.
        return None
    return _LOOPBACK.get(failure.interface, failure.interface), failure.port

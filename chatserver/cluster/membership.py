"""This machine's place in the cluster: what the options say, tried, started and stopped."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from chatserver.accounts import Accounts
from chatserver.cluster.bus import NatsAddress, NatsBus, try_bus
from chatserver.cluster.directory import ClusterDirectory
from chatserver.errors import OperatorError
from chatserver.writing import WriteBatch

_CREDENTIALS_MARK = "-----BEGIN NATS USER JWT-----"
"""What a file with a user's JWT and seed begins with; any other has a token."""

_MOST_SECRET = 64 * 1024
"""Characters that such a file has at most: many times what is usual."""


class Membership:
    """A machine of a cluster.

    :param address: where NATS is
    :param options: the server's, for the directory
    :param writes: sends to clients at the end of what is heard
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        address: NatsAddress,
        accounts: Accounts,
        options: Mapping[str, Any],
        writes: WriteBatch,
    ) -> None:
        self._reactor = reactor
        self._bus = NatsBus(address, writes)
        self.directory = ClusterDirectory(
            reactor,
            self._bus,
            accounts.number_logins,
            options["invitation-timeout"],
            options["invitations"],
        )

    def start(self) -> None:
        """Join the cluster once the reactor runs, and with it asyncio's loop."""
        self._reactor.callLater(0, self._start)

    def _start(self) -> None:
        self._log.info("This is machine {machine} of the cluster", machine=self.directory.machine)
        self._bus.start()
        self.directory.start()

    def stop(self) -> Deferred[None]:
        """Leave the cluster. Fires when all is sent."""
        self.directory.stop()
        return self._bus.stop()


def nats_address(options: Mapping[str, Any]) -> NatsAddress:
    """Return where the NATS is that `options` name.

    :raises OperatorError: they can't be right
    """
    servers = tuple(each.strip() for each in options["cluster"].split(","))
    for server in servers:
        _check_server(server)
    ca = options["cluster-ca"]
    tls = _load_ca(os.path.abspath(ca)) if ca else None
    if tls is None and any(server.startswith("tls:") for server in servers):
        tls = ssl.create_default_context()
    credentials = options["cluster-credentials"]
    path = os.path.abspath(credentials) if credentials else ""
    secret = _read_secret(path) if path else ""
    has_jwt = _CREDENTIALS_MARK in secret
    return NatsAddress(
        servers,
        options["cluster-prefix"],
        tls,
        token="" if has_jwt else secret,
        credentials=path if has_jwt else "",
    )


def check_reactor(reactor: Any) -> None:
    """See whether NATS can be used with `reactor`.

    :raises OperatorError: it can't
    """
    if not isinstance(reactor, AsyncioSelectorReactor):
        raise OperatorError(
            "--cluster needs Twisted's asyncio reactor: twistd --reactor asyncio ...", "cluster"
        )


def check_cluster(options: Mapping[str, Any], database: str) -> NatsAddress:
    """Return where NATS is, and try it. This blocks.

    :param database: the kind of the database
    :raises OperatorError: a cluster can't be like that
    """
    if database != "postgresql":
        raise OperatorError(
            "--cluster needs one PostgreSQL for all its machines: --database postgresql://...",
            "cluster",
        )
    address = nats_address(options)
    failed: list[OperatorError] = []

    def attempt() -> None:
        try:
            try_bus(address)
        except OperatorError as error:
            failed.append(error)

    # In a thread: asyncio's loop of this one is the reactor's.
    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return address


def _check_server(server: str) -> None:
    try:
        url = urlsplit(server)
        is_right = url.scheme in ("nats", "tls") and bool(url.hostname) and url.port != 0
        has_password = url.username is not None
    except ValueError:
        is_right, has_password = False, False
    if has_password:
        # Nor is it shown: everybody on the machine could read it in the list of processes.
        raise OperatorError(
            "--cluster: put the token or the credentials into a file: --cluster-credentials FILE",
            "cluster",
        )
    if not is_right or url.path not in ("", "/") or url.query or url.fragment:
        raise OperatorError(
            f"--cluster: {server!r} is no NATS server: write nats://host:4222 or tls://host:4222",
            "cluster",
        )


def _load_ca(path: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one
        why = "there is no certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise OperatorError(
            f"{path}: {why}; name a PEM file with NATS's CA", "cluster-ca"
        ) from None


def _read_secret(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            secret = file.read(_MOST_SECRET + 1).strip()
        exposed = os.name == "posix" and os.stat(path).st_mode & 0o077
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "is no text"
        raise OperatorError(
            f"{path}: {why}; name NATS's token file", "cluster-credentials"
        ) from None
    if len(secret) > _MOST_SECRET:
        raise OperatorError(f"{path}: is no token; name another file", "cluster-credentials")
    if not secret:
        raise OperatorError(f"{path}: is empty; put NATS's token there", "cluster-credentials")
    if exposed:
        raise OperatorError(
            f"{path}: can be read by others; take that away: chmod 600 {path}",
            "cluster-credentials",
        )
    return secret

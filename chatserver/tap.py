"""``twistd asyncchat``: where the server is put together, and nowhere else."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from argon2.exceptions import HashingError
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from twisted.python.components import Componentized
from twisted.python.usage import Options as TwistedOptions

from chatserver import __version__
from chatserver.accepting import AcceptBackoff
from chatserver.accounts import Accounts
from chatserver.authenticator import AccountAuthenticator
from chatserver.database import make_engine, parse_url, prepare, prepare_numbers
from chatserver.descriptors import auto_connections, connections_for, raise_file_limit
from chatserver.directory import LocalDirectory
from chatserver.errors import OperatorError
from chatserver.factory import ChatFactory
from chatserver.files import check_own
from chatserver.limits import FEW_FILES, LOG_FLUSH_INTERVAL, ConnectionLimits
from chatserver.listening import listen
from chatserver.log import ServerLog, make_observer
from chatserver.logfile import open_log_file
from chatserver.logwriters import Writable
from chatserver.optional import import_membership
from chatserver.options import AUTO, NO_LOG_FILE, OPEN, Options
from chatserver.passwords import Passwords
from chatserver.protocol import address_of
from chatserver.renewal import Renewal, certificate_files
from chatserver.signals import SighupHandler
from chatserver.steady import steady
from chatserver.store import Store
from chatserver.systemd import Systemd
from chatserver.writing import WriteBatch

if TYPE_CHECKING:
    from sqlalchemy import URL

    from chatserver.cluster.membership import Membership

__all__ = ["Options", "makeService"]


def makeService(options: Options, reactor: Any = None) -> IService:
    """Make the server that `options` describe. It listens already, and works once started.

    This is the last place where a mistake can be shown on the terminal: a daemon forks right
    after it. So everything that can fail is tried here, and paths are made absolute.

    :raises SystemExit: the server can't run like that. The text is one line that says why.
    """
    if reactor is None:
        from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

        steady(reactor)
    try:
        return _make_service(options, reactor)
    except OperatorError as error:
        raise SystemExit(f"asyncchat: {options.locate(error)}") from None


def _make_service(options: Options, reactor: Any) -> ChatService:
    _check_twistd(options)
    for name in ("log-file", "database"):
        check_own(options, name)
    log = _make_log(options, reactor)
    certificate = Renewal(certificate_files(options), reactor)
    if certificate.is_new and _is_daemon(options):
        fingerprint = certificate.present.fingerprint
        print(f"asyncchat: new certificate, SHA-256 fingerprint {fingerprint}", flush=True)

    database = parse_url(options["database"], os.getcwd())
    prepare(database)
    passwords = Passwords(options["argon2"])
    _try_hashing(passwords)
    accounts = Accounts(reactor, Store(make_engine(database)), passwords)
    files = raise_file_limit()
    limits = _connection_limits(options, files)
    authenticator = AccountAuthenticator(
        reactor,
        accounts,
        min_password_length=options["min-password-length"],
        registration_is_open=options["registration"] == OPEN,
        registrations=options["registrations"],
        failed_logins=options["failed-logins"],
    )
    writes = WriteBatch(reactor)
    cluster = None
    if options["cluster"]:
        cluster = _join_cluster(options, reactor, database, accounts, writes)
    online = (
        LocalDirectory(reactor, options["invitation-timeout"], options["invitations"])
        if cluster is None
        else cluster.directory
    )
    factory = ChatFactory(authenticator, online, reactor, limits)
    port = listen(reactor, options["port"], certificate, factory, writes)
    return ChatService(
        reactor=reactor,
        port=port,
        certificate=certificate,
        factory=factory,
        accounts=accounts,
        log=log,
        files=files,
        limits=limits,
        cluster=cluster,
        runs_under_twistd=_twistd(options) is not None,
    )


def _join_cluster(
    options: Options, reactor: Any, database: URL, accounts: Accounts, writes: WriteBatch
) -> Membership:
    membership = import_membership()
    membership.check_reactor(reactor)
    address = membership.check_cluster(options, database.get_backend_name())
    prepare_numbers(database)
    joined: Membership = membership.Membership(reactor, address, accounts, options, writes)
    return joined


def _connection_limits(options: Options, files: int | None) -> ConnectionLimits:
    """Return what `options` let connections take, in a process that may have so many `files`."""
    total = options["max-connections"]
    return ConnectionLimits(
        handshake_timeout=options["handshake-timeout"],
        login_timeout=options["login-timeout"],
        stall_timeout=options["stall-timeout"],
        drain_timeout=options["drain-timeout"],
        per_address=options["connections-per-address"],
        total=auto_connections(files) if total == AUTO else total,
    )


def _try_hashing(passwords: Passwords) -> None:
    try:
        passwords.hash(b"")
    except (HashingError, MemoryError) as error:
        raise OperatorError(f"--argon2: this machine can't do that: {error}") from None


def _make_log(options: Options, reactor: Any) -> ServerLog:
    """Return what writes the log: to its file, and under ``twistd -n`` to the terminal."""
    files: list[Writable] = []
    if options["log-file"] != NO_LOG_FILE:
        files.append(open_log_file(os.path.abspath(options["log-file"])))
    elif _is_daemon(options):
        raise OperatorError(f"--log-file {NO_LOG_FILE}: a daemon has no terminal; name a file")
    has_terminal = _twistd(options) is not None and not _is_daemon(options)
    return make_observer(
        files, options["log-lines"], reactor.seconds, sys.stdout if has_terminal else None
    )


def _check_twistd(options: Options) -> None:
    """Refuse what twistd would only do, or fail to do, after this server is put together.

    :raises OperatorError: an option of twistd's can't be had.
    """
    twistd = _twistd(options)
    if twistd is None:
        return
    for option in ("chroot", "uid", "gid"):
        if twistd.get(option) is not None:
            raise OperatorError(
                f"twistd --{option} takes effect after the server's files are opened; "
                "start twistd as the user, and where, the server is to run"
            )
    if _is_daemon(options) and None in (sys.stdin, sys.stdout, sys.stderr):
        # Files opened from here on would take their numbers, and twistd closes those.
        raise OperatorError("a standard stream is closed; start the daemon with </dev/null, or so")
    folder = twistd.get("rundir", ".")
    if not (os.path.isdir(folder) and os.access(folder, os.X_OK)):
        raise OperatorError(f"twistd --rundir {folder}: is no folder to enter; name another")
    pid_file = twistd.get("pidfile")
    if pid_file and not os.access(os.path.dirname(pid_file) or ".", os.W_OK | os.X_OK):
        raise OperatorError(
            f"{pid_file}: twistd can't write its pid file there; start it in another folder, "
            "or give twistd --pidfile, empty for none"
        )


def _twistd(options: Options) -> TwistedOptions | None:
    """Return twistd's own options, or None if the server is run by twist or by a test."""
    runner = options.parent
    return runner if runner is not None and "nodaemon" in runner else None


def _is_daemon(options: Options) -> bool:
    """Tell whether the process will leave the terminal."""
    twistd = _twistd(options)
    if twistd is None or not hasattr(os, "fork"):
        return False
    return not (twistd["nodaemon"] or twistd["debug"])


class ChatService(Service):
    """The running server.

    :param reactor: what it runs on
    :param port: where it listens
    :param certificate: what it shows to its clients
    :param factory: makes its connections
    :param accounts: who may use it
    :param log: where its log goes
    :param files: how many files the process may have open; None is any number
    :param limits: what connections may take
    :param runs_under_twistd: whether twistd runs it: then the server's log is the only one, and
        a second signal ends the process. Elsewhere the process has a log of its own, and the
        server's is added to it.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        port: IListeningPort,
        certificate: Renewal,
        factory: ChatFactory,
        accounts: Accounts,
        log: ServerLog,
        files: int | None,
        limits: ConnectionLimits,
        cluster: Membership | None,
        runs_under_twistd: bool,
    ) -> None:
        self._reactor = reactor
        self.port = port
        self._accept_backoff = AcceptBackoff(port, reactor)
        self._certificate = certificate
        self._factory = factory
        self._accounts = accounts
        self._observer = log
        self._files = files
        self._limits = limits
        self._cluster = cluster
        self._runs_under_twistd = runs_under_twistd
        self._systemd = Systemd(reactor)
        self._sighup = SighupHandler(reactor, [log.reopen, certificate.reload])
        self._flushing = LoopingCall(log.flush)
        self._flushing.clock = reactor

    def setServiceParent(self, parent: Any) -> None:
        """Join `parent`, an application. twistd takes its log observer from there."""
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]
        if self._runs_under_twistd and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)

    def startService(self) -> None:
        """Start the threads, and tell the log once the reactor runs."""
        super().startService()  # type: ignore[no-untyped-call]
        self._accounts.start()
        if self._cluster is not None:
            self._cluster.start()
        self._certificate.start()
        # Now and not once the reactor runs: a daemon's command returns in between, and whoever
        # gave it may send the signal at once, which without a handler ends the process.
        self._sighup.start()
        self._accept_backoff.start()
        self._flushing.start(LOG_FLUSH_INTERVAL, now=False)
        # Not before: twist begins its log in between, and tells it again what was told so far.
        self._reactor.callWhenRunning(self._begin_log)

    def _begin_log(self) -> None:
        """Begin the log with what clients need to know."""
        if not self._runs_under_twistd:
            globalLogPublisher.addObserver(self._observer)
        address = str(address_of(self.port.getHost()))
        self._log.info(
            "AsyncChatServer {version} listens on {address}", version=__version__, address=address
        )
        self._log_capacity()
        self._certificate.tell()
        self._systemd.ready(f"listens on {address}")

    def _log_capacity(self) -> None:
        """Log how many connections there may be, and warn if there can't be as many."""
        total = self._limits.total
        self._log.info(
            "Room for {total} connections, {files} files",
            total="any number of" if total is None else total,
            files="any number of" if self._files is None else self._files,
        )
        if self._files is not None and self._files < FEW_FILES:
            self._log.warn(
                "Only {files} files can be open: raise the limit (ulimit -Hn, or LimitNOFILE= in a "
                "systemd unit)",
                files=self._files,
            )
        possible = connections_for(self._files)
        if possible is not None and (total is None or total > possible):
            self._log.warn(
                "The file limit lets there be {possible} connections: raise it (ulimit -Hn, or "
                "LimitNOFILE= in a systemd unit), or lower --max-connections",
                possible=possible,
            )

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Stop: take no more clients, end the connections, then the threads."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._certificate.stop()
        self._systemd.stopping()
        if self._runs_under_twistd:
            # Whoever asks a second time does not want to wait: end the process at once.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
        self._accept_backoff.stop()
        try:
            yield maybeDeferred(self.port.stopListening)
            yield self._factory.shut_down()
            if self._cluster is not None:
                yield self._cluster.stop()
        finally:
            yield self._accounts.stop()
            self._systemd.stop()
            self._sighup.stop()  # Last: until then the signal would end what is under way.
            self._log.info("AsyncChatServer stopped")
            if self._flushing.running:
                self._flushing.stop()
            self._observer.flush(is_end=True)
            if not self._runs_under_twistd:
                globalLogPublisher.removeObserver(self._observer)

"""What ``asyncchat-admin check`` looks at: all that the server needs. It changes none of that."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from chatserver import database, listening
from chatserver.certificates import CertificateError, are_missing, check_others, read_certificate
from chatserver.descriptors import auto_connections, connections_for, file_limits
from chatserver.errors import OperatorError
from chatserver.files import check_own
from chatserver.limits import CERTIFICATE_WARNING_DAYS, FEW_FILES, PROBE_TIMEOUT
from chatserver.logfile import check_kind
from chatserver.optional import import_membership
from chatserver.options import AUTO, NO_LOG_FILE, Options
from chatserver.renewal import certificate_files


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about `subject`. `told` is one line, with what to do if it is not fine."""

    subject: str
    is_fine: bool
    told: str


def check_all(options: Options, reactor: Any) -> Iterator[Finding]:
    """Look at everything that `options` name, and yield what is found, one after the other.

    A file's path is relative to the current folder, as it is for the server.
    """
    checks: list[tuple[str, Callable[[Options], str]]] = [
        ("certificate", _certificate),
        ("database", _database),
        ("file limit", _file_limit),
        ("port", lambda options: _port(options, reactor)),
        ("log file", _log_file),
    ]
    if options["cluster"]:
        checks.append(("cluster", _cluster))
    for subject, check in checks:
        try:
            yield Finding(subject, True, check(options))
        except OperatorError as error:
            yield Finding(subject, False, str(options.locate(error)))


def _certificate(options: Options) -> str:
    files = certificate_files(options)
    path, key_path = files.certificate, files.private_key
    now = datetime.now(UTC)
    if are_missing(path, key_path):
        check_others(files.dh_params, files.client_ca, now)
        for each, option in ((path, "certificate"), (key_path, "private-key")):
            _check_writable(_existing_folder(each), os.W_OK | os.X_OK, option)
        return f"{path} will be made at the first start"
    certificate = files.load(now)
    days = (certificate.not_after - now).days
    mistakes = []
    if days < CERTIFICATE_WARNING_DAYS:
        mistakes.append(f"{path}: good for {days} more days only; put a new one there, and its key")
    if certificate.key_is_exposed:
        mistakes.append(f"{key_path}: can be read by others; take that away: chmod 600 {key_path}")
    if mistakes:
        raise OperatorError("; ".join(mistakes))
    return f"{path}, good for {days} more days"


def _database(options: Options) -> str:
    check_own(options, "database")
    url = database.parse_url(options["database"], os.getcwd())
    version = database.rehearse(url)
    where = database.describe(url)
    if version is None:
        return f"{where} will be created at the first start"
    newest = len(database.MIGRATIONS)
    if version < newest:
        return f"{where}, schema {version}, to be upgraded to {newest} at the next start"
    return f"{where}, schema {version}"


def _file_limit(options: Options) -> str:
    limits = file_limits()
    if limits is None:
        return "none on this system"
    soft, hard = limits
    possible = connections_for(hard)
    if possible is None:
        return f"{_count(soft)} open files, which can be raised without end"
    wanted = options["max-connections"]
    most = f"{possible} connections"
    if wanted == AUTO and possible > (auto := auto_connections(hard)):
        most = f"the {auto} connections of --max-connections {AUTO}"
    told = f"{_count(soft)} open files, which can be raised to {hard}: enough for {most}"
    least = wanted if isinstance(wanted, int) else connections_for(FEW_FILES)
    if least is not None and possible < least:
        raise OperatorError(
            f"{told}, but it should be for {least}; raise the limit: LimitNOFILE= in a"
            " systemd unit, or ulimit -Hn as root"
        )
    return told


def _cluster(options: Options) -> str:
    url = database.parse_url(options["database"], os.getcwd())
    address = import_membership().check_cluster(options, url.get_backend_name())
    return f"NATS answers at {', '.join(address.servers)}"


def _count(limit: int | None) -> str:
    return "any number of" if limit is None else str(limit)


def _port(options: Options, reactor: Any) -> str:
    port: str = options["port"]
    try:
        listening.rehearse(reactor, port)
    except listening.PortInUseError as error:
        if error.address is None:
            return f"{port} is in use; whether by the server can't be seen at such a port"
        path = certificate_files(options).certificate
        if not _has_certificate(error.address, path):
            raise OperatorError(
                f"--port {port}: in use, but no server with the certificate {path} answers"
                " there; stop what does, or give another --port"
            ) from None
        return f"{port} is in use, by a server with this certificate"
    return f"{port} is free"


def _has_certificate(address: tuple[str, int], path: str) -> bool:
    """Tell whether a server at `address` shows the first certificate in the file `path`.

    It does so before it asks for one of ours, should it do that (`--client-ca`).
    """
    try:
        shown = ssl.get_server_certificate(address, timeout=PROBE_TIMEOUT)
        return ssl.PEM_cert_to_DER_cert(shown) == read_certificate(path)
    except (OSError, CertificateError):
        return False


def _log_file(options: Options) -> str:
    if options["log-file"] == NO_LOG_FILE:
        return "none but the terminal: only for twistd -n"
    check_own(options, "log-file")
    path: str = os.path.abspath(options["log-file"])
    check_kind(path)
    folder = _existing_folder(path)
    if not os.path.isdir(folder):
        raise OperatorError(f"{folder}: is no folder for the log; name another file", "log-file")
    if os.path.exists(path):
        _check_writable(path, os.W_OK, "log-file")
    if os.path.isfile(path) or not os.path.exists(path):  # or it is never rotated: /dev/null say
        _check_writable(folder, os.W_OK | os.X_OK, "log-file")
    return path


def _check_writable(path: str, access: int, option: str) -> None:
    if not os.access(path, access):
        raise OperatorError(f"{path}: cannot be written; let the server's user write there", option)


def _existing_folder(path: str) -> str:
    """Return the folder of `path`, or of those above it the first that is there."""
    folder = os.path.dirname(path)
    while not os.path.lexists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return folder

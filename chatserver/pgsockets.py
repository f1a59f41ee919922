"""The sockets of connections to PostgreSQL, to break off one whose answer does not come.

The driver itself waits for ever, as long as the other side's machine, or a proxy, acknowledges what
it was sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa


class PostgreSQLSockets:
    """Keeps the sockets of all connections of `engine`, which must be new."""

    def __init__(self, engine: sa.Engine) -> None:
        self._sockets: dict[Any, socket.socket] = {}
        # Which connection a thread has used last, by the thread's number.
        self._in_use: dict[int, Any] = {}
        sa.event.listen(engine, "do_connect", self._connect)
        sa.event.listen(engine, "checkout", self._use)
        sa.event.listen(engine, "close", self._forget)
        # The pool tries a connection before it tells that it is checked out.
        dialect: Any = engine.dialect
        ping = dialect.do_ping

        def do_ping(connection: Any) -> Any:
            self._use(connection)
            return ping(connection)

        dialect.do_ping = do_ping

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._sockets)

    def break_off(self, thread: int) -> None:
        """Break the connection that `thread` uses: if it waits for an answer it fails at once.

        This does not block, and any thread may call it.
        """
        kept = self._sockets.get(self._in_use.get(thread))
        if kept is not None:
            with contextlib.suppress(OSError):  # It has just ended by itself.
                kept.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def limit(self, seconds: float) -> Iterator[threading.Event]:
        """Break off what this thread does meanwhile, once it has taken so long.

        What is yielded is set then.
        """
        thread, done, is_over = threading.get_ident(), threading.Event(), threading.Event()

        def watch() -> None:
            while not done.wait(seconds):  # More than once: it may connect only now.
                is_over.set()
                self.break_off(thread)

        watching = threading.Thread(target=watch, name="database limit", daemon=True)
        watching.start()
        try:
            yield is_over
        finally:
            done.set()
            watching.join()

    def _connect(self, dialect: Any, _record: object, where: Any, how: Any) -> Any:
        """Connect, and keep the socket, before SQLAlchemy asks the database anything."""
        connection = dialect.connect(*where, **how)
        # Of those that failed while they were set up, SQLAlchemy tells no end.
        for each in list(self._sockets):
            if each.closed:
                self._forget(each)
        # A descriptor of its own: the connection's may be closed, and be another's, at any time.
        self._sockets[connection] = socket.socket(fileno=os.dup(connection.fileno()))
        self._use(connection)
        return connection

    def _use(self, connection: Any, *_: object) -> None:
        self._in_use[threading.get_ident()] = connection

    def _forget(self, connection: Any, *_: object) -> None:
        if (kept := self._sockets.pop(connection, None)) is not None:
            kept.close()

"""``kill -9`` in the midst of registrations. A long run: ``python -m tests.test_kill 100``."""

from __future__ import annotations

import random
import sys
import threading
import time
from pathlib import Path

from chatserver.packets import Command
from tests.blocking import Client
from tests.processes import CHEAP, NO_RATES, OK, ProcessTestCase, Server, script, until


class KillTests(ProcessTestCase):
    """A server that is killed, whatever it is at."""

    rounds = 1

    def test_kill(self) -> None:
        """After the restart every name that was acknowledged is there, with its password."""
        folder = self.folder()
        acknowledged: list[bytes] = []
        command = [*script("twistd"), "-n", "asyncchat", "--port", "0", *CHEAP, *NO_RATES]
        server = self.serve(command, folder)
        for number in range(self.rounds):
            port = self.port_of(server)
            threads = [
                threading.Thread(target=self.register, args=(port, number, n, acknowledged))
                for n in range(4)
            ]
            before = len(acknowledged)
            for thread in threads:
                thread.start()
            until(lambda: len(acknowledged) >= before + 4, "four registrations")  # noqa: B023
            time.sleep(random.uniform(0, 0.05))  # any moment will do
            server.kill()
            for thread in threads:
                thread.join(10)
                self.assertFalse(thread.is_alive())
            server = self.serve(command, folder)
            port = self.port_of(server)
            for name in acknowledged[before:]:
                with Client(port) as client:
                    self.assertEqual(OK, client.ask(Command.LOGIN, name + b":some password"), name)
        port = self.port_of(server)
        for name in acknowledged:
            with Client(port) as client:
                self.assertEqual(OK, client.ask(Command.LOGIN, name + b":some password"), name)
        print(f"{len(acknowledged)} names acknowledged, all there after {self.rounds} kills")

    def serve(self, command: list[str], folder: Path) -> Server:
        """Start a server in `folder`, which may hold the files of one that was killed."""
        server = Server(command, folder)
        self.addCleanup(server.kill)
        return server

    def port_of(self, server: Server) -> int:
        """Return the port of `server`, once it listens."""
        return server.wait_for_port(lambda: server.terminal)

    def register(self, port: int, number: int, thread: int, acknowledged: list[bytes]) -> None:
        """Register one name after the other until the server is gone."""
        for n in range(10_000):
            name = b"kill-%d-%d-%d" % (number, thread, n)
            try:
                with Client(port) as client:
                    if client.ask(Command.REGISTER, name + b":some password") != OK:
                        return
            except (OSError, EOFError):
                return
            acknowledged.append(name)


if __name__ == "__main__":
    from twisted.trial import reporter, runner

    KillTests.rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    tests = runner.TestLoader().loadClass(KillTests)
    result = runner.TrialRunner(reporter.TreeReporter).run(tests)
    sys.exit(not result.wasSuccessful())

"""``asyncchat`` without a terminal: in a pipe, under cron."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from chatserver.packets import Command, Packet
from chatserver.terminal.ending import DONE, FAILED, NOT_ACCEPTED, NOT_DELIVERED, USAGE
from chatserver.terminal.pipe import Lines
from tests.blocking import Client
from tests.processes import OK, TIMEOUT, ProcessTestCase, Server, client_command, environment, until

PASSWORD = "correct horse"


class PipeTests(ProcessTestCase):
    """Lines in, lines out."""

    def setUp(self) -> None:
        self.base = Path(self.mktemp()).absolute()
        self.base.mkdir(parents=True)
        self.use(self.share())

    def use(self, server: Server) -> None:
        self.server = server
        self.port = server.wait_for_port(lambda: server.terminal)
        self.certificate = str(server.folder / "certs" / "server.crt")

    def address(self, name: str) -> str:
        return f"{name}@localhost:{self.port}"

    def begin(
        self, name: str, *options: str, stdin: Any = subprocess.PIPE, **more: str
    ) -> subprocess.Popen[bytes]:
        """Start the client as user `name`, in a session of its own: it has no terminal."""
        trust = () if "--fingerprint" in options else ("--trust-file", self.certificate)
        process = subprocess.Popen(
            [*client_command(), "--register", *trust, *options, self.address(name)],
            env=environment(self.base, **{"ASYNCCHAT_PASSWORD": PASSWORD, **more}),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # so that nothing of a line read ahead is lost
            start_new_session=True,
        )

        def end() -> None:
            process.kill()
            process.communicate()

        self.addCleanup(end)
        return process

    def finish(self, process: subprocess.Popen[bytes], typed: bytes = b"") -> tuple[int, str, str]:
        """Give `process` its input, and return its status and what it printed."""
        out, err = process.communicate(typed, TIMEOUT)
        return process.returncode, out.decode(), err.decode()

    def until_online(self, name: str) -> None:
        """Wait until the server has let `name` in, who must be a name of this test alone."""
        until(lambda: f"Logged in: '{name}'" in self.server.log, f"{name} online")

    def test_hello(self) -> None:
        """What is piped into one comes out of the other, line by line; both end well. Each line
        comes as soon as it is said.
        """
        holger = self.begin("holger", "--accept")
        self.until_online("holger")
        hella = self.begin("hella", "--to", "holger")
        hella.stdin.write("hello\n\ngrüß dich \x1b[1m\n".encode() + b"\xff no UTF-8")
        hella.stdin.flush()
        self.assertEqual(b"hella: hello\n", holger.stdout.readline())
        status, out, err = self.finish(hella)
        self.assertEqual((DONE, "", "asyncchat: in a chat with holger\n"), (status, out, err))
        status, out, err = self.finish(holger)
        self.assertEqual("hella: \nhella: grüß dich \\x1b[1m\nhella: \\xff no UTF-8\n", out)
        self.assertEqual(DONE, status, err)
        self.assertIn("hella has left", err)

    def test_many_lines(self) -> None:
        """Thousands of lines arrive, all and in order; a line that is too long, or can't be said,
        is told, and the others arrive all the same.
        """
        ben = self.begin("ben", "--accept", "anna")
        self.until_online("ben")
        anna = self.begin("anna", "--to", "ben")
        lines = [b"%d" % number for number in range(3000)]
        lines[1000:1000] = [b"x" * 200_000, b"/exit"]
        status, _, err = self.finish(anna, b"\n".join(lines) + b"\n")
        self.assertEqual(NOT_DELIVERED, status)
        self.assertIn("too long", err)
        self.assertIn("/exit can't be said", err)
        status, out, _ = self.finish(ben)
        self.assertEqual([f"anna: {number}" for number in range(3000)], out.splitlines())
        self.assertEqual(DONE, status)

    def test_not_accepted(self) -> None:
        """An invitation that does not become a chat is told, in a status of its own."""
        status, out, err = self.finish(self.begin("ada", "--to", "nobody"), b"hello\n")
        self.assertEqual((NOT_ACCEPTED, ""), (status, out))
        self.assertEqual("asyncchat: nobody: not online\n", err)
        with Client(self.port) as bert:
            self.assertEqual(OK, bert.ask(Command.REGISTER, b"bert:correct horse"))
            ada = self.begin("ada", "--to", "bert")
            self.assertEqual(Packet(Command.FIND_PEER, b"ada"), bert.receive())
            bert.send(Command.CHAT_DECLINE, b"ada")
            status, _, err = self.finish(ada, b"hello\n")
        self.assertEqual((NOT_ACCEPTED, "asyncchat: bert: declined\n"), (status, err))

    def test_only_her(self) -> None:
        """With --accept NAME nobody else's invitation is accepted; --forever goes on with the
        next, and says nothing: it would be heard by somebody else than was meant.
        """
        bill = self.begin("bill", "--accept", "amy", "--forever")
        bill.stdin.write(b"for whom?\n")
        self.until_online("bill")
        carol = self.begin("corinna", "--to", "bill")
        self.until_online("corinna")
        for text in (b"first\n", b"second\n"):
            status, out, _ = self.finish(self.begin("amy", "--to", "bill"), text)
            self.assertEqual((DONE, ""), (status, out))
        shown = [bill.stdout.readline(), bill.stdout.readline()]
        self.assertEqual([b"amy: first\n", b"amy: second\n"], shown)
        bill.send_signal(signal.SIGINT)
        status, _, err = self.finish(bill)
        self.assertEqual(128 + signal.SIGINT, status)
        self.assertIn("interrupted", err)
        self.assertEqual(NOT_ACCEPTED, self.finish(carol)[0])

    def test_partner_leaves(self) -> None:
        """If the partner leaves before all was said, that is told."""
        with Client(self.port) as bo:
            bo.ask(Command.REGISTER, b"bo:correct horse")
            ann = self.begin("ann", "--to", "bo")
            bo.receive()
            bo.ask(Command.CHAT_ACCEPT, b"ann")
            bo.send(Command.EXIT_CHAT)
            self.assertEqual(NOT_DELIVERED, ann.wait(TIMEOUT))
            self.assertIn("bo has left", self.finish(ann)[2])

    def test_server_ends(self) -> None:
        """A server that ends is told, in a sentence and a status."""
        self.use(self.start())
        bob = self.begin("bob", "--accept")
        self.until_online("bob")
        self.server.terminate()
        status, _, err = self.finish(bob)
        self.assertEqual((FAILED, "asyncchat: the server is going down\n"), (status, err))
        status, _, err = self.finish(self.begin("bob", "--accept"))
        self.assertEqual(FAILED, status)
        self.assertIn(f"nobody listens at localhost, port {self.port}", err)

    def test_refusals(self) -> None:
        """Whatever can't be done ends in one line that says why, and no question is asked."""
        fingerprint = ("--fingerprint", "ab" * 32)
        cases = (
            ("zoe", ("--to", "zed"), {"ASYNCCHAT_PASSWORD": ""}, FAILED, "no password"),
            ("zoe", (), {}, USAGE, "this is no terminal"),
            ("zoe", ("--to", "zed", *fingerprint), {}, FAILED, "does not show the certificate"),
            ("zo e", ("--to", "zed"), {}, FAILED, "does not take such a name"),
            ("zoe", ("--to", "zed", "--save", "x"), {}, USAGE, "--save"),
        )
        started = [self.begin(name, *options, **more) for name, options, more, _, _ in cases]
        for process, (name, options, _, status, text) in zip(started, cases, strict=True):
            with self.subTest(name=name, options=options):
                got, out, err = self.finish(process)
                self.assertEqual((status, ""), (got, out), err)
                self.assertIn(text, err)
                self.assertRegex(err, r"\Aasyncchat: [^\n]*\n\Z")

    def test_closed_streams(self) -> None:
        """It works, or ends in a sentence, also where standard streams are closed."""
        command = " ".join([*client_command(), "--trust-file", self.certificate])
        started = []
        for number, streams in enumerate(("<&-", ">&-", "2>&-", "<&- >&- 2>&-")):
            address = self.address(f"cleo{number}")
            process = subprocess.Popen(
                ["sh", "-c", f"{command} --register --to nobody {address} {streams}"],
                env=environment(self.base, ASYNCCHAT_PASSWORD=PASSWORD),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            self.addCleanup(process.kill)
            started.append(process)
        for process in started:
            _, err = process.communicate(timeout=TIMEOUT)
            self.assertEqual(NOT_ACCEPTED, process.returncode, err)
            self.assertNotIn(b"Traceback", err)

    def test_nohup(self) -> None:
        """A signal that is ignored from the start stays ignored."""
        with Client(self.port) as bob:
            bob.ask(Command.REGISTER, b"benno:correct horse")
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            try:
                alice = self.begin("agnes", "--accept")
            finally:
                signal.signal(signal.SIGHUP, signal.SIG_DFL)
            self.until_online("agnes")
            alice.send_signal(signal.SIGHUP)
            self.assertEqual(Packet(Command.ACK, b"SENT"), bob.ask(Command.CHAT_REQUEST, b"agnes"))
            self.assertEqual(Packet(Command.CHAT_ACCEPT, b"agnes"), bob.receive())
            alice.terminate()
            self.assertEqual(128 + signal.SIGTERM, self.finish(alice)[0])

    def test_input_that_fails(self) -> None:
        """Input that can't be read is told in a sentence."""
        with Client(self.port) as bob:
            bob.ask(Command.REGISTER, b"bruno:correct horse")
            output = self.base / "output"
            with output.open("wb") as only_for_writing:
                alice = self.begin("anton", "--accept", stdin=only_for_writing)
            self.until_online("anton")
            bob.ask(Command.CHAT_REQUEST, b"anton")
            self.assertEqual(Packet(Command.CHAT_ACCEPT, b"anton"), bob.receive())
            status, _, err = self.finish(alice)
            self.assertEqual(FAILED, status)
            self.assertIn("asyncchat: standard input or output: Bad file descriptor", err)
            self.assertNotIn("Traceback", err)

    def test_stuck_output(self) -> None:
        """SIGTERM ends it, some seconds later, also when it is stuck in writing its output."""
        with Client(self.port) as bob:
            bob.ask(Command.REGISTER, b"bibi:correct horse")
            alice = self.begin("alva", "--accept")
            self.until_online("alva")
            bob.ask(Command.CHAT_REQUEST, b"alva")
            bob.receive()
            for _ in range(4):  # more than a pipe holds
                bob.send(Command.MESSAGE, b"x" * 60_000)
            until(lambda: len(select.select([alice.stdout], [], [], 0)[0]) > 0, "output")
            time.sleep(0.2)
            alice.terminate()
            self.assertEqual(128 + signal.SIGTERM, alice.wait(TIMEOUT))

    def test_unknown_certificate(self) -> None:
        """In a pipe a certificate that nobody vouches for is refused, with its fingerprint."""
        process = subprocess.run(
            [*client_command(), "--accept", self.address("alice")],
            env=environment(self.base, ASYNCCHAT_PASSWORD=PASSWORD),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
            timeout=TIMEOUT,
            check=False,
        )
        self.assertEqual(FAILED, process.returncode)
        self.assertRegex(process.stderr.decode(), r"give --fingerprint (?:[0-9A-F]{2}:){31}..\n\Z")

    def test_output_that_ends(self) -> None:
        """When nobody reads the output any more it ends; a full disk is told in a sentence."""
        for output, text in ((None, ""), ("/dev/full", "No space left on device")):
            if output is not None and not os.path.exists(output):
                continue
            with Client(self.port) as bodo:
                bodo.ask(Command.REGISTER, b"bodo:correct horse")
                bodo.ask(Command.LOGIN, b"bodo:correct horse")
                trust = ("--trust-file", self.certificate, "--accept")
                read, write = os.pipe()
                if output is not None:
                    os.close(write)
                    write = os.open(output, os.O_WRONLY)
                os.close(read)
                process = subprocess.Popen(
                    [*client_command(), "--register", *trust, self.address("aida")],
                    env=environment(self.base, ASYNCCHAT_PASSWORD=PASSWORD),
                    stdin=subprocess.DEVNULL,
                    stdout=write,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
                os.close(write)
                self.addCleanup(process.kill)
                while bodo.ask(Command.CHAT_REQUEST, b"aida") != Packet(Command.ACK, b"SENT"):
                    time.sleep(0.05)
                self.assertEqual(Packet(Command.CHAT_ACCEPT, b"aida"), bodo.receive())
                bodo.ask(Command.MESSAGE, b"hello")
                err = process.communicate(timeout=TIMEOUT)[1].decode()
                self.assertEqual(FAILED, process.returncode, err)
                self.assertIn(text, err)
                self.assertNotIn("Traceback", err)
                self.assertNotIn("Exception", err)


class LinesTests(SynchronousTestCase):
    """The lines of the input."""

    def test_left_over(self) -> None:
        """A line that was read, and that nobody took, is left over; the end of the input is not."""
        for written, is_left_over in ((b"one\ntwo\n", True), (b"one\n", False)):
            source, target = os.pipe()
            self.addCleanup(os.close, source)
            os.write(target, written)
            os.close(target)

            async def play(source: int = source) -> bool:
                lines = Lines(source)
                self.assertFalse(lines.is_left_over())
                self.assertEqual(b"one", await lines.next())
                while lines._queue.empty():
                    await asyncio.sleep(0.001)
                return lines.is_left_over()

            self.assertEqual(is_left_over, asyncio.run(play()))

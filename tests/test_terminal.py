"""``asyncchat`` in a real terminal, beside a real server."""

from __future__ import annotations

import re
import signal
from datetime import UTC, datetime
from pathlib import Path

from chatserver.certificates import create_self_signed
from chatserver.packets import Command, Packet
from tests.blocking import Client
from tests.processes import OK, ProcessTestCase, Server, until

try:
    from tests.terminals import Terminal
except ImportError as error:  # pexpect needs POSIX
    missing = str(error)
else:
    missing = ""

PASSWORD = "correct horse"


class TerminalTestCase(ProcessTestCase):
    """A test with a server and terminals."""

    if missing:
        skip = missing

    def setUp(self) -> None:
        self.base = Path(self.mktemp()).absolute()

    def serve(self) -> Server:
        """Start a server of the test's own, and wait for it."""
        return self.use(self.start())

    def use(self, server: Server) -> Server:
        self.port = server.wait_for_port(lambda: server.terminal)
        self.certificate = str(server.folder / "certs" / "server.crt")
        return server

    def open(self, name: str, *options: str, **more: str) -> Terminal:
        """Open a terminal in which the client is started as user `name`."""
        address = f"{name}@localhost:{self.port}"
        terminal = Terminal(self.base / name, *options, address, **more)
        self.addCleanup(terminal.close)
        return terminal

    def enter(self, name: str, *options: str, **more: str) -> Terminal:
        """Open a terminal in which the user `name` is logged in."""
        more.setdefault("ASYNCCHAT_PASSWORD", PASSWORD)
        return self.open(name, "--register", "--trust-file", self.certificate, *options, **more)

    def chat(self) -> tuple[Terminal, Terminal]:
        """Return the terminals of alice and bob, who are in a chat."""
        alice, bob = self.enter("alice"), self.enter("bob")
        alice.wait_for("You are alice")
        bob.wait_for("You are bob")
        alice.type("/invite bob\n")
        bob.wait_for("alice invites you: /accept alice")
        bob.type("/accept\n")
        alice.wait_for("You are in a chat with bob")
        bob.wait_for("You are in a chat with alice")
        return alice, bob

    def partner_of(self, terminal: Terminal, name: bytes) -> Client:
        """Return a client that is in a chat with the user of `terminal`, bob, and has registered
        as `name`, which must be a name of this test alone.
        """
        terminal.wait_for("You are bob")
        partner = self.connect(self.port)
        self.assertEqual(OK, partner.ask(Command.REGISTER, name + b":correct horse"))
        self.assertEqual(Packet(Command.ACK, b"SENT"), partner.ask(Command.CHAT_REQUEST, b"bob"))
        terminal.wait_for(f"{name.decode()} invites you")
        terminal.type("/accept\n")
        terminal.wait_for(f"You are in a chat with {name.decode()}")
        self.assertEqual(Packet(Command.CHAT_ACCEPT, b"bob"), partner.receive())
        return partner


class ChatTests(TerminalTestCase):
    """Two people."""

    def test_from_nothing_to_a_chat(self) -> None:
        """With the README in hand: trust the certificate, register, invite, accept, talk both
        ways, leave. Nothing of a password is shown or kept.
        """
        server = self.use(self.share())
        newanna, newben = self.open("newanna"), self.open("newben")
        for terminal in (newanna, newben):
            terminal.wait_for("do you trust it from now on")
            self.assertIn(self.fingerprint(server), re.sub(r"\s", "", terminal.text))
            terminal.type("y\n")
            terminal.wait_for("Password for ")
            terminal.type(PASSWORD + "\n")
            terminal.wait_for("Make a new account")
            terminal.type("y\n")
            terminal.wait_for("The password again:")
            terminal.type(PASSWORD + "\n")
            terminal.wait_for("You are ")
        newanna.type("/invite newben\n")
        newben.wait_for("newanna invites you: /accept newanna or /decline newanna")
        self.assertIn(b"\a", newben.output)
        newben.type("/acc\t\n")
        newben.wait_for("You are in a chat with newanna")
        newanna.wait_for("You are in a chat with newben")
        newben.type("hello, newanna\n")
        newanna.wait_for(r"\d\d:\d\d newben: hello, newanna")
        newanna.type("hello, newben\n")
        newben.wait_for(r"\d\d:\d\d newanna: hello, newben")
        newanna.wait_until(lambda: "delivered" in newanna.last_line, "delivered")
        self.assertEqual(
            newanna.last_line,
            f"in a chat with newben | 0 unread | delivered | newanna@localhost:{self.port}",
        )
        newanna.type("/leave\n")
        newben.wait_for("newanna has left the chat")
        newanna.wait_for("You have left the chat with newben")
        for terminal in (newanna, newben):
            terminal.type("/quit\n")
            self.assertEqual(0, terminal.wait_for_end())
            self.assertIn("Goodbye.", terminal.text)
            self.assertNotIn(PASSWORD, terminal.text)
            self.assertNotIn(PASSWORD.encode(), terminal.output)
        files = [path for path in self.base.rglob("*") if path.is_file()]
        self.assertEqual({"known_hosts", "history"}, {path.name for path in files})
        for path in files:
            self.assertNotIn(PASSWORD, path.read_text())
            self.assertEqual(0o600, path.stat().st_mode & 0o777, path)

    def fingerprint(self, server: Server) -> str:
        return re.search(r"fingerprint (\S+)", server.log)[1].rstrip(",")

    def test_line_that_is_typed(self) -> None:
        """Messages arrive above the line that is being typed, which stays as it is; they count as
        unread until a key is pressed.
        """
        self.use(self.share())
        bob = self.enter("bob")
        alex = self.partner_of(bob, b"alex")
        bob.type("half a sen")
        bob.wait_for("> half a sen")
        for number in range(30):
            self.assertEqual(OK, alex.ask(Command.MESSAGE, f"message {number}".encode()))
        bob.wait_for("message 29")
        bob.wait_until(lambda: "30 unread" in bob.last_line, "30 unread")
        shown = re.findall(r"alex: message (\d+)", bob.text)
        self.assertEqual([str(number) for number in range(30)], shown)
        bob.type("tence\n")
        bob.wait_for("bob: half a sentence")
        self.assertEqual(Packet(Command.MESSAGE, b"bob: half a sentence"), alex.receive())
        bob.wait_until(lambda: "0 unread" in bob.last_line, "0 unread")

    def test_paste(self) -> None:
        """A long paste of several lines arrives whole, as one message; one that is too long is not
        sent, and stays to be edited.
        """
        self.use(self.share())
        alice, bob = self.chat()
        lines = [f"line {number} " + "x" * 60 for number in range(100)]
        alice.paste("\n".join(lines))
        alice.type("\n")
        bob.wait_for("line 99 x+\n")
        seen = re.findall(r"line (\d+) ", bob.text)
        self.assertEqual([str(number) for number in range(100)], seen)
        self.assertEqual(1, len(re.findall("alice: line", bob.text)))
        alice.paste("y" * 65_600)
        alice.type("\n")
        alice.wait_for("(?s)Too long: 65600 bytes, and 65528 fit. Nothing was sent.*yyy")
        alice.type("\x15" + "short\n")  # Ctrl-U
        bob.wait_for("alice: short")
        self.assertNotIn("yyy", bob.text)

    def test_escape_sequences(self) -> None:
        """What a peer sends can't drive the terminal: control characters show as escapes, bytes
        that are not UTF-8 too. Nor can it be made to look like a line of somebody else: where it
        is folded it is indented.
        """
        self.use(self.share())
        bob = self.enter("bob")
        mallory = self.partner_of(bob, b"mallory")
        evil = "\x1b[2J\x1b]0;owned\a\x9b31m\x08\u202egnp.exe\r".encode() + b"\xff\xfe fin"
        mallory.ask(Command.MESSAGE, evil)
        bob.wait_for("fin")
        self.assertIn(
            r"mallory: \x1b[2J\x1b]0;owned\x07\x9b31m\x08\u202egnp.exe\r\xff\xfe fin",
            bob.text.replace("\n", ""),
        )
        for sequence in (b"\x1b]0;owned", "\u202e".encode(), "\x9b".encode()):
            self.assertNotIn(sequence, bob.output)
        mallory.ask(Command.MESSAGE, b"ok" + b" " * 70 + b"12:00 bob: I owe you 100")
        bob.wait_for("I owe you 100")
        self.assertRegex(bob.text, r"mallory: ok\n {6}12:00 bob: I owe you 100")

    def test_slashes(self) -> None:
        """What is pasted is said as it is, slashes and all; two slashes typed say one. An escape
        sequence that is typed harms nothing.
        """
        self.use(self.share())
        bob = self.enter("bob")
        sila = self.partner_of(bob, b"sila")
        for pasted, shown in (
            ("// comment\nint main() {}", r"bob: // comment\n +int main"),
            ("/quit\nis what it says", r"bob: /quit\n +is what"),
        ):
            bob.paste(pasted)
            bob.type("\n")
            bob.wait_for(shown)
            self.assertEqual(Packet(Command.MESSAGE, f"bob: {pasted}".encode()), sila.receive())
        bob.type("//etc\n")
        bob.wait_for("bob: /etc")
        self.assertEqual(Packet(Command.MESSAGE, b"bob: /etc"), sila.receive())
        bob.type("\x1b[31mred\n")
        bob.wait_for("bob: .*red")
        said = sila.receive()
        assert said is not None
        self.assertRegex(said.body, rb"bob: .*red")

    def test_peer_is_killed(self) -> None:
        """A partner whose program is killed has left, and one can go on with others."""
        self.use(self.share())
        alice, bob = self.chat()
        bob.signal(signal.SIGKILL)
        bob.wait_for_end()
        alice.wait_for("bob has left the chat")
        alice.type("anybody?\n")
        alice.wait_for("You're not in a chat, so nobody heard that")
        alice.wait_for("> anybody\\?")

    def test_resize(self) -> None:
        """In a window that becomes narrow and wide again all still works."""
        self.use(self.share())
        bob = self.enter("bob")
        rhea = self.partner_of(bob, b"rhea")
        bob.resize(30, 10)
        rhea.ask(Command.MESSAGE, b"a message that is longer than thirty columns")
        bob.wait_for("(?s)a message that is.*longer.*thirty.*columns")
        bob.resize(100, 30)
        bob.type("seen\n")
        bob.wait_for("bob: seen")
        self.assertEqual(Packet(Command.MESSAGE, b"bob: seen"), rhea.receive())

    def test_no_color(self) -> None:
        """With NO_COLOR nothing has a colour; without it names have one."""
        self.use(self.share())
        plain, coloured = self.enter("alice", NO_COLOR="1"), self.enter("bob")
        for terminal in (plain, coloured):
            terminal.wait_for("/help shows more")
        colour = re.compile(rb"\x1b\[(?:\d+;)*[349]\d(?:;\d+)*m")
        self.assertIsNone(colour.search(plain.output))
        self.assertIsNotNone(colour.search(coloured.output))

    def test_history(self) -> None:
        """What was typed comes back in the next run, and names met complete."""
        self.use(self.share())
        alice, _ = self.chat()
        alice.type("/quit\n")
        alice.wait_for_end()
        again = self.enter("alice")
        again.wait_for("You are alice")
        again.type("/invite b\t\n")
        again.wait_for("Invited bob")
        again.type("\x1b[A\x1b[A\x1b[A")
        again.wait_for("> /invite bob")

    def test_commands(self) -> None:
        """Every command does what /help says, or tells what is wrong; nothing typed is lost."""
        self.use(self.share())
        saved = self.base / "saved"
        alice = self.enter("alice", "--save", str(saved))
        bob = self.enter("bob", "--accept", "carol")
        alice.wait_for("You are alice")
        bob.wait_for("You are bob")
        for typed, shown in (
            ("/help\n", "(?s)/withdraw .*end the program"),
            ("/nonsense\n", "(?s)There is no command /nonsense.*> /nonsense"),
            ("\x15/invite\n", "Usage: /invite NAME"),
            ("/invite nobody\n", "nobody: not online"),
            ("/invite alice\n", "alice: that is you"),
            ("/accept\n", "Nobody has invited you"),
            ("/accept zed\n", "zed: there is no such invitation"),
            ("/leave\n", "You're not in a chat"),
            ("/withdraw\n", "You have invited nobody"),
            ("/invite bob\n", "Invited bob"),
            ("/withdraw\n", "Withdrew the invitation to bob"),
        ):
            alice.type(typed)
            alice.wait_for(shown)
        bob.type("/accept\n")
        bob.wait_for("alice: that invitation is gone")
        alice.type("/invite bob\n")
        bob.wait_until(lambda: bob.text.count("alice invites you") == 2, "invited again")
        bob.type("/decline\n")
        alice.wait_for("bob: declined")
        carol = self.enter("carol", "--to", "bob")
        carol.wait_for("You are in a chat with bob")
        alice.type("/invite bob\n")
        alice.wait_for("bob: busy")
        carol.type("/invite alice\n")
        carol.wait_for("You are in a chat with bob: /leave it first")
        carol.type("//exit\n")
        carol.wait_for("(?s)/exit can't be said.*> //exit")
        carol.type("\x15//etc/passwd\n")
        bob.wait_for("carol: /etc/passwd")
        carol.type("/exit\n")
        bob.wait_for("carol has left the chat")
        alice.type("/quit\n")
        alice.wait_for_end()
        self.assertIn("* Invited bob.", saved.read_text())
        self.assertEqual(0o600, saved.stat().st_mode & 0o777)

    def test_no_address(self) -> None:
        """Without an address it asks for one, until it is one."""
        self.use(self.share())
        terminal = Terminal(
            self.base / "asked",
            *("--register", "--trust-file", self.certificate),
            ASYNCCHAT_PASSWORD=PASSWORD,
        )
        self.addCleanup(terminal.close)
        terminal.wait_for("Your name and server")
        terminal.type("nonsense\n")
        terminal.wait_for("(?s)'nonsense' is not an address.*Your name and server")
        terminal.type(f"asked@localhost:{self.port}\n")
        terminal.wait_for("You are asked")
        terminal.wait_until(
            lambda: terminal.last_line.endswith(f"asked@localhost:{self.port}"), "the address"
        )

    def test_passwords(self) -> None:
        """A wrong password is asked for again, three times; a new account's is asked for twice,
        and must be one that the server takes.
        """
        self.use(self.share())
        with Client(self.port) as client:
            client.ask(Command.REGISTER, b"erin:correct horse")
        terminal = self.open("erin", "--trust-file", self.certificate)
        for typed, shown in (
            ("wrong horse\n", "There is no account erin with that password"),
            ("y\n", "The password again"),
            ("wrong horse\n", "there is an account erin, with another password"),
            (PASSWORD + "\n", "You are erin"),
        ):
            terminal.type(typed)
            terminal.wait_for(shown)
        terminal = self.open("newerin", "--trust-file", self.certificate)
        for typed, shown in (
            ("short\n", "There is no account newerin"),
            ("y\n", "The password again"),
            ("other\n", "The two differ"),
            ("short\n", "(?s)differ.*There is no account"),
            ("y\n", "(?s)again.*again"),
            ("short\n", "does not take such a name or password"),
            ("n\n", "(?s)take such.*There is no account"),
            ("n\n", "wrong password"),
        ):
            terminal.type(typed)
            terminal.wait_for(shown)
        self.assertEqual(1, terminal.wait_for_end())


class EndTests(TerminalTestCase):
    """Each end is a sentence."""

    def test_keys(self) -> None:
        """Ctrl-C and Ctrl-D end the program."""
        self.use(self.share())
        for name, key in (("alice", "\x03"), ("bob", "\x04")):
            terminal = self.enter(name)
            terminal.wait_for("\n>")
            terminal.type(key)
            self.assertEqual(0, terminal.wait_for_end())
            self.assertIn("Goodbye.", terminal.text)

    def test_replaced(self) -> None:
        """A login elsewhere ends the older one, which does not come back by itself."""
        self.use(self.share())
        older = self.enter("alice")
        older.wait_for("You are alice")
        newer = self.enter("alice")
        newer.wait_for("You are alice")
        self.assertEqual(1, older.wait_for_end())
        self.assertIn("Disconnected: you have logged in elsewhere", older.text)

    def test_server_ends(self) -> None:
        """A server that goes down, or is killed, is told in a sentence."""
        for end, sentence in (
            (Server.terminate, "Disconnected: the server is going down."),
            (Server.kill, "Disconnected: the connection to the server is lost."),
        ):
            server = self.serve()
            terminal = self.enter("alice")
            terminal.wait_for("You are alice")
            terminal.type("half typed")
            terminal.wait_for("half typed")
            end(server)
            self.assertEqual(1, terminal.wait_for_end())
            self.assertIn(sentence, terminal.text)

    def test_sigterm(self) -> None:
        """SIGTERM ends it, and leaves the terminal as it was."""
        self.use(self.share())
        terminal = self.enter("alice")
        terminal.wait_for("You are alice")
        terminal.signal(signal.SIGTERM)
        self.assertEqual(128 + signal.SIGTERM, terminal.wait_for_end())
        self.assertIn("asyncchat: terminated", terminal.text)

    def test_changed_certificate(self) -> None:
        """A server that shows another certificate than before is refused, by file and line."""
        server = self.serve()
        terminal = self.open("alice")
        terminal.wait_for("do you trust it")
        terminal.type("y\n")
        terminal.wait_for("Password for alice")
        terminal.type("\x04")
        self.assertEqual(130, terminal.wait_for_end())
        files = server.folder / "certs"
        create_self_signed(str(files / "new.crt"), str(files / "new.key"), datetime.now(UTC))
        for kind in ("crt", "key"):
            (files / f"new.{kind}").replace(files / f"server.{kind}")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "Certificate reloaded" in server.log, "the new certificate")
        terminal = self.open("alice")
        self.assertEqual(1, terminal.wait_for_end())
        text = re.sub(r"\s+", "", terminal.text)
        self.assertIn("thecertificateoflocalhosthaschanged", text)
        self.assertIn("known_hosts,line1", text)

    def test_wrong_fingerprint(self) -> None:
        """A certificate that is not the one named is refused; the one named is taken."""
        server = self.use(self.share())
        terminal = self.open("alice", "--fingerprint", "ab" * 32)
        self.assertEqual(1, terminal.wait_for_end())
        self.assertIn("does not show the certificate", terminal.text)
        right = re.search(r"fingerprint (\S+),", server.log)[1].replace(":", "").lower()
        terminal = self.open("alice", "--fingerprint", right)
        terminal.wait_for("Password for alice")

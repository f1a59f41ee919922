"""Random conversations, over whole connections in memory, beside the model of the rules.

The suite plays a few, and those in `tests/corpus`; `tests.fuzz` plays millions. A seed plays the
same steps each time, however many of them.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from unittest.mock import patch

from twisted.trial.unittest import TestCase

from chatserver import users
from chatserver.limits import LOGIN_TIMEOUT
from chatserver.packets import MAGIC, Command, Packet, encode
from tests.memory import MemoryClient, MemoryServer
from tests.memory_cluster import MemoryCluster
from tests.model import DECLINING, INVITING, LONGEST_BODY, Client, Model
from tests.scripts import NAMES

SEEDS = range(1, 7)
STEPS = 300
CORPUS = Path(__file__).parent / "corpus"
"""Each file is a seed and how many steps of it to play, in one line."""

SHOWN_STEPS = 12
"""How many of the last steps a failure shows."""

USERS = (b"alice", b"bob", b"carol", b"dave", b"erin", b"frank")
PASSWORD = b"password"
INVITATION_TIMEOUT = 8.0

OUTSIDE_CHAT = {
    Command.REGISTER: 1,
    Command.LOGIN: 1,
    Command.MESSAGE: 1,
    Command.ACK: 3,
    Command.ERROR: 3,
    Command.FIND_PEER: 8,
    Command.CHAT_REQUEST: 8,
    Command.CHAT_ACCEPT: 4,
    Command.CHAT_DECLINE: 5,
    Command.EXIT_CHAT: 1,
    0x00: 0.3,
    0x10: 0.3,
    0xFF: 0.3,
}
"""How often each command is sent, one against the other. The last three are unknown."""

IN_CHAT = OUTSIDE_CHAT | {Command.MESSAGE: 20, Command.EXIT_CHAT: 8}

MOST_UNREAD = 40_000
"""Bytes that may wait for one who does not read. At 64 KiB the server would do something."""

MOST_SILENCE = 30.0
"""Seconds that somebody may be without reading. Some more, and the server would cut them off."""

NO_USERS = (b"", b"", b"nobody", b"\xff")
"""Names that nobody has. To the commands that answer an invitation, empty is the newest."""


class Player:
    """Plays random steps to a server and to the model, and compares what is heard.

    The model knows one machine. In a cluster it is right as long as everything has come to rest
    before the next thing happens: so a client sends one packet at a time there.

    :param source: what all that is random follows from
    :param server: where the steps are played. It is new, its invitations end after
        `INVITATION_TIMEOUT`, and as many may wait at one user as `room` says.
    """

    def __init__(self, source: Random, server: MemoryServer) -> None:
        self._random = source
        self._server = server
        self._most_packets = 1 if isinstance(server, MemoryCluster) else 20
        self._users = USERS[: self._random.randint(3, len(USERS))]
        self.room = self._random.choice([1, 2, 3, 32])
        self._model = Model(self.room, INVITATION_TIMEOUT, PASSWORD, LOGIN_TIMEOUT)
        self._clients: dict[int, tuple[MemoryClient, Client]] = {}
        self._next_number = 1
        self._left: set[int] = set()
        self._silent: dict[int, float] = {}
        """Who does not read just now, and for how many seconds."""
        self._queued: dict[int, deque[tuple[int, bytes] | None]] = {}
        """What clients sent that waits behind a login; None stands for what is no packet."""
        self._undecided: list[int] = []
        """Whose logins are being worked on, as the server began them."""
        self.packets = 0
        """How many packets the clients have sent."""
        self.steps: list[str] = [f"{len(self._users)} users, room for {self.room} invitations"]
        """What was played, for people to read."""

    # --- Steps ----------------------------------------------------------------------------

    def step(self) -> None:
        """Play one step."""
        # Two more than there are users: some are replaced, and some log in late.
        may_connect = len(self._clients) < len(self._users) + 2
        is_missed = len(self._model.online) < len(self._users)
        actions: dict[Callable[[], None], int] = {
            self._log_in: (20 if is_missed else 3) if may_connect else 0,
            self._disconnect: 2,
            self._send_bad_packet: 1,
            self._let_time_pass: 8,
            self._stop_reading: 3,
            self._read_again: 3 if self._silent else 0,
            self._slow_down: 0 if self._server.authenticator.is_slow else 2,
            self._decide: 12 if self._undecided else 0,
            self._come_without_tls: 1,
            self._send: 80,
        }
        (action,) = self._random.choices(list(actions), list(actions.values()))
        if self._clients:
            action()
        else:
            self._log_in()

    def compare(self) -> list[str]:
        """Return the differences in what the clients heard since the last time."""
        differences = []
        self._let_full_ones_read()
        for number, (client, modelled) in list(self._clients.items()):
            if number in self._silent and number not in self._left:
                continue  # It hears later what it has to hear by then.
            heard = [(packet.command, packet.body) for packet in client.take()]
            expected, modelled.heard = modelled.heard, []
            # Who leaves can't count on the last answers.
            is_same = heard == (expected[: len(heard)] if number in self._left else expected)
            if not is_same:
                differences.append(
                    f"{self._who(number)} heard {describe(*heard)}, not {describe(*expected)}"
                )
            elif number not in self._left and client.has_ended != modelled.is_over:
                differences.append(f"{self._who(number)}: has_ended is {client.has_ended}")
            if modelled.is_over:
                self._forget(number)
        return differences

    def end(self) -> None:
        """Let all clients disconnect."""
        for number in list(self._clients):
            self._disconnect(number)
        while self._undecided:  # The outcome of a login whose connection is gone is dropped.
            self._decide()

    def shut_down(self) -> None:
        """Let the server go down: everybody hears it, and nothing else. They close then."""
        while self._undecided:
            self._decide()
        for number in list(self._silent):
            self._read_again(number)
        self._note("the server goes down")
        self._model.shut_down([modelled for _, modelled in self._clients.values()])
        self._server.shut_down()
        self._server.run()

    def _log_in(self) -> None:
        """Connect a client, and mostly log in, mostly somebody who is not online."""
        number = self._next_number
        self._next_number += 1
        self._clients[number] = self._server.connect(), self._model.connect()
        self._note(f"client {number} connects")
        if self._is_likely(0.9):
            absent = [name for name in self._users if name not in self._model.online]
            names = absent if absent and self._is_likely(0.8) else self._users
            name = self._random.choice(names)
            self._write(number, [(Command.LOGIN, name + b":" + PASSWORD)])

    def _stop_reading(self) -> None:
        """Somebody reads no more, for a while."""
        number = self._any_client()
        if number not in self._silent:
            self._note(f"{self._who(number)} reads no more")
            self._silent[number] = 0.0
            self._clients[number][0].stop_reading()

    def _read_again(self, number: int | None = None) -> None:
        """Somebody who did not read reads again."""
        number = self._random.choice(list(self._silent)) if number is None else number
        self._note(f"{self._who(number)} reads again")
        del self._silent[number]
        self._clients[number][0].start_reading()

    def _let_full_ones_read(self) -> None:
        """Let those read for whom the server would do something soon, or has ended."""
        for number, seconds in list(self._silent.items()):
            modelled = self._clients[number][1]
            waiting = sum(len(body) + 40 for _, body in modelled.heard)
            if waiting > MOST_UNREAD or seconds > MOST_SILENCE or modelled.is_over:
                self._read_again(number)

    def _slow_down(self) -> None:
        """From now on logins take their time."""
        self._note("logins take their time")
        self._server.authenticator.is_slow = True

    def _decide(self) -> None:
        """The login that was begun first is decided. If it was the last, logins are quick again."""
        number = self._undecided.pop(0)
        self._server.authenticator.is_slow = bool(self._undecided) or self._is_likely(0.5)
        self._server.authenticator.decide()
        if number in self._clients:
            self._note(f"the login of {self._who(number)} is decided")
            _, modelled = self._clients[number]
            login = self._queued[number].popleft()
            assert login is not None
            self._model.packet(modelled, *login)
            self._model_queued(number)
        self._server.run()

    def _come_without_tls(self) -> None:
        """Somebody connects who does not speak TLS, or stops in the midst of the handshake."""
        client = self._server.connect(handshake=False)
        garbage = self._random.choice([b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02", MAGIC])
        self._note(f"somebody connects and sends {garbage!r}")
        if garbage:
            client.transport.protocol.dataReceived(garbage)
        self._server.run()
        client.reset()
        self._server.connections.remove(client)

    def _disconnect(self, number: int | None = None) -> None:
        """End a connection, in one of three ways, perhaps in the midst of a packet."""
        number = self._any_client() if number is None else number
        client, modelled = self._clients[number]
        end = self._random.choice(
            [MemoryClient.close, MemoryClient.reset, MemoryClient.say_goodbye]
        )
        # The network keeps what a client sends while it is not among the server's: so the
        # last packets and the goodbye behind them arrive together.
        may_be_kept = end is MemoryClient.say_goodbye and self._most_packets > 1
        is_kept = may_be_kept and self._is_likely(0.5)
        if is_kept:
            self._server.connections.remove(client)
        half = encode(Packet(Command.CHAT_REQUEST, self._random.choice(self._users)))
        half = half[: self._random.randrange(len(half))]
        self._write(number, self._packets(number, 0, 0, 1, 2), half)
        if is_kept:
            self._server.connections.append(client)
        self._note(f"{self._who(number)} leaves: {end.__name__}")
        self._model.disconnect(modelled)
        self._left.add(number)
        end(client)

    def _send_bad_packet(self) -> None:
        """Send what is no packet, between some that are."""
        number = self._any_client()
        wrong_crc = encode(Packet(Command.EXIT_CHAT))[:-4] + b"0000"
        bad = self._random.choice([b"XXXX", b"MAGX", MAGIC[::-1], wrong_crc])
        unread = encode(Packet(Command.FIND_PEER, self._random.choice(self._users)))
        self._write(number, [*self._packets(number, 0, 1, 2), None], bad + unread)
        self._note(f"{self._who(number)} sends no packet: {bad!r}")

    def _let_time_pass(self) -> None:
        """Let time pass, now and then until all invitations have timed out."""
        seconds = self._random.choice([0.125, 1.0, 2.0, 4.0, INVITATION_TIMEOUT])
        self._note(f"{seconds} s pass")
        for silent in list(self._silent):
            self._silent[silent] += seconds
            # Else it might be cut off in the midst of that time, before it has read TIMEOUT.
            modelled = self._clients[silent][1]
            if modelled in self._model.unknown:
                self._read_again(silent)
        self._model.pass_time(seconds)
        self._server.advance(seconds)

    def _send(self) -> None:
        """Let somebody send packets."""
        number = self._any_client()
        self._write(number, self._packets(number, 1, 1, 1, 2, 4, 20))

    # --- What the steps are made of -------------------------------------------------------

    def _write(self, number: int, sent: list[tuple[int, bytes] | None], rest: bytes = b"") -> None:
        """Send packets and the bytes of `rest`, in one piece or several.

        None at the end of `sent` says that `rest` begins with what is no packet.
        """
        client, _ = self._clients[number]
        packets = [packet for packet in sent if packet is not None]
        self.packets += len(packets)
        if packets:
            self._note(f"{self._who(number)} sends {describe(*packets)}")
        self._queued.setdefault(number, deque()).extend(sent)
        if number not in self._undecided:
            self._model_queued(number)
        data = b"".join(encode(Packet(*packet)) for packet in packets) + rest
        pieces = self._random.choice([1, 1, 1, 2, 3])
        cuts = sorted(self._random.randint(0, len(data)) for _ in range(pieces - 1))
        for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            client.send_bytes(data[begin:end])

    def _model_queued(self, number: int) -> None:
        """Give the model what a client has sent, up to a login that takes its time."""
        _, modelled = self._clients[number]
        queued = self._queued[number]
        while queued:
            packet = queued[0]
            is_login = packet is not None and packet[0] in (Command.REGISTER, Command.LOGIN)
            is_asked = is_login and modelled.name is None and not modelled.is_over
            if is_asked and self._server.authenticator.is_slow:
                self._undecided.append(number)
                return
            queued.popleft()
            if packet is None:
                self._model.bad_packet(modelled)
            else:
                self._model.packet(modelled, *packet)

    def _packets(self, number: int, *counts: int) -> list[tuple[int, bytes]]:
        """Return random packets of a client, as many as one of `counts` says."""
        name = self._clients[number][1].name
        count = min(self._random.choice(counts), self._most_packets)
        if self._most_packets == 1 and number in self._undecided:
            count = 0
        return [self._packet(name) for _ in range(count)]

    def _packet(self, name: bytes | None) -> tuple[int, bytes]:
        commands = IN_CHAT if name in self._model.partners else OUTSIDE_CHAT
        (command,) = self._random.choices(list(commands), list(commands.values()))
        if command in (Command.REGISTER, Command.LOGIN):
            passwords = [PASSWORD, PASSWORD, PASSWORD, b"wrong"]
            body = self._random.choice(self._users) + b":" + self._random.choice(passwords)
        elif command == Command.MESSAGE:
            body = self._text()
        else:
            body = self._other(name, command)
        return command, body

    def _other(self, name: bytes | None, command: int) -> bytes:
        """Return whom a packet is about: mostly somebody with whom it can do something."""
        if command in INVITING:
            fitting = [other for other in self._model.online if other != name]
        else:
            invitations = self._model.invitations
            fitting = [each.inviter for each in invitations if each.invitee == name]
            if command in DECLINING:
                fitting += [each.invitee for each in invitations if each.inviter == name]
        if fitting and self._is_likely(0.7):
            return self._random.choice(fitting)
        return self._random.choice([*self._users, *NO_USERS])

    def _text(self) -> bytes:
        """Return what somebody says, now and then as long as it may just be, or too long."""
        # Not behind a login: the server would read no more, and so not notice who leaves.
        is_read = not (self._silent or self._server.authenticator.is_slow)
        if is_read and self._is_likely(0.05):
            longest = LONGEST_BODY - len(self._random.choice(self._users) + b": ")
            return b"x" * self._random.choice([longest, longest + 1])
        return self._random.choice([b"hi", b"hi", b"/exit", b"/exit ", b"", b"a: \x00\xff"])

    def _any_client(self) -> int:
        return self._random.choice(list(self._clients))

    def _is_likely(self, probability: float) -> bool:
        return self._random.random() < probability

    def _forget(self, number: int) -> None:
        """Close the connection, as a client does when the server has, and have done with it."""
        client, _ = self._clients.pop(number)
        self._silent.pop(number, None)
        client.close()
        self._server.connections.remove(client)

    def _who(self, number: int) -> str:
        name = self._clients[number][1].name
        return f"client {number}" if name is None else f"client {number}, {name.decode()},"

    def _note(self, event: str) -> None:
        self.steps.append(event)


def describe(*packets: tuple[int, bytes]) -> str:
    """Return how `packets` are shown to people."""
    shown = []
    for command, body in packets:
        name = NAMES[Command(command)] if command in NAMES else f"0x{command:02X}"
        text = repr(body)[1:] if len(body) < 100 else f"{len(body)} bytes"
        shown.append(f"{name} {text}")
    return " + ".join(shown) or "nothing"


def play(
    seed: int,
    steps: int,
    errors: Callable[[], list[str]],
    make_server: Callable[..., MemoryServer] = MemoryServer,
) -> tuple[int, str | None]:
    """Play `steps` steps. In the end all clients disconnect or, if `seed` is even, the server
    goes down.

    :param errors: returns the tracebacks that were logged since the last time
    :return: how many packets were sent, and what was wrong, if anything was
    """
    server = make_server(invitation_timeout=INVITATION_TIMEOUT)
    player = Player(Random(seed), server)
    end = player.end if seed % 2 else player.shut_down
    with patch.object(users, "MAX_RECEIVED_INVITATIONS", player.room):
        for number in range(1, steps + 2):
            try:
                player.step() if number <= steps else end()
                faults = player.compare()
            except Exception:
                faults = [traceback.format_exc()]
            faults += errors()
            if number > steps:
                if not server.shut_down():
                    faults.append("connections are left at the server")
                faults += [f"left on the clock: {call}" for call in server.clock.getDelayedCalls()]
            if faults:
                first, *others = player.steps
                played = "\n".join([first, *others[-SHOWN_STEPS:], "", *faults])
                return player.packets, f"seed {seed}, step {number}, after\n{played}"
    return player.packets, None


class RandomTests(TestCase):
    """Random conversations."""

    def play(self, seed: int, steps: int) -> None:
        """Play `steps` steps, and fail if anything is wrong."""

        def errors() -> list[str]:
            return [error.getTraceback() for error in self.flushLoggedErrors()]

        _, fault = play(seed, steps, errors)
        if fault is not None:
            self.fail(fault)

    def test_rules(self) -> None:
        """Every client hears, in its order, what the rules say, whatever the clients do.

        No error is logged meanwhile. When all have disconnected, or the server has gone down, it
        has no connection and nothing to do.
        """
        for seed in SEEDS:
            self.play(seed, STEPS)

    def test_corpus(self) -> None:
        """Nor do the seeds that have found something, or have come where few come."""
        seeds = sorted(CORPUS.glob("*.txt"))
        self.assertNotEqual(seeds, [])
        for path in seeds:
            self.play(*map(int, path.read_text().split()))

    def test_failure(self) -> None:
        """A difference is told with the seed, the step, and what was played before it."""
        self.patch(Model, "pass_time", lambda model, seconds: None)
        error = self.assertRaises(self.failureException, self.play, 1, STEPS)
        self.assertRegex(str(error), r"^seed 1, step \d+, after\n")
        told = r"s pass\n\nclient \d+, \w+, heard Error 'TIMEOUT', not nothing"
        self.assertRegex(str(error), told)

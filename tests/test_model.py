"""Random conversations, over whole connections in memory, beside the model of the rules.

The suite plays a few. To play more, 400 steps with each of the seeds 1 to 5000::

    python -m tests.test_model 1 5000 400

It stops at the first that fails. A seed plays the same steps each time, however many of them.
"""

from __future__ import annotations

import sys
import traceback
import unittest
from collections.abc import Callable
from random import Random

from twisted.trial.unittest import TestCase

from chatserver import directory
from chatserver.packets import MAGIC, Command, Packet, encode
from tests.memory import MemoryClient, MemoryServer
from tests.model import DECLINING, INVITING, LONGEST_BODY, Client, Model
from tests.scripts import NAMES

SEEDS = range(1, 7)
STEPS = 300
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

NO_USERS = (b"", b"", b"nobody", b"\xff")
"""Names that nobody has. To the commands that answer an invitation, empty is the newest."""


class Player:
    """Plays random steps to a server and to the model, and compares what is heard.

    :param seed: what all that is random follows from
    :param server: where the steps are played. It is new, its invitations end after
        `INVITATION_TIMEOUT`, and as many may wait at one user as `room` says.
    """

    def __init__(self, seed: int, server: MemoryServer) -> None:
        self._random = Random(seed)
        self._server = server
        self._users = USERS[: self._random.randint(3, len(USERS))]
        self.room = self._random.choice([1, 2, 3, 32])
        self._model = Model(self.room, INVITATION_TIMEOUT, PASSWORD)
        self._clients: dict[int, tuple[MemoryClient, Client]] = {}
        self._next_number = 1
        self._left: set[int] = set()
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
        for number, (client, modelled) in list(self._clients.items()):
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

    def _disconnect(self, number: int | None = None) -> None:
        """End a connection, in one of three ways, perhaps in the midst of a packet."""
        number = self._any_client() if number is None else number
        client, modelled = self._clients[number]
        end = self._random.choice(
            [MemoryClient.close, MemoryClient.reset, MemoryClient.say_goodbye]
        )
        # The network keeps what a client sends while it is not among the server's: so the
        # last packets and the goodbye behind them arrive together.
        is_kept = end is MemoryClient.say_goodbye and self._is_likely(0.5)
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
        self._write(number, self._packets(number, 0, 1, 2), bad + unread)
        self._note(f"{self._who(number)} sends no packet: {bad!r}")
        self._model.bad_packet(self._clients[number][1])

    def _let_time_pass(self) -> None:
        """Let time pass, now and then until all invitations have timed out."""
        seconds = self._random.choice([0.125, 1.0, 2.0, 4.0, INVITATION_TIMEOUT])
        self._note(f"{seconds} s pass")
        self._model.pass_time(seconds)
        self._server.advance(seconds)

    def _send(self) -> None:
        """Let somebody send packets."""
        number = self._any_client()
        self._write(number, self._packets(number, 1, 1, 1, 2, 4))

    # --- What the steps are made of -------------------------------------------------------

    def _write(self, number: int, packets: list[tuple[int, bytes]], rest: bytes = b"") -> None:
        """Send `packets` and the bytes of `rest`, in one piece or several."""
        client, modelled = self._clients[number]
        if packets:
            self._note(f"{self._who(number)} sends {describe(*packets)}")
        for command, body in packets:
            self._model.packet(modelled, command, body)
        data = b"".join(encode(Packet(*packet)) for packet in packets) + rest
        pieces = self._random.choice([1, 1, 1, 2, 3])
        cuts = sorted(self._random.randint(0, len(data)) for _ in range(pieces - 1))
        for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            client.send_bytes(data[begin:end])

    def _packets(self, number: int, *counts: int) -> list[tuple[int, bytes]]:
        """Return random packets of a client, as many as one of `counts` says."""
        name = self._clients[number][1].name
        return [self._packet(name) for _ in range(self._random.choice(counts))]

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
        if self._is_likely(0.05):
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


class RandomCase(TestCase):
    """A test that plays random steps."""

    def play(self, seed: int, steps: int) -> None:
        """Play `steps` steps, and let all clients disconnect in the end."""
        server = MemoryServer(invitation_timeout=INVITATION_TIMEOUT)
        player = Player(seed, server)
        self.patch(directory, "MAX_RECEIVED_INVITATIONS", player.room)
        for number in range(1, steps + 2):
            try:
                player.step() if number <= steps else player.end()
                faults = player.compare()
            except Exception:
                faults = [traceback.format_exc()]
            faults += [error.getTraceback() for error in self.flushLoggedErrors()]
            if number > steps:
                faults += [f"left on the clock: {call}" for call in server.clock.getDelayedCalls()]
            if faults:
                first, *others = player.steps
                played = "\n".join([first, *others[-SHOWN_STEPS:]])
                self.fail(f"seed {seed}, step {number}, after\n{played}\n\n" + "\n".join(faults))


class RandomTests(RandomCase):
    """Random conversations."""

    def test_rules(self) -> None:
        """Every client hears, in its order, what the rules say, whatever the clients do.

        No error is logged meanwhile, and nothing is left to do when all have disconnected.
        """
        for seed in SEEDS:
            self.play(seed, STEPS)

    def test_failure(self) -> None:
        """A difference is told with the seed, the step, and what was played before it."""
        self.patch(Model, "pass_time", lambda model, seconds: None)
        error = self.assertRaises(self.failureException, self.play, 1, STEPS)
        self.assertRegex(str(error), r"^seed 1, step \d+, after\n")
        told = r"s pass\n\nclient \d+, \w+, heard Error 'TIMEOUT', not nothing"
        self.assertRegex(str(error), told)


class OneSeed(RandomCase):
    """The steps of one seed, for the long run."""

    def __init__(self, seed: int, steps: int) -> None:
        super().__init__()
        self._seed = seed
        self._steps = steps

    def runTest(self) -> None:
        """Every client hears what the rules say."""
        self.play(self._seed, self._steps)


def main() -> None:
    """Play as many seeds and steps as the command line says."""
    first, last, steps = map(int, sys.argv[1:])
    suite = unittest.TestSuite(OneSeed(seed, steps) for seed in range(first, last + 1))
    result = unittest.TextTestRunner(failfast=True).run(suite)
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main()

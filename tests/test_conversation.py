"""Tests for `chatserver.conversation`: every input in every state, and the order of answers."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from automat import NoTransition
from twisted.trial.unittest import TestCase

from chatserver import addresses, conversation, packets
from chatserver.addresses import Address
from chatserver.conversation import (
    Conversation,
    Core,
    Hold,
    Ticket,
    converse,
    packets_received,
)
from chatserver.packets import MAX_BODY, Command, ErrorCode, Packet

# One row an input, one column a state. A cell has what the conversation does, and behind an
# arrow the state that it is in then, if that is another. Packets that it sends stand there
# by their code; "hold" and "release" are the wire's, for the outcome; "peer-hold" and
# "peer-release" as well, for a chat partner who does not read. "!" is an input that can't
# come: it raises NoTransition.
STATES = ("unauthenticated", "authenticating", "authenticated", "deciding", "in chat", "closed")
TABLE = """
register        | hold register > authenticating | !  | ALREADY | ! | ALREADY | -
log_in          | hold log_in > authenticating   | !  | ALREADY | ! | ALREADY | -
messages        | NOCHAT  | ! | NOCHAT                        | ! | relay                        | -
ack             | -       | ! | hold accept:ACK > deciding          | ! | -                      | -
error           | -       | ! | hold decline:ERROR > deciding       | ! | -                      | -
find_peer       | NOLOG   | ! | hold invite:FIND_PEER > deciding    | ! | BUSY                   | -
chat_request    | NOLOG   | ! | hold invite:CHAT_REQUEST > deciding | ! | BUSY                   | -
chat_accept     | NOLOG   | ! | hold accept:CHAT_ACCEPT > deciding  | ! | BUSY                   | -
chat_decline    | NOLOG   | ! | hold decline:CHAT_DECLINE > deciding | ! | BUSY                  | -
exit_chat       | NOLOG   | ! | NOCHAT            | ! | leave BYE peer-release > authenticated     | -
unknown         | UNKN    | ! | UNKN              | ! | UNKN                                       | -

bad_packet      | BADPACKET close > closed | ! | depart BADPACKET close > closed | ! \
                                                          | depart BADPACKET close > closed | -
backlogged      | -  | -  | backlogged | backlogged | backlogged | -
drained         | -  | -  | drained    | drained    | drained    | -
connection_lost | > closed | turn_back > closed | depart > closed | depart > closed | depart > closed | -
login_timed_out | TIMEOUT close > closed | turn_back TIMEOUT close > closed | - | -        | - | -
shut_down       | SHUTDOWN close > closed | SHUTDOWN close > closed | SHUTDOWN close > closed \
                                     | SHUTDOWN close > closed | SHUTDOWN close > closed | -

admitted        | ! | enter                              | ! | !                           | ! | -
entered         | ! | OK release > authenticated         | ! | !                           | ! | !
granted         | ! | !                                  | ! | release > authenticated     | ! | -
refused         | ! | FAILED release > unauthenticated   | ! | FAILED release > authenticated | ! | -
invited         | ! | !  | FIND_PEER                     | FIND_PEER                       | ! | -
invitation_ended | ! | ! | DENY                          | DENY                            | ! | -
chat_opened     | ! | !  | CHAT_ACCEPT > in chat         | CHAT_ACCEPT release > in chat   | ! | -
messages_arrived | ! | !  | !                             | !                    | MESSAGE    | -
peer_left       | ! | !  | !                             | !  | EXIT peer-release > authenticated | -
peer_backlogged | ! | !  | !                             | !                    | peer-hold  | -
peer_drained    | ! | !  | !                             | !                 | peer-release  | -
replaced        | ! | ! | REPLACED close > closed | REPLACED close > closed | REPLACED close > closed | -
""".replace("\\\n", "")  # noqa: E501 - a table

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "bad_packet": (),
    "backlogged": (),
    "drained": (),
    "connection_lost": (),
    "login_timed_out": (),
    "shut_down": (),
    "admitted": (b"alice",),
    "entered": (),
    "granted": (Command.FIND_PEER,),
    "refused": (Command.FIND_PEER, ErrorCode.FAILED),
    "invitation_ended": (ErrorCode.DECLINED,),
    "chat_opened": (b"bob", Command.CHAT_ACCEPT),
    "messages": ([b"body"],),
    "messages_arrived": (b"bob", [b"hello"]),
    "peer_left": (),
    "peer_backlogged": (),
    "peer_drained": (),
    "replaced": (),
}
"""What the inputs take; those that aren't here take a body."""


class World:
    """Wire, authenticator and directory in one; writes down in `calls` what is asked of it.

    No outcome comes by itself: the tests say what it is.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.packets: list[Packet] = []
        self.tickets: list[Ticket] = []
        self.address = Address("address", None)
        self.conversation = converse(Core(self, self, self))

    def take_calls(self) -> list[str]:
        """Return the calls since the last time."""
        calls, self.calls = self.calls, []
        return calls

    # Wire
    def send(self, *packets: Packet, times: int = 1) -> None:
        for packet in packets * times:
            self.packets.append(packet)
            if packet.command in (Command.ACK, Command.ERROR):
                self.calls.append(packet.body.decode())
            else:
                self.calls.append(Command(packet.command).name)

    def finish(self) -> None:
        self.calls.append("finish")

    def close(self) -> None:
        self.calls.append("close")

    def hold(self, reason: Hold) -> None:
        self.calls.append("hold" if reason is Hold.OUTCOME else "peer-hold")

    def release(self, reason: Hold) -> None:
        self.calls.append("release" if reason is Hold.OUTCOME else "peer-release")

    def pause(self) -> None:
        self.calls.append("pause")

    # Authenticator
    def register(self, conversation: Conversation, body: bytes, address: Address) -> None:
        self.calls.append("register")

    def log_in(self, conversation: Conversation, body: bytes, address: Address) -> None:
        self.calls.append("log_in")

    # Directory
    def enter(self, name: bytes, conversation: Conversation, address: Address) -> None:
        self.calls.append("enter")

    def turn_back(self, conversation: Conversation) -> None:
        self.calls.append("turn_back")

    def depart(self, name: bytes) -> None:
        self.calls.append("depart")

    def invite(self, name: bytes, invitee: bytes, command: Command) -> None:
        self.calls.append(f"invite:{command.name}")

    def accept(self, name: bytes, inviter: bytes, command: Command) -> None:
        self.calls.append(f"accept:{command.name}")

    def decline(self, name: bytes, other: bytes, command: Command) -> None:
        self.calls.append(f"decline:{command.name}")

    def relay(self, name: bytes, texts: Sequence[bytes], ticket: Ticket) -> None:
        self.calls.extend(["relay"] * len(texts))
        self.tickets.append(ticket)

    def leave(self, name: bytes) -> None:
        self.calls.append("leave")

    def backlogged(self, name: bytes) -> None:
        self.calls.append("backlogged")

    def drained(self, name: bytes) -> None:
        self.calls.append("drained")


def world_in(state: str) -> World:
    """Return a world whose conversation is in `state`."""
    world = World()
    talk = world.conversation
    if state != "unauthenticated":
        talk.log_in(b"alice:password")
    if state in ("authenticated", "deciding", "in chat"):
        talk.admitted(b"alice")
        talk.entered()
    if state == "deciding":
        talk.find_peer(b"bob")
    if state == "in chat":
        talk.chat_opened(b"bob", Command.FIND_PEER)
    if state == "closed":
        talk.connection_lost()
    world.take_calls()
    world.packets.clear()
    return world


def state_of(world: World) -> str:
    """Find out, by what it does, in which state the conversation of `world` is."""
    world.take_calls()
    try:
        world.conversation.exit_chat(b"")
    except NoTransition:
        world.conversation.refused(Command.LOGIN, ErrorCode.FAILED)
        before = {"unauthenticated": "authenticating", "authenticated": "deciding"}
        return before[state_of(world)]
    states = {
        ("NOLOG",): "unauthenticated",
        ("NOCHAT",): "authenticated",
        ("leave", "BYE", "peer-release"): "in chat",
        ("leave", "peer-release"): "in chat",  # BYE waits for the answer to a message
        (): "closed",
    }
    return states[tuple(world.take_calls())]


class TableTests(TestCase):
    """Every input in every state."""

    def check(self, name: str, state: str, cell: str) -> None:
        """Give input `name` in `state`, and compare what happens with `cell`."""
        world = world_in(state)
        give: Callable[..., None] = getattr(world.conversation, name)
        arguments = ARGUMENTS.get(name, (b"body",))
        if cell == "!":
            self.assertRaises(NoTransition, give, *arguments)
            return
        doing, _, next_state = cell.partition(">")
        give(*arguments)
        where = f"{name} while {state}"
        self.assertEqual(world.take_calls(), [call for call in doing.split() if call != "-"], where)
        self.assertEqual(state_of(world), next_state.strip() or state, where)

    def test_every_pair(self) -> None:
        """Each input does in each state what the table says, and leads where it says."""
        for row in filter(None, TABLE.splitlines()):
            name, *cells = (part.strip() for part in row.split("|"))
            self.assertEqual(len(cells), len(STATES), row)
            for state, cell in zip(STATES, cells, strict=True):
                self.check(name, state, cell)

    def test_table_is_complete(self) -> None:
        """The table has a row for every input."""
        rows = {row.split("|")[0].strip() for row in TABLE.splitlines()} - {""}
        inputs = {name for name in vars(Conversation) if not name.startswith("_")}
        self.assertEqual(inputs, rows)


class LookUpTests(TestCase):
    """How the machine finds its transitions."""

    def test_once(self) -> None:
        """A transition that was looked up is not looked for again, whosever conversation it is."""
        look_up = conversation.converse.__automat_automaton__.outputForInput
        world_in("in chat")
        before = look_up.cache_info()
        world_in("in chat")
        after = look_up.cache_info()
        self.assertEqual(after.misses, before.misses)
        self.assertGreater(after.hits, before.hits)


class PacketTests(TestCase):
    """From the command of a packet to an input."""

    def test_commands(self) -> None:
        """Every command of the protocol is the input of its name; any other is unknown."""
        heard: list[str] = []

        class Listener:
            def __getattr__(self, name: str) -> Callable[[Any], None]:
                return lambda argument: heard.append(f"{name} {argument}")

        listener: Any = Listener()
        for command in (*range(12), 0xFF):
            packets_received(listener, command, [b"body"])
        names = [
            "unknown", "register", "log_in", "messages", "ack", "error", "find_peer",
            "chat_request", "chat_accept", "chat_decline", "exit_chat", "unknown", "unknown",
        ]  # fmt: skip
        arguments = {"messages": [b"body"]}
        self.assertEqual(heard, [f"{name} {arguments.get(name, b'body')}" for name in names])
        heard.clear()
        packets_received(listener, Command.MESSAGE, [b"1", b"2"])
        self.assertEqual(heard, ["messages [b'1', b'2']"])


class AnswerTests(TestCase):
    """What is answered, in detail."""

    def test_granted(self) -> None:
        """ChatRequest hears SENT, ChatDecline OK; FindPeer and Error hear nothing."""
        heard = {}
        for command in (
            Command.FIND_PEER,
            Command.CHAT_REQUEST,
            Command.CHAT_DECLINE,
            Command.ERROR,
        ):
            world = world_in("deciding")
            world.conversation.granted(command)
            heard[command] = world.packets
        self.assertEqual(
            heard,
            {
                Command.FIND_PEER: [],
                Command.CHAT_REQUEST: [Packet(Command.ACK, b"SENT")],
                Command.CHAT_DECLINE: [Packet(Command.ACK, b"OK")],
                Command.ERROR: [],
            },
        )

    def test_ack_and_error_are_not_refused(self) -> None:
        """An Ack or Error that can't be granted is not answered, unless with LOST or FAILED."""
        for command in (Command.ACK, Command.ERROR):
            for code in ErrorCode:
                world = world_in("deciding")
                world.conversation.refused(command, code)
                is_told = code in (ErrorCode.LOST, ErrorCode.FAILED)
                expected = [Packet(Command.ERROR, code)] if is_told else []
                self.assertEqual(world.packets, expected)

    def test_told_of_chat(self) -> None:
        """Who used ChatRequest or ChatAccept is told the name; who used the others is not."""
        named, bare = Packet(Command.CHAT_ACCEPT, b"bob"), Packet(Command.ACK, b"CHAT")
        for state in ("authenticated", "deciding"):
            for command, told in (
                (Command.CHAT_REQUEST, named),
                (Command.CHAT_ACCEPT, named),
                (Command.FIND_PEER, bare),
                (Command.ACK, bare),
            ):
                world = world_in(state)
                world.conversation.chat_opened(b"bob", command)
                self.assertEqual(world.packets, [told])

    def test_invited(self) -> None:
        """An invitation is a FindPeer with the inviter's name."""
        world = world_in("authenticated")
        world.conversation.invited(b"bob")
        self.assertEqual(world.packets, [Packet(Command.FIND_PEER, b"bob")])

    def test_message(self) -> None:
        """A message arrives behind its sender's name, its bytes untouched."""
        world = world_in("in chat")
        world.conversation.messages_arrived(b"bob", [b"\x00\xff: /exit"])
        self.assertEqual(world.packets, [Packet(Command.MESSAGE, b"bob: \x00\xff: /exit")])

    def test_exit_text(self) -> None:
        """The message /exit leaves the chat; anything more or less is a message."""
        world = world_in("in chat")
        for text in (b"/exit ", b"/EXIT", b"/exi", b""):
            world.conversation.messages([text])
        self.assertEqual(world.take_calls(), ["relay"] * 4)
        for ticket in world.tickets:
            ticket.delivered()
        world.take_calls()
        world.conversation.messages([b"/exit"])
        self.assertEqual(world.take_calls(), ["leave", "BYE", "peer-release"])

    def test_too_long(self) -> None:
        """A message that would not fit behind the name is refused, and the chat goes on."""
        longest = MAX_BODY - len(b"alice: ")
        world = world_in("in chat")
        world.conversation.messages([bytes(longest + 1)])
        self.assertEqual(world.take_calls(), ["TOOLONG"])
        world.conversation.messages([bytes(longest)])
        self.assertEqual(world.take_calls(), ["relay"])

    def test_messages_in_a_row(self) -> None:
        """Messages that come in a row are relayed together, and each is answered."""
        world = world_in("in chat")
        talk = world.conversation
        talk.messages([b"one", b"two", b"three"])
        (ticket,) = world.tickets
        self.assertEqual(world.take_calls(), ["relay"] * 3)
        ticket.delivered()
        self.assertEqual(world.take_calls(), ["OK"] * 3)
        world.packets.clear()
        talk.messages_arrived(b"bob", [b"four", b"five"])
        said = [Packet(Command.MESSAGE, b"bob: four"), Packet(Command.MESSAGE, b"bob: five")]
        self.assertEqual(world.packets, said)

    def test_too_long_in_a_row(self) -> None:
        """Of messages in a row only the one that is too long is refused."""
        world = world_in("in chat")
        world.conversation.messages([b"one", bytes(MAX_BODY), b"two", bytes(MAX_BODY)])
        self.assertEqual(world.take_calls(), ["relay", "relay"])
        for ticket in world.tickets:
            ticket.delivered()
        self.assertEqual(world.take_calls(), ["OK", "TOOLONG", "OK", "TOOLONG"])

    def test_backlogged_before_login(self) -> None:
        """The directory hears of a client that did not read already before it logged in."""
        world = World()
        world.conversation.backlogged()
        world.conversation.log_in(b"alice:password")
        world.conversation.admitted(b"alice")
        world.conversation.entered()
        self.assertEqual(
            world.take_calls(), ["hold", "log_in", "enter", "backlogged", "OK", "release"]
        )
        world = World()
        world.conversation.backlogged()
        world.conversation.drained()
        world.conversation.log_in(b"alice:password")
        world.conversation.admitted(b"alice")
        world.conversation.entered()
        self.assertNotIn("backlogged", world.take_calls())


class OrderTests(TestCase):
    """Answers leave in the order of the packets, however late an outcome is."""

    def test_late_delivery(self) -> None:
        """What comes behind a message that is not decided is answered behind it."""
        world = world_in("in chat")
        talk = world.conversation
        for text in (b"one", b"two", b"three"):
            talk.messages([text])
            talk.unknown(b"")
        self.assertEqual(world.take_calls(), ["relay", "relay", "relay"])
        one, two, three = world.tickets
        one.delivered()
        self.assertEqual(world.take_calls(), ["OK", "UNKN"])
        three.delivered()
        self.assertEqual(world.take_calls(), [])
        two.undelivered()
        self.assertEqual(world.take_calls(), ["LOST", "UNKN", "OK", "UNKN"])

    def test_unasked_does_not_wait(self) -> None:
        """What comes unasked is sent at once, and the answers follow in the next state too."""
        world = world_in("in chat")
        talk = world.conversation
        talk.messages([b"one"])
        talk.peer_left()
        talk.messages([b"two"])
        self.assertEqual(world.take_calls(), ["relay", "EXIT", "peer-release"])
        world.tickets[0].undelivered()
        self.assertEqual(world.take_calls(), ["LOST", "NOCHAT"])

    def test_end_waits_for_its_place(self) -> None:
        """The Error that ends a connection is sent behind the answers that are due, then it closes.

        Nothing more is taken from the client meanwhile.
        """
        for end, code in (
            (Conversation.bad_packet, "BADPACKET"),
            (Conversation.replaced, "REPLACED"),
            (Conversation.shut_down, "SHUTDOWN"),
        ):
            world = world_in("in chat")
            talk = world.conversation
            talk.messages([b"one"])
            getattr(talk, end.__name__)()
            departs = ["depart"] if code == "BADPACKET" else []
            self.assertEqual(world.take_calls(), ["relay", *departs, "finish"])
            world.tickets[0].delivered()
            self.assertEqual(world.take_calls(), ["OK", code, "close"])

    def test_lost_while_entering(self) -> None:
        """A connection that is lost before the directory knows it is not to come online."""
        world = world_in("authenticating")
        talk = world.conversation
        talk.admitted(b"alice")
        talk.connection_lost()
        self.assertEqual(world.take_calls(), ["enter", "turn_back"])


class ImportTests(TestCase):
    """The rooms of the house."""

    def test_no_io(self) -> None:
        """What the conversation is made of imports nothing that does I/O."""
        allowed = {
            addresses: {"__future__", "dataclasses", "ipaddress", "chatserver.limits"},
            packets: {"__future__", "struct", "dataclasses", "enum", "typing", "zlib"},
            conversation: {
                "__future__", "collections", "collections.abc", "contextlib", "dataclasses", "enum",
                "functools", "typing", "automat", "chatserver.addresses", "chatserver.packets",
            },
        }  # fmt: skip
        for module, names in allowed.items():
            tree = ast.parse(Path(module.__file__).read_text())
            imported = set()
            for node in ast.walk(tree):
                if isinstance(node, ast.Import):
                    imported |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    imported.add(node.module or "")
            self.assertEqual(imported - names, set(), module.__name__)

    def test_no_reactor(self) -> None:
        """Importing the conversation brings no part of Twisted or SQLAlchemy along."""
        code = "import sys, chatserver.conversation; print(sorted(sys.modules))"
        output = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        modules = {name.partition(".")[0] for name in ast.literal_eval(output)}
        self.assertEqual(modules & {"twisted", "sqlalchemy", "OpenSSL", "argon2"}, set())

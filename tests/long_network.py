"""After how many seconds the server finds out that the network of its clients is gone.

For root, on Linux; it takes about two and a half minutes::

    python -m tests.long_network

The server and its clients are in two network namespaces with a cable between them. One client is
idle; two are in a chat, in which one speaks and the other reads. Then each side gets a wrong
hardware address for the other: no packet arrives any more, and nobody is told.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chatserver.packets import Command, Packet
from tests.blocking import Client
from tests.processes import Server, script, until

SERVER, CLIENTS = "192.0.2.1", "192.0.2.2"
NOBODY = "02:00:00:00:00:01"
"""A hardware address that neither end of the cable has."""

CHATTING = 2.0
"""Seconds of chat before the network goes."""

LONGEST = 200.0
"""Seconds in which the server must have found out."""

EXPECTED = {"idle": (110.0, 140.0), "speaker": (55.0, 75.0), "reader": (55.0, 75.0)}
"""From when to when each may be found to be gone. Keepalive is two minutes, and the stall
time-out one; a client looks as if it had taken nothing for at most a tenth more."""

OK = Packet(Command.ACK, b"OK")


def ip(*arguments: str) -> None:
    """Run the command `ip`."""
    subprocess.run(["ip", *arguments], check=True)


@contextmanager
def cable(server: str, clients: str) -> Iterator[None]:
    """Make two network namespaces of these names, with a cable between their ends ``eth``."""
    try:
        for name in (server, clients):
            ip("netns", "add", name)
        ends = ["eth", "netns", server, "type", "veth", "peer", "name", "eth", "netns", clients]
        ip("link", "add", *ends)
        for name, address in ((server, SERVER), (clients, CLIENTS)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth")
            ip("-n", name, "link", "set", "eth", "up")
        yield
    finally:
        for name in (server, clients):
            subprocess.run(["ip", "netns", "delete", name], check=False)


def cut(server: str, clients: str) -> None:
    """Let no packet arrive any more, on neither side."""
    for name, other in ((server, CLIENTS), (clients, SERVER)):
        ip(
            "-n",
            name,
            "neigh",
            "replace",
            other,
            "lladdr",
            NOBODY,
            "dev",
            "eth",
            "nud",
            "permanent",
        )


def play_clients(port: int) -> None:
    """Be the clients, until this process is ended."""
    idle, speaker, reader = (Client(port, SERVER) for _ in EXPECTED)
    for name, client in zip(EXPECTED, (idle, speaker, reader), strict=True):
        assert client.ask(Command.REGISTER, f"{name}:password".encode()) == OK
    assert speaker.ask(Command.CHAT_REQUEST, b"reader") == Packet(Command.ACK, b"SENT")
    assert reader.receive() == Packet(Command.FIND_PEER, b"speaker")
    assert reader.ask(Command.CHAT_ACCEPT) == Packet(Command.CHAT_ACCEPT, b"speaker")
    assert speaker.receive() == Packet(Command.CHAT_ACCEPT, b"reader")
    print("chatting", flush=True)
    try:
        while True:
            speaker.send(Command.MESSAGE, b"hello")
            speaker.receive()
            reader.receive()
    except TimeoutError:
        print("nothing more arrives", flush=True)
    time.sleep(LONGEST)


def measure(server: Server) -> dict[str, float]:
    """Return after how many seconds from now the log tells that each client is gone."""
    begin = time.monotonic()
    gone: dict[str, float] = {}
    while len(gone) < len(EXPECTED) and time.monotonic() < begin + LONGEST:
        for name in re.findall(r"Disconnected: '(\w+)'", server.log):
            if name not in gone:
                gone[name] = time.monotonic() - begin
                print(f"{name}: gone after {gone[name]:.1f} s", flush=True)
        time.sleep(0.1)
    return gone


def main() -> None:
    """Measure, print, and exit with 1 if it took too long, or too short."""
    parser = argparse.ArgumentParser(description="How long a dropped network goes unnoticed.")
    parser.add_argument("--clients", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.clients is not None:
        play_clients(options.clients)
        return
    names = [f"asyncchat-{side}-{os.getpid()}" for side in ("server", "clients")]
    inside, outside = (["ip", "netns", "exec", name] for name in names)
    with tempfile.TemporaryDirectory() as folder, cable(*names):
        here = Path(folder, "here")
        here.mkdir()
        server = Server([*inside, *script("twistd"), "-n", "asyncchat", "--port", "0"], here)
        clients = None
        try:
            port = server.wait_for_port(lambda: server.log)
            command = [sys.executable, "-m", "tests.long_network", "--clients", str(port)]
            clients = subprocess.Popen([*outside, *command], stdout=subprocess.PIPE)
            assert clients.stdout is not None
            until(clients.stdout.readline, "the chat")
            time.sleep(CHATTING)
            cut(*names)
            gone = measure(server)
            print(re.sub(r"(?m)^(?!.*(Stalled|Disconnected)).*\n", "", server.log), end="")
        finally:
            if clients is not None:
                clients.kill()
                clients.wait()
            server.kill()
    wrong = [
        name
        for name, (earliest, latest) in EXPECTED.items()
        if not earliest <= gone.get(name, LONGEST) <= latest
    ]
    print(f"not as expected: {', '.join(wrong)}" if wrong else "as expected")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()

"""The protocol with nothing but Python's standard library: a client in a hundred lines.

In two windows, with a password in ASYNCCHAT_PASSWORD; new names are registered with it::

    python examples/minimal_client.py bob
    python examples/minimal_client.py alice --invite bob

Bob accepts whoever invites him, and each line that one types is shown to the other. The end of
the input (Ctrl-D) leaves.
"""

import argparse
import asyncio
import os
import ssl
import struct
import sys
import threading
import zlib

REGISTER, LOGIN, MESSAGE, ACK, ERROR, FIND_PEER = range(1, 7)
CHAT_REQUEST, CHAT_ACCEPT, _, EXIT_CHAT = range(7, 11)

NEWS = {b"DENY", b"EXIT", b"GONE", b"TIMEOUT", b"BADPACKET", b"REPLACED", b"SHUTDOWN"}
"""The Errors that answer nothing: docs/protocol.md, "Error codes"."""


class Connection:
    """Packets to a server and back. The answers come in the order of the requests.

    ChatAccept is an answer to one who accepts, and news to one who `invites`. This client never
    does both.
    """

    def __init__(self, reader, writer, invites):
        self.reader = reader
        self.writer = writer
        self.invites = invites
        self.answers = asyncio.Queue()
        self.news = asyncio.Queue()

    async def ask(self, command, body):
        """Send a packet and return its answer: a command and a body."""
        packet = struct.pack("!4sBH", b"MAGC", command, len(body)) + body
        self.writer.write(packet + struct.pack("!I", zlib.crc32(packet)))
        return await self.answers.get()

    async def receive(self):
        """Sort what comes into answers and news, until the connection ends."""
        try:
            while True:
                header = await self.reader.readexactly(7)
                magic, command, length = struct.unpack("!4sBH", header)
                body = await self.reader.readexactly(length)
                (crc,) = struct.unpack("!I", await self.reader.readexactly(4))
                if magic != b"MAGC" or crc != zlib.crc32(header + body):
                    raise ConnectionError("what came is not a packet")
                is_news = (
                    command in (MESSAGE, FIND_PEER)
                    or (command == CHAT_ACCEPT and self.invites)
                    or (command == ERROR and body in NEWS)
                )
                (self.news if is_news else self.answers).put_nowait((command, body))
        except (OSError, EOFError):
            for queue in (self.news, self.answers):
                queue.put_nowait((ERROR, b"the connection is over"))


def visible(data):
    """Return what somebody said so that it can't drive the terminal."""
    text = data.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def read_lines(loop, lines):
    """Put each line of the input into a queue, and None after the last."""
    for line in iter(sys.stdin.buffer.readline, b""):
        loop.call_soon_threadsafe(lines.put_nowait, line.rstrip(b"\r\n"))
    loop.call_soon_threadsafe(lines.put_nowait, None)


async def say_lines(connection):
    """Say each line of the input, then leave."""
    lines = asyncio.Queue()
    arguments = asyncio.get_running_loop(), lines
    threading.Thread(target=read_lines, args=arguments, daemon=True).start()
    while (line := await lines.get()) is not None:
        _, answer = await connection.ask(MESSAGE, line)
        if answer != b"OK":
            print("not delivered:", visible(answer))
    await connection.ask(EXIT_CHAT, b"")


async def sign_in(connection, name):
    """Register, or log in if the name is taken."""
    password = os.environ.get("ASYNCCHAT_PASSWORD") or sys.exit("set ASYNCCHAT_PASSWORD")
    account = f"{name}:{password}".encode()
    answer = await connection.ask(REGISTER, account)
    if answer == (ERROR, b"USER!"):
        answer = await connection.ask(LOGIN, account)
    if answer != (ACK, b"OK"):
        sys.exit(f"{name} can't log in: {visible(answer[1])}")


async def main(options):
    """Log in, invite somebody or wait for an invitation, and talk."""
    trust = ssl.create_default_context(cafile=options.certificate)
    streams = await asyncio.open_connection(options.host, options.port, ssl=trust)
    connection = Connection(*streams, invites=options.invite is not None)
    receiving = asyncio.create_task(connection.receive())  # kept: a loop forgets its tasks
    await sign_in(connection, options.name)
    saying = None
    if options.invite is not None:
        answer = await connection.ask(CHAT_REQUEST, options.invite.encode())
        print("invited:", visible(answer[1]), flush=True)
        if answer[0] == ERROR:
            return
    while not (receiving.done() or (saying and saying.done())):
        news = asyncio.create_task(connection.news.get())
        await asyncio.wait({news, saying} - {None}, return_when=asyncio.FIRST_COMPLETED)
        if not news.done():
            break
        command, body = news.result()
        if command == FIND_PEER and saying is None:
            command, body = await connection.ask(CHAT_ACCEPT, body)
        print(visible(body), flush=True)
        if command == CHAT_ACCEPT:
            saying = asyncio.create_task(say_lines(connection))
        elif command == ERROR:
            break


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A minimal client.")
    parser.add_argument("name")
    parser.add_argument("--invite", metavar="NAME")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=5555)
    parser.add_argument("--certificate", default="certs/server.crt")
    asyncio.run(main(parser.parse_args()))

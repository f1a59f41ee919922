"""A bot that accepts whoever invites it, and says back what it is told: invite `echo`.

    python examples/echo_bot.py [HOST [PORT [CERTIFICATE]]]

The password of its account is asked for, or taken from ASYNCCHAT_PASSWORD.
"""

import os
import sys
from getpass import getpass

from twisted.internet.task import react

from chatserver.client import ChatError, Handler, NameTakenError, TrustFile, connect


class Echo(Handler):
    def invited(self, client, inviter):
        return client.accept(inviter)

    def message_received(self, chat, message):
        return chat.send(message.data)


async def main(reactor, host="localhost", port="5555", certificate="certs/server.crt"):
    password = os.environ.get("ASYNCCHAT_PASSWORD") or getpass("Password for echo: ")
    trust = TrustFile(certificate)
    try:
        client = await connect(reactor, host, int(port), trust=trust, handler=Echo())
        try:
            await client.register("echo", password)
        except NameTakenError:
            await client.log_in("echo", password)
    except ChatError as error:
        sys.exit(f"echo: {error}")
    print("echo is online", flush=True)
    print(f"The end: {await client.when_closed()}")


if __name__ == "__main__":
    react(main, sys.argv[1:])

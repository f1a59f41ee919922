"""A client library: the protocol from the other side.

::

    from twisted.internet.task import react

    from chatserver.client import Handler, TrustFile, connect


    class Echo(Handler):
        def invited(self, client, inviter):
            return client.accept(inviter)

        def message_received(self, chat, message):
            return chat.send(message.data)


    async def main(reactor):
        trust = TrustFile("certs/server.crt")
        client = await connect(reactor, "localhost", trust=trust, handler=Echo())
        await client.log_in("echo", "a long password")
        await client.when_closed()


    react(main)

docs/client.md tells more, and examples/ has programs to start from.
"""

from chatserver.client.chat import Chat, Invitation, Message
from chatserver.client.client import ChatClient, Handler
from chatserver.client.connection import DEFAULT_PORT, connect
from chatserver.client.errors import (
    AlreadyLoggedInError,
    BrokenStreamError,
    BusyError,
    CertificateError,
    ChangedCertificateError,
    ChatError,
    ClosedError,
    ConnectError,
    ConnectionEndedError,
    ConnectionLostError,
    DeclinedError,
    FailedError,
    InvitationError,
    LoginTimeoutError,
    LostError,
    MalformedCredentialsError,
    NameTakenError,
    NoInvitationError,
    NotAuthenticatedError,
    NotFreeError,
    NotInChatError,
    NotLoggedInError,
    NotOnlineError,
    PeerLeftError,
    RefusedError,
    RegistrationClosedError,
    ReplacedError,
    ReservedTextError,
    ShutdownError,
    SlowDownError,
    TimedOutError,
    TooLongError,
    UnknownCertificateError,
    UnknownCommandError,
    WithdrawnError,
    YourselfError,
)
from chatserver.client.reconnecting import ReconnectingClient
from chatserver.client.trust import Fingerprint, KnownHosts, SystemRoots, Trust, TrustFile, Verifier
from chatserver.packets import ErrorCode

__all__ = [
    "DEFAULT_PORT",
    "AlreadyLoggedInError",
    "BrokenStreamError",
    "BusyError",
    "CertificateError",
    "ChangedCertificateError",
    "Chat",
    "ChatClient",
    "ChatError",
    "ClosedError",
    "ConnectError",
    "ConnectionEndedError",
    "ConnectionLostError",
    "DeclinedError",
    "ErrorCode",
    "FailedError",
    "Fingerprint",
    "Handler",
    "Invitation",
    "InvitationError",
    "KnownHosts",
    "LoginTimeoutError",
    "LostError",
    "MalformedCredentialsError",
    "Message",
    "NameTakenError",
    "NoInvitationError",
    "NotAuthenticatedError",
    "NotFreeError",
    "NotInChatError",
    "NotLoggedInError",
    "NotOnlineError",
    "PeerLeftError",
    "ReconnectingClient",
    "RefusedError",
    "RegistrationClosedError",
    "ReplacedError",
    "ReservedTextError",
    "ShutdownError",
    "SlowDownError",
    "SystemRoots",
    "TimedOutError",
    "TooLongError",
    "Trust",
    "TrustFile",
    "UnknownCertificateError",
    "UnknownCommandError",
    "Verifier",
    "WithdrawnError",
    "YourselfError",
    "connect",
]

"""What can go wrong for a client: each error of the wire is an exception of its own.

::

    ChatError
    ├── RefusedError             a request was refused: one class for each code
    ├── InvitationError          an invitation ended without a chat
    ├── ConnectError             no connection came about
    │   └── CertificateError     the server's certificate is not the one to trust
    └── ConnectionEndedError     the connection is over
"""

from __future__ import annotations

from typing import ClassVar

from chatserver.packets import ErrorCode


class ChatError(Exception):
    """Base of all errors of the client library. The text is a sentence for people.

    `code` is the Error that the server sent, or would have sent; None if there is no such code.
    """

    code: ClassVar[ErrorCode | None] = None
    text: ClassVar[str] = "something went wrong"

    def __init__(self, text: str = "") -> None:
        super().__init__(text or self.text)


# --- A request was refused ------------------------------------------------------------------


class RefusedError(ChatError):
    """The server did not do what it was asked for. The connection goes on."""


class MalformedCredentialsError(RefusedError):
    """A name or a password that can't be one."""

    code = ErrorCode.MALFORMED
    text = (
        "the server does not take such a name or password: a new name has 1 to 32 letters and"
        " digits and no spaces, a new password usually 8 bytes or more"
    )


class NameTakenError(RefusedError):
    """Somebody has registered that name before."""

    code = ErrorCode.NAME_TAKEN
    text = "that name is taken"


class NotAuthenticatedError(RefusedError):
    """The user is unknown or the password is wrong: the server does not say which."""

    code = ErrorCode.NOT_AUTHENTICATED
    text = "unknown user, or wrong password"


class NotLoggedInError(RefusedError):
    """One has to log in first."""

    code = ErrorCode.NOT_LOGGED_IN
    text = "you are not logged in"


class YourselfError(RefusedError):
    """Nobody can invite themselves."""

    code = ErrorCode.YOURSELF
    text = "that is you"


class NotOnlineError(RefusedError):
    """Nobody of that name is online."""

    code = ErrorCode.NOT_ONLINE
    text = "not online"


class NotInChatError(RefusedError):
    """There is no chat, or not any more."""

    code = ErrorCode.NOT_IN_CHAT
    text = "you are not in a chat"


class LostError(RefusedError):
    """Too late: the message was not delivered, or the invitation is gone."""

    code = ErrorCode.LOST
    text = "too late: they are not there any more"


class UnknownCommandError(RefusedError):
    """The server is older and can't do that."""

    code = ErrorCode.UNKNOWN
    text = "this server can't do that"


class AlreadyLoggedInError(RefusedError):
    """A connection is one user's."""

    code = ErrorCode.ALREADY_LOGGED_IN
    text = "you are logged in already"


class BusyError(RefusedError):
    """One of the two is in a chat, or the other has too much waiting."""

    code = ErrorCode.BUSY
    text = "busy right now"


class NoInvitationError(RefusedError):
    """That user has not invited you."""

    code = ErrorCode.NO_INVITATION
    text = "there is no such invitation"


class TooLongError(RefusedError):
    """The message does not fit into a packet."""

    code = ErrorCode.TOO_LONG
    text = "the message is too long"


class ReservedTextError(RefusedError):
    """The one text that can't be said."""

    text = "/exit can't be said: the protocol reserves it for leaving the chat"


class SlowDownError(RefusedError):
    """Too many attempts: to be tried again some seconds later."""

    code = ErrorCode.SLOW_DOWN
    text = "the server has too much to do, or has heard too much from you; try again later"


class RegistrationClosedError(RefusedError):
    """Only the operator makes accounts."""

    code = ErrorCode.REGISTRATION_CLOSED
    text = "nobody can register on this server; its operator makes the accounts"


class FailedError(RefusedError):
    """The server could not do it."""

    code = ErrorCode.FAILED
    text = "the server had a fault of its own; try again later"


# --- An invitation ended without a chat -----------------------------------------------------


class InvitationError(ChatError):
    """An invitation that was sent has ended without a chat."""


class DeclinedError(InvitationError):
    """The invited one declined."""

    code = ErrorCode.DECLINED
    text = "declined"


class NotFreeError(InvitationError):
    """The invited one disconnected, or is in a chat with somebody else."""

    code = ErrorCode.NOT_FREE
    text = "no longer available"


class TimedOutError(InvitationError):
    """The invited one did not answer in time."""

    code = ErrorCode.TIMED_OUT
    text = "no answer"


class WithdrawnError(InvitationError):
    """This side withdrew it, or it ended because this side did something else."""

    text = "withdrawn"


# --- No connection came about ---------------------------------------------------------------


class ConnectError(ChatError):
    """The server could not be reached, or is no server of this kind."""

    text = "no connection"


class CertificateError(ConnectError):
    """The server's certificate is not one to trust. Nothing was sent to it."""

    text = "the server's certificate is not trusted"


class UnknownCertificateError(CertificateError):
    """Nobody vouches for the certificate, and it was not seen before.

    :param fingerprint: the certificate's SHA-256, to be compared with what the server's
        operator says; `KnownHosts.add` takes it
    """

    def __init__(self, host: str, fingerprint: str) -> None:
        super().__init__(f"the certificate of {host} is not known here: SHA-256 {fingerprint}")
        self.fingerprint = fingerprint


class ChangedCertificateError(CertificateError):
    """The server shows another certificate than before. It may be somebody else."""


# --- The connection is over -----------------------------------------------------------------


class ConnectionEndedError(ChatError):
    """The connection has ended, and with it the chat and all invitations."""

    text = "the connection has ended"


class ConnectionLostError(ConnectionEndedError):
    """The network failed, or the server did."""

    text = "the connection to the server is lost"


class ClosedError(ConnectionEndedError):
    """This side closed the connection."""

    text = "the connection was closed"


class ReplacedError(ConnectionEndedError):
    """The account has logged in elsewhere. Don't reconnect: that would throw the other out."""

    code = ErrorCode.REPLACED
    text = "you have logged in elsewhere, and only one connection at a time is yours"


class ShutdownError(ConnectionEndedError):
    """The server is going down."""

    code = ErrorCode.SHUTDOWN
    text = "the server is going down"


class LoginTimeoutError(ConnectionEndedError):
    """Nobody logged in on this connection for too long."""

    code = ErrorCode.TIMED_OUT
    text = "the server closed the connection, since nobody had logged in for too long"


class BrokenStreamError(ConnectionEndedError):
    """What came, here or there, was not a packet."""

    code = ErrorCode.BAD_PACKET
    text = "the stream of packets is broken"


class PeerLeftError(ChatError):
    """The peer left the chat, or its connection has ended."""

    code = ErrorCode.PEER_LEFT
    text = "they have left"


def _by_code(base: type[ChatError]) -> dict[bytes, type[ChatError]]:
    return {each.code.value: each for each in base.__subclasses__() if each.code is not None}


REFUSALS = _by_code(RefusedError)
"""The class for each Error code that answers a request."""

INVITATION_ENDS = _by_code(InvitationError)
"""The class for each Error code that ends an invitation, unasked."""

CONNECTION_ENDS = _by_code(ConnectionEndedError)
"""The class for each Error code after which the server closes. TIMEOUT is one before login only."""

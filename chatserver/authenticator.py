"""Registers and logs in: from a packet's body to `admitted` or `refused`."""

from __future__ import annotations

from collections.abc import Generator

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger, LogLevel

from chatserver.accounts import (
    Accounts,
    AccountsError,
    NameTakenError,
    NotAuthenticatedError,
    TooBusyError,
)
from chatserver.conversation import Conversation
from chatserver.credentials import (
    Credentials,
    MalformedCredentialsError,
    for_login,
    for_registration,
)
from chatserver.limits import MIN_PASSWORD_LENGTH
from chatserver.packets import Command, ErrorCode

_CODES: dict[type[AccountsError], ErrorCode] = {
    NameTakenError: ErrorCode.NAME_TAKEN,
    NotAuthenticatedError: ErrorCode.NOT_AUTHENTICATED,
    TooBusyError: ErrorCode.SLOW_DOWN,
}
"""How a client is told of an error; of any other by FAILED."""


class AccountAuthenticator:
    """The `Authenticator` of the conversations that goes by the accounts.

    :param accounts: where the accounts are kept
    :param min_password_length: bytes that a new password must have at least
    """

    _log = Logger()

    def __init__(self, accounts: Accounts, min_password_length: int = MIN_PASSWORD_LENGTH) -> None:
        self._accounts = accounts
        self._min_password_length = min_password_length

    def register(self, conversation: Conversation, body: bytes, address: str) -> None:
        """Make the account that `body` asks for."""
        try:
            credentials = for_registration(body, self._min_password_length)
        except MalformedCredentialsError:
            conversation.refused(Command.REGISTER, ErrorCode.MALFORMED)
        else:
            deciding = self._accounts.register(credentials)
            self._decide(conversation, Command.REGISTER, credentials, address, deciding)

    def log_in(self, conversation: Conversation, body: bytes, address: str) -> None:
        """Check the credentials in `body`."""
        try:
            credentials = for_login(body)
        except MalformedCredentialsError:
            conversation.refused(Command.LOGIN, ErrorCode.MALFORMED)
        else:
            deciding = self._accounts.log_in(credentials)
            self._decide(conversation, Command.LOGIN, credentials, address, deciding)

    @inlineCallbacks
    def _decide(
        self,
        conversation: Conversation,
        command: Command,
        credentials: Credentials,
        address: str,
        deciding: Deferred[None],
    ) -> Generator[Deferred[None], None, None]:
        """Tell `conversation` what became of `command`, and the log as well."""
        client = f"{credentials.name!r} ({address})"
        try:
            yield deciding
        except AccountsError as error:
            code = _CODES.get(type(error), ErrorCode.FAILED)
            level = LogLevel.error if code is ErrorCode.FAILED else LogLevel.warn
            self._log.emit(
                level,
                "{command} refused: {client}, {reason}",
                command=command.name.title(),
                client=client,
                reason=str(error),
            )
            conversation.refused(command, code)
        except Exception:
            self._log.failure("Neither admitted nor refused: {client}", client=client)
            conversation.refused(command, ErrorCode.FAILED)
        else:
            if command is Command.REGISTER:
                self._log.info("Registered: {client}", client=client)
            conversation.admitted(credentials.name.encode())

"""Registers and logs in: from a packet's body to `admitted` or `refused`."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from chatserver.accounts import (
    Accounts,
    AccountsError,
    NameTakenError,
    NotAuthenticatedError,
    StorageFailedError,
    TooBusyError,
)
from chatserver.addresses import Address
from chatserver.attempts import LoginAttempts, TooManyFailuresError
from chatserver.conversation import Conversation
from chatserver.credentials import (
    Credentials,
    MalformedCredentialsError,
    for_login,
    for_registration,
)
from chatserver.limits import MIN_PASSWORD_LENGTH
from chatserver.packets import Command, ErrorCode
from chatserver.rates import Rate, RateLimit

_CODES: dict[type[AccountsError], ErrorCode] = {
    NameTakenError: ErrorCode.NAME_TAKEN,
    NotAuthenticatedError: ErrorCode.NOT_AUTHENTICATED,
    TooBusyError: ErrorCode.SLOW_DOWN,
    TooManyFailuresError: ErrorCode.SLOW_DOWN,
}
"""How a client is told of an error; of any other by FAILED."""


class AccountAuthenticator:
    """The `Authenticator` of the conversations that goes by the accounts.

    :param clock: the clock of the rates
    :param accounts: where the accounts are kept
    :param min_password_length: bytes that a new password must have at least
    :param registration_is_open: whether anybody can make an account
    :param registrations: how many registrations are tried for one address; None is no limit
    :param failed_logins: how many logins may fail, see `LoginAttempts`; None is no limit
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        accounts: Accounts,
        *,
        min_password_length: int = MIN_PASSWORD_LENGTH,
        registration_is_open: bool = True,
        registrations: Rate | None = None,
        failed_logins: Rate | None = None,
    ) -> None:
        self._accounts = accounts
        self._min_password_length = min_password_length
        self._registration_is_open = registration_is_open
        self._registrations = RateLimit(clock, registrations)
        self._attempts = LoginAttempts(clock, failed_logins)

    def register(self, conversation: Conversation, body: bytes, address: Address) -> None:
        """Make the account that `body` asks for."""

        def refuse(code: ErrorCode, reason: str) -> None:
            self._refuse(conversation, Command.REGISTER, code, str(address), reason)

        if not self._registration_is_open:
            refuse(ErrorCode.REGISTRATION_CLOSED, "registration is closed")
            return
        try:
            credentials = for_registration(body, self._min_password_length)
        except MalformedCredentialsError as error:
            refuse(ErrorCode.MALFORMED, str(error))
            return
        if address.network is not None and not self._registrations.allows(address.network):
            limit = self._registrations.rate
            refuse(ErrorCode.SLOW_DOWN, f"too many registrations from there (limit {limit})")
            return
        registering = self._accounts.register(credentials)
        self._decide(conversation, Command.REGISTER, credentials, address, registering)

    def log_in(self, conversation: Conversation, body: bytes, address: Address) -> None:
        """Check the credentials in `body`."""
        try:
            credentials = for_login(body)
        except MalformedCredentialsError as error:
            code, client = ErrorCode.MALFORMED, str(address)
            self._refuse(conversation, Command.LOGIN, code, client, str(error))
            return
        logging_in = self._attempts.make(
            credentials.name, address.network, lambda: self._accounts.log_in(credentials)
        )
        self._decide(conversation, Command.LOGIN, credentials, address, logging_in)

    def _decide(
        self,
        conversation: Conversation,
        command: Command,
        credentials: Credentials,
        address: Address,
        outcome: Deferred[None],
    ) -> None:
        """Tell `conversation`, and the log, what `outcome` is once it is there."""
        client = f"{credentials.name!r} ({address})"

        def admit(_: None) -> None:
            if command is Command.REGISTER:
                self._log.info("Registered: {client}", client=client)
            conversation.admitted(credentials.name.encode())

        def refuse(failure: Failure) -> None:
            error = failure.value
            if isinstance(error, StorageFailedError) and error.is_told:
                conversation.refused(command, ErrorCode.FAILED)
            elif isinstance(error, AccountsError):
                code = _CODES.get(type(error), ErrorCode.FAILED)
                self._refuse(conversation, command, code, client, str(error))
            else:
                self._log.failure("Neither admitted nor refused: {client}", failure, client=client)
                conversation.refused(command, ErrorCode.FAILED)

        def log_fault(failure: Failure) -> None:
            self._log.failure("A fault of the server's: {client}", failure, client=client)

        outcome.addCallbacks(admit, refuse).addErrback(log_fault)

    def _refuse(
        self,
        conversation: Conversation,
        command: Command,
        code: ErrorCode,
        client: str,
        reason: str,
    ) -> None:
        self._log.emit(
            LogLevel.error if code is ErrorCode.FAILED else LogLevel.warn,
            "{command} refused: {client}, {reason}",
            command=command.name.title(),
            client=client,
            reason=reason,
        )
        conversation.refused(command, code)

"""Registers and logs in: from a packet's body to `admitted` or `refused`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
    :param registrations: how many registrations are tried for one address, malformed ones included;
        None is no limit
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
        request = _Request(Command.REGISTER, conversation, address)
        if not self._registration_is_open:
            self._refuse(request, ErrorCode.REGISTRATION_CLOSED, "registration is closed")
            return
        # Before the body is looked at: some names take long to check.
        if address.network is not None and not self._registrations.allows(address.network):
            reason = f"too many registrations from there (limit {self._registrations.rate})"
            self._refuse(request, ErrorCode.SLOW_DOWN, reason)
            return
        try:
            credentials = for_registration(body, self._min_password_length)
        except MalformedCredentialsError as error:
            self._refuse(request, ErrorCode.MALFORMED, str(error))
            return
        request.name = credentials.name
        self._decide(request, self._accounts.register(credentials))

    def log_in(self, conversation: Conversation, body: bytes, address: Address) -> None:
        """Check the credentials in `body`."""
        request = _Request(Command.LOGIN, conversation, address)
        try:
            credentials = for_login(body)
        except MalformedCredentialsError as error:
            self._refuse(request, ErrorCode.MALFORMED, str(error))
            return
        request.name = credentials.name
        logging_in = self._attempts.make(
            credentials.name, address.network, lambda: self._accounts.log_in(credentials)
        )
        self._decide(request, logging_in)

    def _decide(self, request: _Request, outcome: Deferred[None]) -> None:
        """Tell the conversation, and the log, what `outcome` is once it is there."""
        conversation, command = request.conversation, request.command

        def admit(_: None) -> None:
            if command is Command.REGISTER:
                self._log.info("Registered: {client}", **request.who)
            conversation.admitted(request.name.encode())

        def refuse(failure: Failure) -> None:
            error = failure.value
            if isinstance(error, StorageFailedError) and error.is_told:
                conversation.refused(command, ErrorCode.FAILED)
            elif isinstance(error, AccountsError):
                self._refuse(request, _CODES.get(type(error), ErrorCode.FAILED), str(error))
            else:
                self._log.failure("Neither admitted nor refused: {client}", failure, **request.who)
                conversation.refused(command, ErrorCode.FAILED)

        def log_fault(failure: Failure) -> None:
            self._log.failure("A fault of the server's: {client}", failure, **request.who)

        outcome.addCallbacks(admit, refuse).addErrback(log_fault)

    def _refuse(self, request: _Request, code: ErrorCode, reason: str) -> None:
        self._log.emit(
            LogLevel.error if code is ErrorCode.FAILED else LogLevel.warn,
            "{command} refused: {client}, {reason}",
            command=request.command.name.title(),
            reason=reason,
            **request.who,
        )
        request.conversation.refused(request.command, code)


@dataclass(slots=True)
class _Request:
    """A Register or Login of a client at `address`. The name is empty until it is known."""

    command: Command
    conversation: Conversation
    address: Address
    name: str = ""

    @property
    def who(self) -> dict[str, Any]:
        """Who the client is, for a log event; see `LineRates`."""
        client = f"{self.name!r} ({self.address})" if self.name else str(self.address)
        return {"client": client, "network": self.address.network}

"""From an address to a client that is logged in: the certificate, the password, the account."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from chatserver.client import (
    CertificateError,
    ChatClient,
    ChatError,
    Fingerprint,
    Handler,
    KnownHosts,
    MalformedCredentialsError,
    NameTakenError,
    NotAuthenticatedError,
    UnknownCertificateError,
    connect,
)
from chatserver.client.reconnecting import LOGIN_TIMEOUT
from chatserver.printable import visible
from chatserver.terminal.options import Address, Options, UsageError, parse_address
from chatserver.terminal.waiting import result

if TYPE_CHECKING:  # prompt_toolkit, which scripts do without
    from chatserver.terminal.questions import Questions

TRIES = 3
"""How often a password is asked for: as ssh and sudo do."""


class SignInError(Exception):
    """There is no login. The text is one sentence."""


async def sign_in(
    reactor: Any, options: Options, questions: Questions | None, handler: Handler
) -> ChatClient:
    """Return a client that is logged in.

    :param options: with an address
    :param questions: None if nobody can be asked
    :raises SignInError: it did not come to that
    :raises UserQuit: the user has enough
    """
    return await _SigningIn(reactor, options, questions, handler).run()


async def ask_address(questions: Questions) -> Address:
    """Return who the user is, and where: ask until it is an address.

    :raises UserQuit: the user has enough
    """
    while True:
        try:
            return parse_address(await questions.ask("Your name and server (NAME@HOST): "))
        except UsageError as error:
            say(f"{error}.")


def say(text: str) -> None:
    """Tell the user something, before there is a chat."""
    print(text, file=sys.stderr, flush=True)


class _SigningIn:
    """One user's way in."""

    def __init__(
        self, reactor: Any, options: Options, questions: Questions | None, handler: Handler
    ) -> None:
        assert options.address is not None
        self._reactor = reactor
        self._address: Address = options.address
        self._trust = options.trust
        self._password = options.password
        self._may_register = options.may_register
        self._questions = questions
        self._handler = handler

    async def run(self) -> ChatClient:
        """Return a client that is logged in, or raise what `sign_in` raises."""
        try:
            if self._password is not None:
                return await self._enter(self._password)
            return await self._ask_and_enter()
        except ChatError as error:
            raise SignInError(str(error)) from None

    async def _ask_and_enter(self) -> ChatClient:
        """Ask for the password until it is right, or too often."""
        if self._questions is None:
            raise SignInError(
                "no password: there is no terminal to ask at;"
                " give --password-file or set ASYNCCHAT_PASSWORD"
            )
        # Not before one knows that it goes to the right server.
        await result((await self._connect()).close())
        for _ in range(TRIES):
            password = await self._questions.ask_secret(f"Password for {self._shown_name}: ")
            try:
                return await self._enter(password)
            except (NotAuthenticatedError, MalformedCredentialsError) as error:
                say(f"{error}.")
        raise SignInError("wrong password")

    async def _enter(self, password: str) -> ChatClient:
        """Log in, or register if the account does not exist and the user wants that."""
        try:
            return await self._log_in_or_register(password, is_new=False)
        except NotAuthenticatedError:
            if not (self._may_register or await self._wants_account(password)):
                raise
        try:
            return await self._log_in_or_register(password, is_new=True)
        except NameTakenError:
            raise NotAuthenticatedError(
                f"there is an account {self._shown_name}, with another password"
            ) from None

    async def _log_in_or_register(self, password: str, is_new: bool) -> ChatClient:
        # On a connection of its own: while the user thinks, the server may close it.
        client = await self._connect()
        enter = client.register if is_new else client.log_in
        try:
            await asyncio.wait_for(result(enter(self._address.name, password)), LOGIN_TIMEOUT)
        except TimeoutError:
            await result(client.close())
            raise SignInError("the server does not answer") from None
        except ChatError:
            await result(client.close())
            raise
        return client

    async def _wants_account(self, password: str) -> bool:
        if self._questions is None or self._password is not None:
            return False
        say(f"There is no account {self._shown_name} with that password.")
        if not await self._questions.confirm("Make a new account with it?"):
            return False
        if await self._questions.ask_secret("The password again: ") == password:
            return True
        say("The two differ.")
        return False

    async def _connect(self) -> ChatClient:
        """Connect. A certificate that nobody vouches for is trusted if the user says so."""
        try:
            return await self._try_to_connect()
        except UnknownCertificateError as error:
            await self._trust_or_refuse(error.fingerprint)
        return await self._try_to_connect()

    async def _try_to_connect(self) -> ChatClient:
        address = self._address
        return await result(
            connect(
                self._reactor, address.host, address.port, trust=self._trust, handler=self._handler
            )
        )

    async def _trust_or_refuse(self, fingerprint: str) -> None:
        """Ask whether a certificate is to be trusted from now on."""
        host = visible(self._address.host)
        if self._questions is None or not isinstance(self._trust, KnownHosts):
            raise SignInError(
                f"the certificate of {host} is not known here; compare its fingerprint"
                f" with what the server's operator says, and give --fingerprint {fingerprint}"
            )
        say(
            f"The certificate of {host} is not known here. Its SHA-256 fingerprint is\n"
            f"  {fingerprint[:47]}:\n  {fingerprint[48:]}\n"
            "Compare it with what the server's operator, or its log, says."
        )
        if not await self._questions.confirm("Is it the same, and do you trust it from now on?"):
            raise SignInError("the certificate is not trusted; nothing was sent")
        try:
            self._trust.add(self._address.host, self._address.port, fingerprint)
        except CertificateError as error:
            say(f"It is trusted this time only: {error}.")
            self._trust = Fingerprint(fingerprint)

    @property
    def _shown_name(self) -> str:
        return visible(self._address.name)

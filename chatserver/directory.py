"""Who is online on one machine. What they do with each other is in `chatserver.users`."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from chatserver.addresses import Address
from chatserver.conversation import Conversation, Ticket
from chatserver.limits import INVITATION_TIMEOUT
from chatserver.packets import Command, ErrorCode
from chatserver.rates import Rate, RateLimit
from chatserver.users import Peer, User


class LocalDirectory:
    """The `Directory` of one machine: every outcome is told at once.

    :param clock: where the time-outs of invitations run
    :param invitation_timeout: seconds that an invitation waits for its answer; None is for ever
    :param invitations: how often one account may invite; None is no limit
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        invitation_timeout: float | None = INVITATION_TIMEOUT,
        invitations: Rate | None = None,
    ) -> None:
        self._clock = clock
        self._invitation_timeout = invitation_timeout
        self._invitations = RateLimit(clock, invitations)
        self._users: dict[bytes, User] = {}

    # --- Coming and going -----------------------------------------------------------------

    def enter(self, name: bytes, conversation: Conversation, address: Address) -> None:
        """See `Directory`. An older connection of `name` ends as if it had disconnected."""
        self._add(User(name, conversation, address, self._clock, self._invitation_timeout))

    def turn_back(self, conversation: Conversation) -> None:
        """See `Directory`. Whoever enters has done so at once."""

    def _add(self, user: User) -> None:
        older = self._users.get(user.name)
        if older is not None:
            self.depart(user.name)
        self._users[user.name] = user
        self._log.info("Logged in: {user}", user=str(user), network=user.network)
        if older is not None:
            self._log.info(
                "Replaced: {older} by {user}",
                older=str(older),
                user=str(user),
                network=user.network,
            )
            older.conversation.replaced()
        user.conversation.entered()

    def depart(self, name: bytes) -> None:
        """See `Directory`. A chat partner and those who have invited `name` are told."""
        self._users.pop(name).depart()

    def close(self) -> None:
        """See `Directory`."""
        for user in self._users.values():
            user.forget()
        self._users.clear()

    # --- What they do ---------------------------------------------------------------------

    def invite(self, name: bytes, invitee: bytes, command: Command) -> None:
        """See `Directory`."""
        user = self._users[name]
        if not self._invitations.allows(name):
            limit = str(self._invitations.rate)
            self._log.warn(
                "Too many invitations: {user} (limit {limit})",
                user=str(user),
                limit=limit,
                network=user.network,
            )
            user.conversation.refused(command, ErrorCode.SLOW_DOWN)
        elif invitee == name:
            user.conversation.refused(command, ErrorCode.YOURSELF)
        elif (peer := self._find(invitee)) is None:
            user.conversation.refused(command, ErrorCode.NOT_ONLINE)
        else:
            user.invite(peer, command)

    def _find(self, name: bytes) -> Peer | None:
        """Return the user `name`, or None if there is none."""
        return self._users.get(name)

    def accept(self, name: bytes, inviter: bytes, command: Command) -> None:
        """See `Directory`. `inviter` may be empty: the newest invitation is meant."""
        self._users[name].accept(inviter, command)

    def decline(self, name: bytes, other: bytes, command: Command) -> None:
        """See `Directory`. `other` may be empty: the newest received invitation is meant."""
        self._users[name].decline(other, command)

    def relay(self, name: bytes, texts: Sequence[bytes], ticket: Ticket) -> None:
        """See `Directory`."""
        self._users[name].say(texts, ticket)

    def leave(self, name: bytes) -> None:
        """See `Directory`. The chat partner is told."""
        self._users[name].leave()

    def backlogged(self, name: bytes) -> None:
        """See `Directory`. A chat partner is told, now and when a chat begins."""
        self._users[name].hold(True)

    def drained(self, name: bytes) -> None:
        """See `Directory`. A chat partner is told."""
        self._users[name].hold(False)

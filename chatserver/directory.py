"""Who is online, who has invited whom, and who chats with whom, on one machine.

Every rule about invitations is here. Each call first brings the facts into order and only
then tells the conversations that it concerns: what these do in turn may lead back here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from chatserver.addresses import Address
from chatserver.conversation import Conversation, Ticket
from chatserver.limits import INVITATION_TIMEOUT, MAX_RECEIVED_INVITATIONS
from chatserver.packets import Command, ErrorCode
from chatserver.rates import Rate, RateLimit


@dataclass(eq=False)
class _User:
    """Somebody who is online.

    `sent` is the one invitation of theirs that waits for its answer. `received` has what
    others sent them, by the inviter's name, the newest last. None stands for one that is
    gone: it ended without the invited one's doing, and its place is kept so that an accept
    already on its way can't open a chat with somebody else than was meant. `rate_key` stands for
    this connection in the rate of invitations, which remembers it for longer than it is there.
    """

    name: bytes
    conversation: Conversation
    address: Address
    partner: _User | None = None
    sent: _Invitation | None = None
    received: dict[bytes, _Invitation | None] = field(default_factory=dict)
    is_backlogged: bool = False
    rate_key: object = field(default_factory=object)

    def __str__(self) -> str:
        return f"{self.name.decode()!r} ({self.address})"

    @property
    def network(self) -> str | None:
        """Where the user is, for limits; see `Address`."""
        return self.address.network

    def has_invited(self, other: _User | None) -> bool:
        """Tell whether an invitation to `other` waits for its answer."""
        return self.sent is not None and self.sent.invitee is other

    def waiting(self) -> list[_Invitation]:
        """Return the received invitations that can still be accepted, the oldest first."""
        return [invitation for invitation in self.received.values() if invitation is not None]

    def inviter_meant(self, inviter: bytes, command: Command) -> bytes | None:
        """Return whose invitation is meant by answering `inviter` with `command`, if any is."""
        if inviter in self.received:
            return inviter
        # To the reference's commands any other body counts as empty: as the newest.
        if not inviter or command in (Command.ACK, Command.ERROR):
            return next(reversed(self.received), None)
        return None


@dataclass(eq=False)
class _Invitation:
    """`inviter` would like to chat with `invitee`, said so with `command`, and waits."""

    inviter: _User
    invitee: _User
    command: Command
    timeout: IDelayedCall | None = None


class LocalDirectory:
    """The `Directory` of one machine: every outcome is told at once.

    :param clock: where the time-outs of invitations run
    :param invitation_timeout: seconds that an invitation waits for its answer; None is for ever
    :param invitations: how often one connection may invite; None is no limit
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
        self._users: dict[bytes, _User] = {}

    # --- Coming and going -----------------------------------------------------------------

    def enter(self, name: bytes, conversation: Conversation, address: Address) -> None:
        """See `Directory`. An older connection of `name` ends as if it had disconnected."""
        older = self._users.get(name)
        if older is not None:
            self.depart(name)
        user = self._users[name] = _User(name, conversation, address)
        self._log.info("Logged in: {user}", user=str(user), network=user.network)
        if older is not None:
            self._log.info(
                "Replaced: {older} by {user}",
                older=str(older),
                user=str(user),
                network=user.network,
            )
            older.conversation.replaced()
        conversation.entered()

    def depart(self, name: bytes) -> None:
        """See `Directory`. A chat partner and those who have invited `name` are told."""
        user = self._users.pop(name)
        self._withdraw(user)
        inviters = self._end_received(user)
        partner = self._part(user)
        if partner is not None:
            partner.conversation.peer_left()
        for inviter in inviters:
            inviter.conversation.invitation_ended(ErrorCode.NOT_FREE)

    def close(self) -> None:
        """See `Directory`."""
        for user in self._users.values():
            if user.sent is not None:
                self._end(user.sent)
        self._users.clear()

    # --- Invitations ----------------------------------------------------------------------

    def invite(self, name: bytes, invitee: bytes, command: Command) -> None:
        """See `Directory`. An invitation that is delivered withdraws the earlier one."""
        user = self._users[name]
        peer = self._users.get(invitee)
        if not self._invitations.allows(user.rate_key):
            limit = str(self._invitations.rate)
            self._log.warn(
                "Too many invitations: {user} (limit {limit})",
                user=str(user),
                limit=limit,
                network=user.network,
            )
            user.conversation.refused(command, ErrorCode.SLOW_DOWN)
        elif peer is None:
            user.conversation.refused(command, ErrorCode.NOT_ONLINE)
        elif peer is user:
            user.conversation.refused(command, ErrorCode.YOURSELF)
        elif not self._is_open_to(peer, user):
            user.conversation.refused(command, ErrorCode.BUSY)
        else:
            self._withdraw(user)
            self._deliver(_Invitation(user, peer, command))
            peer.conversation.invited(name)
            user.conversation.granted(command)

    def accept(self, name: bytes, inviter: bytes, command: Command) -> None:
        """See `Directory`. `inviter` may be empty: the newest invitation is meant."""
        user = self._users[name]
        meant = user.inviter_meant(inviter, command)
        if meant is None:
            user.conversation.refused(command, ErrorCode.NO_INVITATION)
        elif (invitation := user.received[meant]) is None:
            del user.received[meant]
            user.conversation.refused(command, ErrorCode.LOST)
        else:
            self._open_chat(invitation, command)

    def decline(self, name: bytes, other: bytes, command: Command) -> None:
        """See `Directory`. `other` may be empty: the newest received invitation is meant.

        Only ChatDecline withdraws. When both have invited each other, both invitations end.
        """
        user = self._users[name]
        meant = user.inviter_meant(other, command)
        withdraws = command is Command.CHAT_DECLINE and user.has_invited(self._users.get(other))
        if meant is None and not withdraws:
            user.conversation.refused(command, ErrorCode.NO_INVITATION)
            return
        declined = None
        if meant is not None and (invitation := user.received.pop(meant)) is not None:
            self._end(invitation)
            declined = invitation.inviter
        if withdraws or (declined is not None and user.has_invited(declined)):
            self._withdraw(user)
        if declined is not None:
            declined.conversation.invitation_ended(ErrorCode.DECLINED)
        user.conversation.granted(command)

    def _is_open_to(self, peer: _User, inviter: _User) -> bool:
        """Tell whether `inviter` may invite `peer` now."""
        if peer.partner is not None or peer.is_backlogged:
            return False
        if peer.has_invited(inviter):
            return True
        others = [each for each in peer.waiting() if each.inviter is not inviter]
        return len(others) < MAX_RECEIVED_INVITATIONS

    def _deliver(self, invitation: _Invitation) -> None:
        """Put `invitation` in its place, as the invited one's newest."""
        inviter, received = invitation.inviter, invitation.invitee.received
        received.pop(inviter.name, None)
        received[inviter.name] = inviter.sent = invitation
        if self._invitation_timeout is not None:
            invitation.timeout = self._clock.callLater(
                self._invitation_timeout, self._time_out, inviter
            )
        gone = [name for name, each in received.items() if each is None]
        for oldest in gone[: max(0, len(received) - MAX_RECEIVED_INVITATIONS)]:
            del received[oldest]

    def _time_out(self, inviter: _User) -> None:
        """End the invitation that `inviter` sent: it has waited long enough."""
        self._withdraw(inviter)
        inviter.conversation.invitation_ended(ErrorCode.TIMED_OUT)

    def _withdraw(self, inviter: _User) -> None:
        """End the invitation that `inviter` sent, if there is one; its place is kept."""
        invitation = inviter.sent
        if invitation is not None:
            self._end(invitation)
            invitation.invitee.received[inviter.name] = None

    def _end(self, invitation: _Invitation) -> None:
        """Let `invitation` wait no more. What the invited one keeps of it is not decided here."""
        if invitation.timeout is not None and invitation.timeout.active():
            invitation.timeout.cancel()
        invitation.inviter.sent = None

    def _end_received(self, user: _User) -> list[_User]:
        """Forget all that `user` received. Return those whose invitation was still waiting."""
        waiting = user.waiting()
        user.received.clear()
        for invitation in waiting:
            self._end(invitation)
        return [invitation.inviter for invitation in waiting]

    # --- Chats ----------------------------------------------------------------------------

    def relay(self, name: bytes, texts: Sequence[bytes], ticket: Ticket) -> None:
        """See `Directory`."""
        user = self._users[name]
        if user.partner is None:
            ticket.undelivered()
        else:
            user.partner.conversation.messages_arrived(name, texts)
            ticket.delivered()

    def leave(self, name: bytes) -> None:
        """See `Directory`. The chat partner is told."""
        partner = self._part(self._users[name])
        if partner is not None:
            partner.conversation.peer_left()

    def backlogged(self, name: bytes) -> None:
        """See `Directory`. A chat partner is told, now and when a chat begins."""
        user = self._users[name]
        user.is_backlogged = True
        if user.partner is not None:
            user.partner.conversation.peer_backlogged()

    def drained(self, name: bytes) -> None:
        """See `Directory`. A chat partner is told."""
        user = self._users[name]
        user.is_backlogged = False
        if user.partner is not None:
            user.partner.conversation.peer_drained()

    def _open_chat(self, invitation: _Invitation, command: Command) -> None:
        """Open the chat that `invitation`, accepted with `command`, asked for."""
        inviter, invitee = invitation.inviter, invitation.invitee
        self._end(invitation)
        del invitee.received[inviter.name]
        self._withdraw(invitee)
        others = self._end_received(inviter) + self._end_received(invitee)
        inviter.partner, invitee.partner = invitee, inviter
        self._log.info(
            "Chat opened: {a} and {b}", a=str(inviter), b=str(invitee), network=inviter.network
        )

        invitee.conversation.chat_opened(inviter.name, command)
        inviter.conversation.chat_opened(invitee.name, invitation.command)
        if inviter.is_backlogged:
            invitee.conversation.peer_backlogged()
        if invitee.is_backlogged:
            inviter.conversation.peer_backlogged()
        for other in others:
            other.conversation.invitation_ended(ErrorCode.NOT_FREE)

    def _part(self, user: _User) -> _User | None:
        """End the chat that `user` is in. Return its partner, or None if there was no chat."""
        partner = user.partner
        if partner is not None:
            user.partner = partner.partner = None
            self._log.info(
                "Chat left: {user} left {partner}",
                user=str(user),
                partner=str(partner),
                network=user.network,
            )
        return partner

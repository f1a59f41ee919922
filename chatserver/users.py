"""Users who are online: whom they have invited, who has invited them, with whom they chat.

Every rule about invitations and chats is here. A `User` does what its own client asks for, and
hears of others what they do to it, as a `Peer`. It asks its peers in the same way, wherever they
are: what they answer may come at once, within the call, or later.

Each call first brings the facts into order and only then tells anybody: what these do in turn may
lead back here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from chatserver.addresses import Address
from chatserver.conversation import Conversation
from chatserver.limits import MAX_RECEIVED_INVITATIONS
from chatserver.packets import Command, ErrorCode

Answered = Callable[[ErrorCode | None], None]
"""What is called once with the outcome: None if it was done, or why not."""


class Delivery(Protocol):
    """Who hears what became of messages: a `Ticket`, or what takes its place."""

    def delivered(self) -> None:
        """Each was handed to the connection."""

    def undelivered(self) -> None:
        """They can't be delivered any more."""


class Peer(Protocol):
    """Another user, on this machine or elsewhere, and what is done to them."""

    @property
    def name(self) -> bytes:
        """The user's name."""

    def offered(self, invitation: Invitation, answer: Answered) -> None:
        """`invitation` is for them."""

    def withdrawn(self, invitation: Invitation) -> None:
        """`invitation`, which was for them, has ended without their doing."""

    def accepted(self, invitation: Invitation, answer: Answered) -> None:
        """`invitation`, which they sent, is accepted. If it still stands they are in the chat."""

    def ended(self, invitation: Invitation, code: ErrorCode) -> None:
        """`invitation`, which they sent, was declined, or its invitee is not free any more."""

    def said(self, sender: User, texts: Sequence[bytes], ticket: Delivery) -> None:
        """Their chat partner `sender` said each of `texts`."""

    def left(self, leaver: User) -> None:
        """Their chat partner `leaver` has left the chat."""

    def held(self, reader: User, is_held: bool) -> None:
        """Their chat partner `reader` does not take what it is sent, or has taken it all."""


@dataclass(eq=False)
class Invitation:
    """`inviter` would like to chat with `invitee`, said so with `command`, and waits."""

    inviter: Peer
    invitee: Peer
    command: Command
    timeout: IDelayedCall | None = None


class User:
    """Somebody who is online here.

    :param conversation: what tells their client
    :param address: where that is
    :param clock: where the time-outs of invitations run
    :param invitation_timeout: seconds that an invitation waits for its answer; None is for ever
    """

    _log = Logger()

    def __init__(
        self,
        name: bytes,
        conversation: Conversation,
        address: Address,
        clock: IReactorTime,
        invitation_timeout: float | None,
    ) -> None:
        self.name = name
        self.conversation = conversation
        self.address = address
        self.login = 0
        """The number of their login, in a cluster."""
        self.partner: Peer | None = None
        self.is_gone = False
        """Whether they are not online any more."""
        self._clock = clock
        self._invitation_timeout = invitation_timeout
        # The one invitation of theirs that waits for its answer.
        self.sent: Invitation | None = None
        self._is_used_up = False
        # What others sent them, by the inviter's name, the newest last. None stands for one that
        # is gone: it ended without the invited one's doing, and its place is kept so that an
        # accept already on its way can't open a chat with somebody else than was meant.
        self.received: dict[bytes, Invitation | None] = {}
        # What a peer has been asked for and has not answered yet, and what waits for that.
        self._offering: Invitation | None = None
        self._accepting: Invitation | None = None
        self._accepted_with = Command.CHAT_ACCEPT
        self._waiting: list[Callable[[], None]] = []
        self._is_held = False

    def __str__(self) -> str:
        return f"{self.name.decode()!r} ({self.address})"

    @property
    def network(self) -> str | None:
        """Where the user is, for limits; see `Address`."""
        return self.address.network

    # --- What their client does -----------------------------------------------------------

    def invite(self, peer: Peer, command: Command) -> None:
        """Invite `peer`. An invitation that is delivered withdraws the earlier one."""
        self._offering = invitation = Invitation(self, peer, command)
        peer.offered(invitation, partial(self._offer_answered, invitation))

    def accept(self, inviter: bytes, command: Command) -> None:
        """Accept the invitation of `inviter`; if that is empty, the newest."""
        meant = self._inviter_meant(inviter, command)
        if meant is None:
            self.conversation.refused(command, ErrorCode.NO_INVITATION)
        elif (invitation := self.received.pop(meant)) is None:
            self.conversation.refused(command, ErrorCode.LOST)
        else:
            self._accepting, self._accepted_with = invitation, command
            invitation.inviter.accepted(invitation, partial(self._accept_answered, invitation))

    def decline(self, other: bytes, command: Command) -> None:
        """Decline the invitation of `other`; if that is empty, the newest.

        ChatDecline withdraws too. When both have invited each other, both invitations end.
        """
        meant = self._inviter_meant(other, command)
        withdraws = command is Command.CHAT_DECLINE and self._has_invited(other)
        if meant is None and not withdraws:
            self.conversation.refused(command, ErrorCode.NO_INVITATION)
            return
        declined = self.received.pop(meant) if meant is not None else None
        if withdraws or (declined is not None and self._has_invited(declined.inviter.name)):
            self._withdraw()
        if declined is not None:
            declined.inviter.ended(declined, ErrorCode.DECLINED)
        self.conversation.granted(command)

    def say(self, texts: Sequence[bytes], ticket: Delivery) -> None:
        """Say each of `texts` to the chat partner."""
        if self.partner is None:
            ticket.undelivered()
        else:
            self.partner.said(self, texts, ticket)

    def leave(self) -> None:
        """Leave the chat, if there is one."""
        partner, self.partner = self.partner, None
        if partner is not None:
            self._log.info(
                "Chat left: {user} left {partner}",
                user=str(self),
                partner=str(partner),
                network=self.network,
            )
            partner.left(self)

    def displaced(self, invitee: bytes) -> None:
        """An invitation that is over may have taken the place of an earlier one to `invitee`."""
        if self._has_invited(invitee):
            self._end_with(ErrorCode.NOT_FREE)

    def hold(self, is_held: bool) -> None:
        """Take no more of what is sent, or go on. A chat partner is told, now or later."""
        self._is_held = is_held
        if self.partner is not None:
            self.partner.held(self, is_held)

    def depart(self) -> None:
        """End all: they are not online any more."""
        self.is_gone = True
        self._withdraw()
        received = self._forget_received()
        self.leave()
        for invitation in received:
            invitation.inviter.ended(invitation, ErrorCode.NOT_FREE)
        self._offering = None
        self._go_on()

    def forget(self) -> None:
        """End all, and tell nobody."""
        self.is_gone = True
        self._end_sent()

    def _offer_answered(self, invitation: Invitation, refusal: ErrorCode | None) -> None:
        self._offering = None
        if self.is_gone:
            if refusal is None:
                invitation.invitee.withdrawn(invitation)
        elif refusal is not None:
            self.conversation.refused(invitation.command, refusal)
        else:
            self._withdraw()
            self.sent = invitation
            if self._invitation_timeout is not None:
                invitation.timeout = self._clock.callLater(self._invitation_timeout, self._time_out)
            self.conversation.granted(invitation.command)
        self._go_on()

    def _go_on(self) -> None:
        """Do what has waited for the answer to an offer. Nobody waits for that any more."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each()

    def _accept_answered(self, invitation: Invitation, refusal: ErrorCode | None) -> None:
        if self._accepting is invitation and not self.is_gone:
            self._accepting = None
            if refusal is None:
                self._begin_chat(invitation.inviter, self._accepted_with)
                self._tell_held()
            else:
                self.conversation.refused(self._accepted_with, refusal)
                self._end_used_up()
        elif refusal is None and self.partner is not invitation.inviter:
            invitation.inviter.left(self)

    def _end_used_up(self) -> None:
        """End the invitation that was sent if it was accepted in vain: it can't be once more."""
        if self._is_used_up and self._end_sent() is not None:
            self.conversation.invitation_ended(ErrorCode.NOT_FREE)

    def _inviter_meant(self, inviter: bytes, command: Command) -> bytes | None:
        """Return whose invitation is meant by answering `inviter` with `command`, if any is."""
        if inviter in self.received:
            return inviter
        # To the reference's commands any other body counts as empty: as the newest.
        if not inviter or command in (Command.ACK, Command.ERROR):
            return next(reversed(self.received), None)
        return None

    def _has_invited(self, other: bytes) -> bool:
        """Tell whether an invitation to `other` waits for its answer."""
        return self.sent is not None and self.sent.invitee.name == other

    def _time_out(self) -> None:
        """End the invitation that was sent: it has waited long enough."""
        self._end_with(ErrorCode.TIMED_OUT)

    def _end_with(self, code: ErrorCode) -> None:
        """End the invitation that was sent, and tell the client why."""
        self._withdraw()
        self.conversation.invitation_ended(code)

    def _withdraw(self) -> None:
        """End the invitation that was sent, if there is one."""
        invitation = self._end_sent()
        if invitation is not None:
            invitation.invitee.withdrawn(invitation)

    def _end_sent(self) -> Invitation | None:
        """Let the invitation that was sent wait no more, and return it, if there is one."""
        invitation, self.sent = self.sent, None
        self._is_used_up = False
        timeout = None if invitation is None else invitation.timeout
        if timeout is not None and timeout.active():
            timeout.cancel()
        return invitation

    def _forget_received(self) -> list[Invitation]:
        """Forget all that was received. Return those that were still waiting."""
        waiting = [each for each in self.received.values() if each is not None]
        self.received.clear()
        return waiting

    # --- What others do (`Peer`) ----------------------------------------------------------

    def offered(self, invitation: Invitation, answer: Answered) -> None:
        """See `Peer`. It is put in its place, as the newest."""
        inviter = invitation.inviter.name
        if not self._is_open_to(inviter):
            answer(ErrorCode.BUSY)
            return
        self.received.pop(inviter, None)
        self.received[inviter] = invitation
        gone = [name for name, each in self.received.items() if each is None]
        for oldest in gone[: max(0, len(self.received) - MAX_RECEIVED_INVITATIONS)]:
            del self.received[oldest]
        answer(None)
        self.conversation.invited(inviter)

    def withdrawn(self, invitation: Invitation) -> None:
        """See `Peer`. Its place is kept."""
        if self.received.get(invitation.inviter.name) is invitation:
            self.received[invitation.inviter.name] = None

    def accepted(self, invitation: Invitation, answer: Answered) -> None:
        """See `Peer`. Who waits to hear of an invitation of their own hears of that first."""
        if self._offering is not None:
            self._waiting.append(lambda: self.accepted(invitation, answer))
            return
        other, crossing = invitation.invitee, self._accepting
        if self.sent is not invitation:
            answer(ErrorCode.LOST)
            return
        if crossing is not None and crossing.inviter is not other:
            self._is_used_up = True
            answer(ErrorCode.LOST)
            return
        self._end_sent()
        self._accepting = None
        self._log.info("Chat opened: {a} and {b}", a=str(self), b=str(other), network=self.network)
        self._begin_chat(other, invitation.command if crossing is None else self._accepted_with)
        is_over = self.partner is not other  # Their client may be gone since it was told.
        answer(ErrorCode.LOST if is_over else None)
        self._tell_held()

    def ended(self, invitation: Invitation, code: ErrorCode) -> None:
        """See `Peer`."""
        if self.sent is invitation:
            self._end_sent()
            self.conversation.invitation_ended(code)

    def said(self, sender: Peer, texts: Sequence[bytes], ticket: Delivery) -> None:
        """See `Peer`."""
        self.conversation.messages_arrived(sender.name, texts)
        ticket.delivered()

    def left(self, leaver: Peer) -> None:
        """See `Peer`."""
        if self.partner is leaver:
            self.partner = None
            self.conversation.peer_left()

    def held(self, reader: Peer, is_held: bool) -> None:
        """See `Peer`."""
        if self.partner is reader:
            if is_held:
                self.conversation.peer_backlogged()
            else:
                self.conversation.peer_drained()

    def _is_open_to(self, inviter: bytes) -> bool:
        """Tell whether `inviter` may invite this user now."""
        if self.partner is not None or self._is_held:
            return False
        if self._has_invited(inviter):
            return True
        waiting = [name for name, each in self.received.items() if each is not None]
        return len([name for name in waiting if name != inviter]) < MAX_RECEIVED_INVITATIONS

    def _begin_chat(self, partner: Peer, command: Command) -> None:
        """Be in a chat with `partner`, invited or accepted with `command`."""
        received = self._forget_received()
        self.partner = partner
        self._withdraw()
        self.conversation.chat_opened(partner.name, command)
        for invitation in received:
            if invitation.inviter is not partner:
                invitation.inviter.ended(invitation, ErrorCode.NOT_FREE)

    def _tell_held(self) -> None:
        """Tell the partner of a chat that has just begun, if it has to wait."""
        if self._is_held and self.partner is not None:
            self.partner.held(self, True)

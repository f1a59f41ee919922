"""All that is under way between this machine and another one.

A `Link` has it in order: what users here have asked of users there, the invitations and the chats
between them. When the other machine is silent for too long, or the stream to it breaks, all of that
ends at once, here and there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from weakref import WeakValueDictionary

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from chatserver.cluster.messages import (
    Accept,
    Answer,
    Body,
    End,
    Frame,
    Hold,
    Leave,
    Offer,
    Say,
    UnknownKindError,
    UnreadableError,
    Withdraw,
    decode_body,
)
from chatserver.cluster.streams import Stream
from chatserver.credentials import is_login_name
from chatserver.limits import (
    CLUSTER_ANSWER_TIMEOUT,
    CLUSTER_CREDIT,
    CLUSTER_FORGET,
    CLUSTER_MESSAGE_COST,
    CLUSTER_SILENCE,
)
from chatserver.packets import MAX_BODY, SEPARATOR, Command, ErrorCode
from chatserver.users import Answered, Delivery, Invitation, User

_CODES = {
    ErrorCode.BUSY.value: ErrorCode.BUSY,
    ErrorCode.NOT_ONLINE.value: ErrorCode.NOT_ONLINE,
    ErrorCode.LOST.value: ErrorCode.LOST,
    ErrorCode.DECLINED.value: ErrorCode.DECLINED,
    ErrorCode.NOT_FREE.value: ErrorCode.NOT_FREE,
}
"""What another machine may answer or tell."""


class RemoteUser:
    """A user of another machine, as the `Peer` of users here.

    :param link: leads to that machine
    :param login: the number of their login
    """

    def __init__(self, link: Link, login: int, name: bytes) -> None:
        self.link = link
        self.login = login
        self.name = name
        self._unanswered = 0
        self._is_full = False
        self._is_held = False
        self._waiting: User | None = None  # the chat partner who was told to wait

    def __str__(self) -> str:
        return f"{self.name.decode(errors='backslashreplace')!r} (machine {self.link.machine})"

    def offered(self, invitation: Invitation, answer: Answered) -> None:
        """See `Peer`."""
        inviter = _here(invitation.inviter)
        number = self.link.keep_sent(invitation)

        def answered(code: ErrorCode | None) -> None:
            if code is not None:
                self.link.forget(invitation)
            answer(code)

        def give_up() -> None:
            self.withdrawn(invitation)
            answer(ErrorCode.FAILED)
            inviter.displaced(self.name)

        self.link.ask(
            partial(Offer, self.login, inviter.login, inviter.name, number), answered, give_up
        )

    def withdrawn(self, invitation: Invitation) -> None:
        """See `Peer`."""
        if (number := self.link.forget(invitation)) is not None:
            self.link.send(Withdraw(number))

    def accepted(self, invitation: Invitation, answer: Answered) -> None:
        """See `Peer`."""
        invitee = _here(invitation.invitee)
        number = self.link.forget(invitation)
        if number is None:  # The link has broken meanwhile.
            answer(ErrorCode.LOST)
            return

        def answered(code: ErrorCode | None) -> None:
            answer(code)
            if code is None and invitee.partner is self:
                self.link.chat_opened(invitee, self)

        def answered_late(code: ErrorCode | None) -> None:
            if code is None:
                self.left(invitee)

        give_up = partial(answer, ErrorCode.FAILED)
        self.link.ask(partial(Accept, number), answered, give_up, answered_late)

    def ended(self, invitation: Invitation, code: ErrorCode) -> None:
        """See `Peer`."""
        if (number := self.link.forget(invitation)) is not None:
            self.link.send(End(number, code.value))

    def said(self, sender: User, texts: Sequence[bytes], ticket: Delivery) -> None:
        """See `Peer`. While too much is not answered the sender has to wait."""
        size = sum(map(len, texts)) + CLUSTER_MESSAGE_COST * len(texts)

        def answered(code: ErrorCode | None) -> None:
            self._unanswered -= size
            if code is None:
                ticket.delivered()
            else:
                ticket.undelivered()
            if self._is_full and self._unanswered <= CLUSTER_CREDIT // 2:
                self._is_full = False
                if self._waiting is not None:  # Perhaps another one than said this.
                    self._hold_or_not(self._waiting)

        self._unanswered += size
        self.link.ask(lambda request: Say(self.login, sender.login, request, list(texts)), answered)
        if self._unanswered > CLUSTER_CREDIT:
            self._is_full = True
            self._hold_or_not(sender)

    def left(self, leaver: User) -> None:
        """See `Peer`."""
        self.chat_over()
        self.link.chat_ended(leaver, self)
        self.link.send(Leave(self.login, leaver.login))

    def held(self, reader: User, is_held: bool) -> None:
        """See `Peer`."""
        self.link.send(Hold(self.login, reader.login, is_held))

    def hold(self, partner: User, is_held: bool) -> None:
        """The other machine tells that they take nothing, or have taken it all."""
        self._is_held = is_held
        self._hold_or_not(partner)

    def chat_over(self) -> None:
        """They are in no chat any more."""
        self._is_held = False
        self._waiting = None

    def _hold_or_not(self, partner: User) -> None:
        must_wait = self._is_held or self._is_full
        if must_wait is not (self._waiting is partner):
            self._waiting = partner if must_wait else None
            partner.held(self, must_wait)


def _here(peer: object) -> User:
    """Return `peer`, who must be a user of this machine."""
    assert isinstance(peer, User)
    return peer


@dataclass(eq=False, slots=True)
class _Request:
    """Something that the other machine was asked for."""

    answered: Answered
    timeout: IDelayedCall | None = None

    def end(self, code: ErrorCode | None) -> None:
        """Hand on the answer."""
        if self.timeout is not None and self.timeout.active():
            self.timeout.cancel()
        self.answered(code)


class _Receipt:
    """Tells the other machine what became of messages (`Delivery`)."""

    def __init__(self, link: Link, request: int) -> None:
        self._link = link
        self._request = request

    def delivered(self) -> None:
        """Each was handed to the connection."""
        self._link.answer(self._request, None)

    def undelivered(self) -> None:
        """They can't be delivered any more."""
        self._link.answer(self._request, ErrorCode.LOST)


class Link:
    """Leads to one other machine.

    :param own: who this machine is
    :param machine: who the other one is
    :param clock: where time-outs run
    :param publish: sends bytes to the other machine
    :param users: the users here, by the numbers of their logins
    """

    _log = Logger()

    def __init__(
        self,
        own: str,
        machine: str,
        clock: IReactorTime,
        publish: Callable[[bytes], None],
        users: Mapping[int, User],
    ) -> None:
        self.machine = machine
        self._clock = clock
        self._users = users
        self._stream = Stream(own, clock, publish, self._end_all)
        self._heard_at = clock.seconds()
        self._numbers = count(1)
        self._requests: dict[int, _Request] = {}
        self._remote_users: WeakValueDictionary[int, RemoteUser] = WeakValueDictionary()
        # The invitations that wait: the numbers of users' here are this machine's.
        self._sent: dict[int, Invitation] = {}
        self._received: dict[int, Invitation] = {}
        self._invitation_numbers: dict[Invitation, int] = {}
        self._chats: dict[User, RemoteUser] = {}

    @property
    def is_busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self._requests or self._sent or self._received or self._chats)

    @property
    def is_forgotten(self) -> bool:
        """Whether nothing was heard for so long that the other machine is hardly there."""
        silent = self._clock.seconds() - self._heard_at
        return not self.is_busy and silent > CLUSTER_FORGET

    def user(self, login: int, name: bytes) -> RemoteUser:
        """Return the user there of this login."""
        user = self._remote_users.get(login)
        if user is None:
            user = self._remote_users[login] = RemoteUser(self, login, name)
        return user

    def send(self, body: Body) -> None:
        """Send `body` to the other machine."""
        self._stream.send(body)

    def ask(
        self,
        make: Callable[[int], Body],
        answered: Answered,
        give_up: Callable[[], None] | None = None,
        answered_late: Answered = lambda _: None,
    ) -> None:
        """Send what `make` makes of a number, and hand on the answer.

        When the link breaks that is FAILED.

        :param give_up: called if there is no answer in `CLUSTER_ANSWER_TIMEOUT`
        :param answered_late: the answer is handed on to this then
        """
        self._wake()
        number = next(self._numbers)
        request = self._requests[number] = _Request(answered)

        def time_out() -> None:
            assert give_up is not None
            request.answered = answered_late
            give_up()

        if give_up is not None:
            request.timeout = self._clock.callLater(CLUSTER_ANSWER_TIMEOUT, time_out)
        self.send(make(number))

    def answer(self, request: int, code: ErrorCode | None) -> None:
        """Answer what the other machine has asked with `request`."""
        self.send(Answer(request, None if code is None else code.value))

    def keep_sent(self, invitation: Invitation) -> int:
        """Keep `invitation` of a user here. Return its number."""
        self._wake()
        number = next(self._numbers)
        self._sent[number] = invitation
        self._invitation_numbers[invitation] = number
        return number

    def _wake(self) -> None:
        """Something is under way from now on. If nothing was, no sign of life is missing yet."""
        if not self.is_busy:
            self._heard_at = self._clock.seconds()

    def forget(self, invitation: Invitation) -> int | None:
        """Forget `invitation`. Return the number that it had, or None if it is not known."""
        number = self._invitation_numbers.pop(invitation, None)
        if number is not None:
            invitations = self._sent if isinstance(invitation.inviter, User) else self._received
            del invitations[number]
        return number

    def chat_opened(self, user: User, partner: RemoteUser) -> None:
        """`user`, who is here, is in a chat with `partner`."""
        self._chats[user] = partner

    def chat_ended(self, user: User, partner: RemoteUser) -> None:
        """The chat of `user`, who is here, with `partner` is over, if there was one."""
        if self._chats.get(user) is partner:
            del self._chats[user]

    def bus_returned(self) -> None:
        """The bus was away: the other machine may not have heard what was said meanwhile."""
        if not self.is_busy:  # Else it finds out what is missing.
            self._stream.restart()  # At once: it might ask for something that is of before.

    # --- Time -----------------------------------------------------------------------------

    def beat(self) -> None:
        """Tell the other machine that this one is there, and look whether that one is.

        To be called once in each `CLUSTER_BEAT_INTERVAL`.
        """
        if not self.is_busy:
            return
        if self._clock.seconds() - self._heard_at > CLUSTER_SILENCE:
            self.break_off("it is silent")
        else:
            self._stream.beat()

    def close(self) -> None:
        """Tell the other machine that the users here are gone. What was asked may be answered."""
        for number in self._sent:
            self.send(Withdraw(number))
        for number in self._received:
            self.send(End(number, ErrorCode.NOT_FREE.value))
        for user, partner in self._chats.items():
            self.send(Leave(partner.login, user.login))
        for kept in (self._sent, self._received, self._chats, self._invitation_numbers):
            kept.clear()

    def stop(self) -> None:
        """Wait for no answer any more."""
        requests, self._requests = self._requests, {}
        for request in requests.values():
            request.end(ErrorCode.FAILED)

    def break_off(self, reason: str) -> None:
        """End all that is under way, here and there."""
        self._stream.restart()
        self._end_all(reason)

    def _end_all(self, reason: str) -> None:
        requests, self._requests = self._requests, {}
        sent, self._sent = self._sent, {}
        received, self._received = self._received, {}
        chats, self._chats = self._chats, {}
        self._invitation_numbers.clear()
        self._remote_users.clear()
        self._heard_at = self._clock.seconds()
        if requests or sent or received or chats:
            self._log.warn(
                "Lost touch with machine {machine}: {reason}; chats with it: {chats}",
                machine=self.machine,
                reason=reason,
                chats=len(chats),
            )
        # First what an accept that waits at its inviter would still find.
        for end in (
            *(partial(each.inviter.ended, each, ErrorCode.NOT_FREE) for each in sent.values()),
            *(partial(each.end, ErrorCode.FAILED) for each in requests.values()),
            *(partial(user.left, partner) for user, partner in chats.items()),
            *(partial(each.invitee.withdrawn, each) for each in received.values()),
        ):
            try:
                end()
            except Exception:  # Of one user, and not of the others.
                self._log.failure(
                    "A fault of the server's, towards {machine}", machine=self.machine
                )

    # --- What the other machine says ------------------------------------------------------

    def received(self, frame: Frame) -> None:
        """Take what the other machine sent.

        :raises UnreadableError: it is nothing that this version knows, or its generation can't be,
            and it is left out; or what it says can't be true, and all that was under way has ended.
            So it has after any other error: somebody may wait for an answer.
        """
        self._heard_at = self._clock.seconds()
        if not self._stream.follows(frame):
            return
        try:
            self._take(decode_body(frame))
        except UnknownKindError:
            raise
        except UnreadableError as error:
            self.break_off(str(error))
            raise
        except Exception:
            self.break_off("a fault of this machine's")
            raise

    def _take(self, body: Body) -> None:
        match body:
            case Answer():
                self._take_answer(body)
            case Say():
                self._take_texts(body)
            case Offer():
                self._take_offer(body)
            case Withdraw():
                if (invitation := self._received.get(body.invitation)) is not None:
                    self.forget(invitation)
                    invitation.invitee.withdrawn(invitation)
            case Accept():
                self._take_accept(body)
            case End():
                code = _code(body.code, ErrorCode.DECLINED, ErrorCode.NOT_FREE)
                if (invitation := self._sent.get(body.invitation)) is not None:
                    self.forget(invitation)
                    invitation.inviter.ended(invitation, code)
            case Leave():
                if (user := self._partner_of(body)) is not None:
                    self._take_leave(user)
            case Hold():
                if (user := self._partner_of(body)) is not None:
                    self._chats[user].hold(user, body.is_held)

    def _take_answer(self, answer: Answer) -> None:
        code = None
        if answer.code is not None:  # Before anything is taken out, since it may be none.
            code = _code(answer.code, ErrorCode.BUSY, ErrorCode.NOT_ONLINE, ErrorCode.LOST)
        request = self._requests.pop(answer.request, None)
        if request is not None:  # Else it was asked before all has ended.
            request.end(code)

    def _take_offer(self, offer: Offer) -> None:
        if offer.invitation in self._received:
            raise UnreadableError(f"the invitation {offer.invitation} is there already")
        if not is_login_name(offer.name):
            raise UnreadableError("an inviter has a name that no account can have")
        user = self._users.get(offer.to)
        if user is None:
            self.answer(offer.request, ErrorCode.NOT_ONLINE)
            return
        inviter = self.user(offer.by, offer.name)
        invitation = Invitation(inviter, user, Command.CHAT_REQUEST)
        self._received[offer.invitation] = invitation
        self._invitation_numbers[invitation] = offer.invitation

        def answered(code: ErrorCode | None) -> None:
            if code is not None:
                self.forget(invitation)
            self.answer(offer.request, code)

        user.offered(invitation, answered)

    def _take_accept(self, accept: Accept) -> None:
        invitation = self._sent.get(accept.invitation)
        if invitation is None:
            self.answer(accept.request, ErrorCode.LOST)
            return
        inviter, invitee = _here(invitation.inviter), invitation.invitee
        assert isinstance(invitee, RemoteUser)

        def answered(code: ErrorCode | None) -> None:
            self.forget(invitation)
            if code is None:
                self.chat_opened(inviter, invitee)
            self.answer(accept.request, code)

        inviter.accepted(invitation, answered)

    def _take_texts(self, say: Say) -> None:
        user = self._partner_of(say)
        if user is None:
            self.answer(say.request, ErrorCode.LOST)
            return
        partner = self._chats[user]
        if max(map(len, say.texts)) > MAX_BODY - len(partner.name) - len(SEPARATOR):
            raise UnreadableError("a message is too long")
        user.said(partner, say.texts, _Receipt(self, say.request))

    def _take_leave(self, user: User) -> None:
        partner = self._chats.pop(user)
        self._log.info(
            "Chat left: {partner} left {user}",
            user=str(user),
            partner=str(partner),
            network=user.network,
        )
        partner.chat_over()
        user.left(partner)

    def _partner_of(self, body: Say | Leave | Hold) -> User | None:
        """Return the user here whom `body` is for, if that is in a chat with who sent it."""
        user = self._users.get(body.to)
        partner = None if user is None else self._chats.get(user)
        return user if partner is not None and partner.login == body.by else None


def _code(code: bytes, *possible: ErrorCode) -> ErrorCode:
    """Return the error code that `code` is.

    :raises UnreadableError: it is none of those `possible` here
    """
    found = _CODES.get(code)
    if found not in possible:
        raise UnreadableError(f"{code!r} is no answer to that")
    return found

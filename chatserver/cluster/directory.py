"""Who is online on this machine of a cluster, and how those on the others are found.

Each user who is online is a subject of the bus to which their machine listens. So there is no table
of who is online that could go stale: a machine that dies takes its subjects with it.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from secrets import token_hex

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatserver.accounts import AccountsError, StorageFailedError
from chatserver.addresses import Address
from chatserver.cluster.bus import Bus, Heard, Subscription
from chatserver.cluster.links import Link, RemoteUser
from chatserver.cluster.messages import (
    VERSION,
    Located,
    Login,
    Lookup,
    UnreadableError,
    decode_announcement,
    decode_frame,
    decode_location,
    encode,
)
from chatserver.conversation import Conversation
from chatserver.credentials import MAX_LOGIN_NAME_BYTES
from chatserver.directory import LocalDirectory
from chatserver.limits import (
    CLUSTER_ANNOUNCE_INTERVAL,
    CLUSTER_ANSWER_TIMEOUT,
    CLUSTER_BEAT_INTERVAL,
    CLUSTER_MACHINES,
    INVITATION_TIMEOUT,
)
from chatserver.packets import Command, ErrorCode
from chatserver.rates import Rate
from chatserver.users import Answered, Delivery, Invitation, Peer, User

TakeLogins = Callable[[int, int], Deferred[list[int]]]
"""Takes so many numbers, each greater than all that any machine has taken before.

Where the database has gone back they are greater at least than the greatest that this machine has
taken, which it is told.
"""


class ClusterDirectory(LocalDirectory):
    """The `Directory` of a machine in a cluster.

    :param bus: carries between the machines
    :param take_logins: numbers logins, so that of two logins of one account the later one is known
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        bus: Bus,
        take_logins: TakeLogins,
        invitation_timeout: float | None = INVITATION_TIMEOUT,
        invitations: Rate | None = None,
    ) -> None:
        super().__init__(clock, invitation_timeout, invitations)
        self.machine = token_hex(6)
        self._bus = bus
        self._take_logins = take_logins
        self._is_closed = False
        self._subscriptions: list[Subscription] = []
        # All who have not entered yet: first they have no number, then the bus gets to know them.
        self._arriving: set[User] = set()
        self._unnumbered: list[User] = []
        self._coming: dict[User, _Presence] = {}
        self._is_numbering = False
        self._greatest_login = 0
        # Who is online, and by the number of the login, which is how other machines name them.
        self._presences: dict[User, _Presence] = {}
        self._logins: dict[int, User] = {}
        self._links: dict[str, Link] = {}
        self._lookups: dict[int, _Lookup] = {}
        self._lookup_numbers = count(1)
        self._beating = LoopingCall(self._beat)
        self._beating.clock = clock

    def start(self) -> None:
        """Begin to listen to the other machines."""
        self._subscriptions = [
            self._bus.subscribe(f"machine.{self.machine}", self._received),
            self._bus.subscribe(f"lookup.{self.machine}.*", self._located),
        ]
        self._bus.on_return(self._bus_returned)

    def close(self) -> None:
        """See `Directory`. The other machines are told: nobody here is in their users' way."""
        self._is_closed = True
        for user in list(self._arriving):
            self._forget_arriving(user)
        for user in list(self._presences):
            self._forget_presence(user)
        super().close()
        for link in self._links.values():
            link.close()

    def stop(self) -> None:
        """Listen to the other machines no more. To be called after `close`, when all is sent."""
        while self._subscriptions:
            self._subscriptions.pop().cancel()
        if self._beating.running:
            self._beating.stop()
        for lookup in self._lookups.values():
            lookup.timeout.cancel()
        self._lookups.clear()
        for link in self._links.values():
            link.stop()

    # --- Coming and going -----------------------------------------------------------------

    def enter(self, name: bytes, conversation: Conversation, address: Address) -> None:
        """See `Directory`. It is told once the login has its number."""
        user = User(name, conversation, address, self._clock, self._invitation_timeout)
        self._arriving.add(user)
        self._unnumbered.append(user)
        if not self._is_numbering:
            self._is_numbering = True
            Deferred.fromCoroutine(self._number_logins()).addErrback(self._log_fault)

    def turn_back(self, conversation: Conversation) -> None:
        """See `Directory`. An older connection of the same name stays."""
        for user in list(self._arriving):
            if user.conversation is conversation:
                self._forget_arriving(user)

    def depart(self, name: bytes) -> None:
        """See `Directory`."""
        self._forget_presence(self._users[name])
        super().depart(name)

    async def _number_logins(self) -> None:
        """Take numbers for all who enter: one question at a time keeps them in their order."""
        try:
            while self._unnumbered:
                entering, self._unnumbered = self._unnumbered, []
                await self._number(entering)
        finally:
            self._is_numbering = False

    async def _number(self, entering: list[User]) -> None:
        try:
            numbers = await self._take_logins(len(entering), self._greatest_login)
        except Exception as error:
            if not isinstance(error, AccountsError):
                self._log_fault(Failure())
            for user in entering:
                self._refuse_unnumbered(user, error)
            return
        if self._is_closed:
            return
        self._greatest_login = numbers[-1]
        for user, number in zip(entering, numbers, strict=True):
            user.login = number
            self._take_step(user, self._listen_for)
        # Whoever hears that they are online is found from then on.
        settled: Deferred[None] = Deferred()
        self._bus.settle(partial(settled.callback, None))
        await settled
        for user in entering:
            self._take_step(user, self._add)

    def _take_step(self, user: User, step: Callable[[User], None]) -> None:
        """Take a step of a login. A fault is of this one, and not of those behind."""
        if user.is_gone:
            return
        try:
            step(user)
        except Exception:
            self._log_fault(Failure())
            if self._users.get(user.name) is user:
                self.depart(user.name)
            elif user in self._presences:
                self._forget_presence(user)
            else:
                self._refuse(user)

    def _log_fault(self, failure: Failure) -> None:
        self._log.failure("A fault of the server's, at a login", failure)

    def _refuse_unnumbered(self, user: User, error: Exception) -> None:
        """Tell `user`, who enters, that there is no number for the login."""
        if user.is_gone:
            return
        if not (isinstance(error, StorageFailedError) and error.is_told):
            self._log.error(
                "Login refused: {user}, {reason}",
                user=str(user),
                reason=str(error),
                network=user.network,
            )
        self._refuse(user)

    def _refuse(self, user: User) -> None:
        """Tell `user`, who enters, that it can't be."""
        self._forget_arriving(user)
        user.conversation.refused(Command.LOGIN, ErrorCode.FAILED)

    def _listen_for(self, user: User) -> None:
        self._coming[user] = _Presence(
            self._bus.subscribe(_subject(user.name), lambda heard: self._hear(user, heard))
        )

    def _add(self, user: User) -> None:
        self._arriving.remove(user)
        self._presences[user] = presence = self._coming.pop(user)
        self._logins[user.login] = user
        self._announce(user)
        # Once more: while two hear of each other for the first time, neither may hear this.
        presence.announcing = self._clock.callLater(
            CLUSTER_ANSWER_TIMEOUT, self._announce_again, user
        )
        super()._add(user)
        while presence.lookups:
            self._answer(presence.lookups.pop(0), user)

    def _forget_arriving(self, user: User) -> None:
        user.forget()
        self._arriving.remove(user)
        if user in self._unnumbered:
            self._unnumbered.remove(user)
        if (presence := self._coming.pop(user, None)) is not None:
            presence.subscription.cancel()

    def _forget_presence(self, user: User) -> None:
        presence = self._presences.pop(user)
        del self._logins[user.login]
        presence.subscription.cancel()
        if presence.announcing is not None and presence.announcing.active():
            presence.announcing.cancel()

    def _announce(self, user: User) -> None:
        """Tell whoever has a user of this name of their login here."""
        self._bus.publish(_subject(user.name), encode(Login(VERSION, user.login, self.machine)))

    def _announce_again(self, user: User) -> None:
        """Announce `user`, and do so now and then: a bus may be in two parts for a while."""
        self._announce(user)
        self._presences[user].announcing = self._clock.callLater(
            CLUSTER_ANNOUNCE_INTERVAL, self._announce_again, user
        )

    def _bus_returned(self) -> None:
        for link in self._links.values():
            link.bus_returned()
        for user in self._presences:
            self._announce(user)

    def _hear(self, user: User, heard: Heard) -> None:
        """Take what is said to all who have a user of this name."""
        try:
            message = decode_announcement(heard.data)
        except UnreadableError as error:
            self._log_unreadable(heard, error)
            return
        if (presence := self._coming.get(user)) is not None:
            # They tell of their own login soon, and whoever has a later one answers that.
            if isinstance(message, Lookup):
                presence.lookups.append(message)
        elif isinstance(message, Lookup):
            self._answer(message, user)
        elif self._is_later(message, user):
            self._log.info(
                "Replaced: {older} by a login on another machine",
                older=str(user),
                network=user.network,
            )
            self.depart(user.name)
            user.conversation.replaced()
        elif message.number < user.login:
            self._announce(user)

    def _is_later(self, login: Login, user: User) -> bool:
        """Tell whether `login` comes after that of `user`."""
        if login.number == user.login:  # As may be when the numbers have gone back.
            return login.machine not in (None, self.machine)
        return login.number > user.login

    def _answer(self, lookup: Lookup, user: User) -> None:
        """Tell where `user` is."""
        self._bus.publish(
            f"lookup.{lookup.machine}.{lookup.request}",
            encode(Located(VERSION, self.machine, user.login)),
        )

    # --- Finding others -------------------------------------------------------------------

    def _find(self, name: bytes) -> Peer | None:
        if (user := super()._find(name)) is not None:
            return user
        return _Elsewhere(self, name) if 0 < len(name) <= MAX_LOGIN_NAME_BYTES else None

    def look_up(self, name: bytes, found: Callable[[RemoteUser | ErrorCode], None]) -> None:
        """Ask where `name` is online, and call `found` with that user, or why there is none."""
        if not self._bus.is_up:
            found(ErrorCode.FAILED)
            return
        number = next(self._lookup_numbers)
        timeout = self._clock.callLater(
            CLUSTER_ANSWER_TIMEOUT, self._end_lookup, number, ErrorCode.FAILED
        )
        self._lookups[number] = _Lookup(name, found, timeout)
        self._bus.publish(
            _subject(name),
            encode(Lookup(VERSION, self.machine, number)),
            answer_to=f"lookup.{self.machine}.{number}",
        )

    def _located(self, heard: Heard) -> None:
        word = heard.subject.rpartition(".")[2]
        number = int(word) if word.isdecimal() and len(word) < 20 else 0
        lookup = self._lookups.get(number)
        if lookup is None:
            return  # Somebody else has answered before, or nothing was asked.
        if heard.is_refusal:
            self._end_lookup(number, ErrorCode.NOT_ONLINE)
            return
        try:
            located = decode_location(heard.data)
        except UnreadableError as error:
            self._log_unreadable(heard, error)
            return
        self._end_lookup(number, self._link(located.machine).user(located.login, lookup.name))

    def _end_lookup(self, number: int, result: RemoteUser | ErrorCode) -> None:
        lookup = self._lookups.pop(number)
        if lookup.timeout.active():
            lookup.timeout.cancel()
        lookup.found(result)

    # --- The other machines ---------------------------------------------------------------

    def _link(self, machine: str) -> Link:
        link = self._links.get(machine)
        if link is None:
            self._make_room()
            subject = f"machine.{machine}"
            link = self._links[machine] = Link(
                self.machine,
                machine,
                self._clock,
                lambda data: self._bus.publish(subject, data),
                self._logins,
            )
            if not self._beating.running:
                self._beating.start(CLUSTER_BEAT_INTERVAL, now=False)
        return link

    def _make_room(self) -> None:
        """Forget a machine with which nothing is under way, if there are too many."""
        if len(self._links) >= CLUSTER_MACHINES:
            idle = next((name for name, link in self._links.items() if not link.is_busy), None)
            if idle is not None:
                del self._links[idle]

    def _received(self, heard: Heard) -> None:
        try:
            frame = decode_frame(heard.data)
            if frame.sender in self._links or not frame.is_beat:
                self._link(frame.sender).received(frame)
        except UnreadableError as error:
            self._log_unreadable(heard, error)

    def _beat(self) -> None:
        for machine, link in list(self._links.items()):
            if link.is_forgotten:
                del self._links[machine]
            else:
                link.beat()
        if not self._links:
            self._beating.stop()

    def _log_unreadable(self, heard: Heard, error: UnreadableError) -> None:
        self._log.warn(
            "Unreadable: what came over the bus for {subject}: {reason}",
            subject=heard.subject,
            reason=str(error),
        )


@dataclass(eq=False, slots=True)
class _Presence:
    """That a user is online is known to the bus, or will be soon."""

    subscription: Subscription
    announcing: IDelayedCall | None = None
    lookups: list[Lookup] = field(default_factory=list)
    """Those that came too early: nobody may be offered anything before they are online."""


@dataclass(eq=False, slots=True)
class _Lookup:
    """Where `name` is has been asked."""

    name: bytes
    found: Callable[[RemoteUser | ErrorCode], None]
    timeout: IDelayedCall


class _Elsewhere:
    """Somebody who is not online here: a `Peer` who is looked for once there is an invitation."""

    def __init__(self, directory: ClusterDirectory, name: bytes) -> None:
        self.name = name
        self._directory = directory

    def offered(self, invitation: Invitation, answer: Answered) -> None:
        """See `Peer`."""

        def found(result: RemoteUser | ErrorCode) -> None:
            if isinstance(invitation.inviter, User) and invitation.inviter.is_gone:
                answer(ErrorCode.NOT_ONLINE)
            elif isinstance(result, RemoteUser):
                invitation.invitee = result
                result.offered(invitation, answer)
            else:
                answer(result)

        self._directory.look_up(self.name, found)

    # Nothing else can be done to somebody who has not been found.

    def withdrawn(self, invitation: Invitation) -> None:
        """See `Peer`."""

    def accepted(self, invitation: Invitation, answer: Answered) -> None:
        """See `Peer`."""

    def ended(self, invitation: Invitation, code: ErrorCode) -> None:
        """See `Peer`."""

    def said(self, sender: User, texts: Sequence[bytes], ticket: Delivery) -> None:
        """See `Peer`."""

    def left(self, leaver: User) -> None:
        """See `Peer`."""

    def held(self, reader: User, is_held: bool) -> None:
        """See `Peer`."""


def _subject(name: bytes) -> str:
    """Return the subject of a user: any bytes as a word of letters, digits, ``-`` and ``_``."""
    return f"user.{urlsafe_b64encode(name).decode().rstrip('=')}"

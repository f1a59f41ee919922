"""A plain model of the rules in docs/protocol.md: what every client hears, and nothing else.

It is written to be read beside that page, and to be as unlike the server as it can be: there
are no packets in bytes, no buffers and no timers, and what is known stands in three tables:
who is online, who chats with whom, and the invitations. `tests.test_model` compares the two.

Two rules are not in it. Which accounts exist is not its business: whoever gives the right
password is let in, by Register as by Login. And every client reads what it is sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from chatserver.packets import Command

LONGEST_BODY = 65_535
"""Bytes of a body, at most: ``name: text`` of a message has to fit."""

INVITING = (Command.FIND_PEER, Command.CHAT_REQUEST)
ACCEPTING = (Command.ACK, Command.CHAT_ACCEPT)
DECLINING = (Command.ERROR, Command.CHAT_DECLINE)
OF_THE_REFERENCE = (Command.ACK, Command.ERROR, Command.FIND_PEER)
"""The old forms: they say less, and are told less."""


@dataclass(eq=False)
class Client:
    """One connection: until when it has to log in, the name that it has logged in with, and all
    that it has heard.
    """

    login_deadline: float
    name: bytes | None = None
    is_over: bool = False
    heard: list[tuple[int, bytes]] = field(default_factory=list)

    def hear(self, command: Command, body: bytes) -> None:
        """Receive a packet from the server."""
        self.heard.append((command, body))


@dataclass(eq=False)
class Invitation:
    """`inviter` has invited `invitee`. If it is gone, it is only kept to be answered LOST."""

    inviter: bytes
    invitee: bytes
    command: int
    deadline: float
    is_gone: bool = False


class Model:
    """What the server has to do, as docs/protocol.md says it.

    :param room: how many invitations may wait at one user
    :param invitation_timeout: seconds that an invitation waits for its answer
    :param password: the password of every account
    :param login_timeout: seconds that a client has to log in
    """

    def __init__(
        self, room: int, invitation_timeout: float, password: bytes, login_timeout: float
    ) -> None:
        self.room = room
        self.invitation_timeout = invitation_timeout
        self.password = password
        self.login_timeout = login_timeout
        self.now = 0.0
        self.unknown: list[Client] = []
        """Who has not logged in yet, or never did."""
        self.online: dict[bytes, Client] = {}
        self.partners: dict[bytes, bytes] = {}
        """Who is in a chat, and with whom. Both of them are in it."""
        self.invitations: list[Invitation] = []
        """All that wait, and those that are gone but not forgotten; the newest last."""

    # --- What can happen ------------------------------------------------------------------

    def connect(self) -> Client:
        """Return the connection of a new client."""
        client = Client(self.now + self.login_timeout)
        self.unknown.append(client)
        return client

    def disconnect(self, client: Client) -> None:
        """The connection of `client` ends, for whatever reason."""
        if client.name is not None:
            self._go_offline(client.name)
            client.name = None
        elif not client.is_over:
            self.unknown.remove(client)
        client.is_over = True

    def bad_packet(self, client: Client) -> None:
        """`client` sends something that is not a packet: it is told, and its connection closed."""
        if not client.is_over:
            client.hear(Command.ERROR, b"BADPACKET")
            self.disconnect(client)

    def shut_down(self, clients: list[Client]) -> None:
        """The server goes down: everybody who is connected is told that, and nothing else."""
        for client in clients:
            if not client.is_over:
                client.hear(Command.ERROR, b"SHUTDOWN")
                client.name = None
                client.is_over = True
        self.unknown.clear()
        self.online.clear()
        self.partners.clear()
        self.invitations.clear()

    def pass_time(self, seconds: float) -> None:
        """Time passes: invitations that have not been answered end, and so do the connections of
        those who have not logged in.
        """
        self.now += seconds
        for invitation in self.invitations:
            if not invitation.is_gone and invitation.deadline <= self.now:
                invitation.is_gone = True
                self._tell(invitation.inviter, Command.ERROR, b"TIMEOUT")
        for client in list(self.unknown):
            if client.login_deadline <= self.now:
                client.hear(Command.ERROR, b"TIMEOUT")
                self.disconnect(client)

    def packet(self, client: Client, command: int, body: bytes) -> None:
        """`client` sends a packet. What comes behind the end of its connection is thrown away."""
        if client.is_over:
            return
        if command not in list(Command):
            client.hear(Command.ERROR, b"UNKN")
        elif client.name is None:
            self._packet_before_login(client, command, body)
        elif command in (Command.REGISTER, Command.LOGIN):
            client.hear(Command.ERROR, b"ALREADY")
        elif client.name in self.partners:
            self._packet_in_chat(client.name, command, body)
        else:
            self._packet_outside_chat(client.name, command, body)

    # --- The three states -----------------------------------------------------------------

    def _packet_before_login(self, client: Client, command: int, body: bytes) -> None:
        """A packet of a client that has not logged in."""
        if command in (Command.REGISTER, Command.LOGIN):
            name, _, password = body.partition(b":")
            if password == self.password:
                self._log_in(client, name)
            else:
                client.hear(Command.ERROR, b"AUTH!")
        elif command == Command.MESSAGE:
            client.hear(Command.ERROR, b"NOCHAT")
        elif command not in (Command.ACK, Command.ERROR):
            client.hear(Command.ERROR, b"NOLOG")

    def _packet_in_chat(self, name: bytes, command: int, body: bytes) -> None:
        """A packet of somebody who is in a chat."""
        partner = self.partners[name]
        said = name + b": " + body
        if command == Command.EXIT_CHAT or (command == Command.MESSAGE and body == b"/exit"):
            self._tell(name, Command.ACK, b"BYE")
            self._end_chat(name)
        elif command == Command.MESSAGE and len(said) > LONGEST_BODY:
            self._tell(name, Command.ERROR, b"TOOLONG")
        elif command == Command.MESSAGE:
            self._tell(partner, Command.MESSAGE, said)
            self._tell(name, Command.ACK, b"OK")
        elif command not in (Command.ACK, Command.ERROR):
            self._tell(name, Command.ERROR, b"BUSY")

    def _packet_outside_chat(self, name: bytes, command: int, body: bytes) -> None:
        """A packet of somebody who has logged in and is not in a chat."""
        if command in (Command.MESSAGE, Command.EXIT_CHAT):
            self._tell(name, Command.ERROR, b"NOCHAT")
        elif command in INVITING:
            self._invite(name, command, body)
        elif command in ACCEPTING:
            self._accept(name, command, body)
        elif command in DECLINING:
            self._decline(name, command, body)

    # --- Coming and going -----------------------------------------------------------------

    def _log_in(self, client: Client, name: bytes) -> None:
        """`client` is now the one connection of `name`. An older one is closed."""
        older = self.online.get(name)
        if older is not None:
            self.disconnect(older)
            older.hear(Command.ERROR, b"REPLACED")
        self.unknown.remove(client)
        self.online[name] = client
        client.name = name
        client.hear(Command.ACK, b"OK")

    def _go_offline(self, name: bytes) -> None:
        """`name` is not online any more: its chat and its invitations end."""
        del self.online[name]
        if name in self.partners:
            self._end_chat(name)
        self._withdraw(name)
        self._end_received(name)

    # --- Invitations ----------------------------------------------------------------------

    def _invite(self, name: bytes, command: int, invitee: bytes) -> None:
        """Invite somebody, if that can be done."""
        if invitee not in self.online:
            self._tell(name, Command.ERROR, b"NOPE")
        elif invitee == name:
            self._tell(name, Command.ERROR, b"SELF")
        elif invitee in self.partners or not self._has_room(invitee, name):
            self._tell(name, Command.ERROR, b"BUSY")
        else:
            self._deliver(name, command, invitee)
            self._tell(invitee, Command.FIND_PEER, name)
            if command not in OF_THE_REFERENCE:
                self._tell(name, Command.ACK, b"SENT")

    def _has_room(self, invitee: bytes, inviter: bytes) -> bool:
        """Tell whether one more invitation, of `inviter`, may wait at `invitee`."""
        crossing = self._sent(invitee)
        if crossing is not None and crossing.invitee == inviter:
            return True
        others = [
            invitation
            for invitation in self._received(invitee)
            if not invitation.is_gone and invitation.inviter != inviter
        ]
        return len(others) < self.room

    def _deliver(self, inviter: bytes, command: int, invitee: bytes) -> None:
        """Put a new invitation in its place: it withdraws the earlier one, and is the newest."""
        self._withdraw(inviter)
        earlier = self._received_from(invitee, inviter)
        if earlier is not None:
            self.invitations.remove(earlier)
        deadline = self.now + self.invitation_timeout
        self.invitations.append(Invitation(inviter, invitee, command, deadline))
        # The oldest that are gone are forgotten when there are too many.
        gone = [invitation for invitation in self._received(invitee) if invitation.is_gone]
        while gone and len(self._received(invitee)) > self.room:
            self.invitations.remove(gone.pop(0))

    def _accept(self, name: bytes, command: int, inviter: bytes) -> None:
        """Begin the chat that `inviter`, or who has sent the newest, has asked for."""
        invitation = self._meant(name, command, inviter)
        if invitation is None:
            if command not in OF_THE_REFERENCE:
                self._tell(name, Command.ERROR, b"NOINVITE")
            return
        self.invitations.remove(invitation)
        if invitation.is_gone:
            self._tell(name, Command.ERROR, b"LOST")
        else:
            self._begin_chat(invitation, command)

    def _decline(self, name: bytes, command: int, other: bytes) -> None:
        """Decline what `other` has sent or, by ChatDecline only, withdraw what it was sent."""
        received = self._meant(name, command, other)
        sent = self._sent(name)
        withdraws = command == Command.CHAT_DECLINE and sent is not None and sent.invitee == other
        if received is None and not withdraws:
            if command not in OF_THE_REFERENCE:
                self._tell(name, Command.ERROR, b"NOINVITE")
            return
        if received is not None:
            self.invitations.remove(received)
            if not received.is_gone:
                self._tell(received.inviter, Command.ERROR, b"DENY")
                # If each has invited the other, both invitations end.
                if sent is not None and sent.invitee == received.inviter:
                    withdraws = True
        if withdraws:
            self._withdraw(name)
        if command not in OF_THE_REFERENCE:
            self._tell(name, Command.ACK, b"OK")

    def _meant(self, name: bytes, command: int, inviter: bytes) -> Invitation | None:
        """Return the received invitation that `name` answers, if there is one."""
        named = self._received_from(name, inviter)
        if named is not None:
            return named
        # In Ack and Error a body that names no inviter counts as empty: as the newest.
        received = self._received(name)
        if received and (inviter == b"" or command in OF_THE_REFERENCE):
            return received[-1]
        return None

    def _sent(self, inviter: bytes) -> Invitation | None:
        """Return the one invitation of `inviter` that waits, if there is one."""
        for invitation in self.invitations:
            if invitation.inviter == inviter and not invitation.is_gone:
                return invitation
        return None

    def _received(self, invitee: bytes) -> list[Invitation]:
        """Return what `invitee` has received, waiting or gone, the oldest first."""
        return [each for each in self.invitations if each.invitee == invitee]

    def _received_from(self, invitee: bytes, inviter: bytes) -> Invitation | None:
        """Return what `invitee` has received from `inviter`, waiting or gone."""
        for invitation in self._received(invitee):
            if invitation.inviter == inviter:
                return invitation
        return None

    def _withdraw(self, inviter: bytes) -> None:
        """The invitation of `inviter` that waits, if there is one, is gone. Nobody is told."""
        invitation = self._sent(inviter)
        if invitation is not None:
            invitation.is_gone = True

    def _end_received(self, invitee: bytes) -> None:
        """`invitee` is not free any more: what it received is over, the waiting ones are told."""
        for invitation in self._received(invitee):
            self.invitations.remove(invitation)
            if not invitation.is_gone:
                self._tell(invitation.inviter, Command.ERROR, b"GONE")

    # --- Chats ----------------------------------------------------------------------------

    def _begin_chat(self, accepted: Invitation, command: int) -> None:
        """The chat that `accepted` asked for begins; the invited one accepted with `command`."""
        inviter, invitee = accepted.inviter, accepted.invitee
        self.partners[inviter] = invitee
        self.partners[invitee] = inviter
        self._tell_of_chat(invitee, inviter, command)
        self._tell_of_chat(inviter, invitee, accepted.command)
        # What the invited one had sent itself is withdrawn, before the inviter's received ones
        # end: if it was sent to the inviter, it ends silently.
        self._withdraw(invitee)
        self._end_received(inviter)
        self._end_received(invitee)

    def _tell_of_chat(self, name: bytes, partner: bytes, command: int) -> None:
        """Tell `name` of the chat, in the manner in which it invited or accepted."""
        if command in OF_THE_REFERENCE:
            self._tell(name, Command.ACK, b"CHAT")
        else:
            self._tell(name, Command.CHAT_ACCEPT, partner)

    def _end_chat(self, name: bytes) -> None:
        """`name` leaves its chat, and its partner is told."""
        partner = self.partners.pop(name)
        del self.partners[partner]
        self._tell(partner, Command.ERROR, b"EXIT")

    def _tell(self, name: bytes, command: Command, body: bytes) -> None:
        """Send a packet to `name`, who is online."""
        self.online[name].hear(command, body)

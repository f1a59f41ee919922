"""Tests for `chatserver.client` with a server that knows the old commands only, over real TLS."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.trial.unittest import TestCase

from chatserver.certificates import load_or_create
from chatserver.client import (
    Chat,
    ChatClient,
    DeclinedError,
    LostError,
    NameTakenError,
    NoInvitationError,
    NotAuthenticatedError,
    NotInChatError,
    NotOnlineError,
    PeerLeftError,
    TrustFile,
    UnknownCommandError,
    YourselfError,
    connect,
)
from chatserver.packets import AckCode, Command, ErrorCode, Packet, encode
from tests.recording import Recorder
from tests.reference_server import ReferenceFactory, ReferenceProtocol


class ReferenceTests(TestCase):
    """The library, and a server of the reference's kind."""

    timeout = 10

    async def setUp(self) -> None:
        folder = self.mktemp()
        self.certificate = os.path.join(folder, "server.crt")
        key = os.path.join(folder, "server.key")
        certificate, _ = load_or_create(self.certificate, key, None, datetime.now(UTC))
        self.factory = ReferenceFactory()
        endpoint = SSL4ServerEndpoint(reactor, 0, certificate.tls_options, interface="127.0.0.1")
        self.port = await endpoint.listen(self.factory)
        self.addCleanup(self.port.stopListening)
        self.heard: dict[str, Recorder] = {}

    async def connect(self, name: str) -> ChatClient:
        """Return a client that is not logged in."""
        self.heard[name] = Recorder()
        client = await connect(
            reactor,
            "localhost",
            self.port.getHost().port,
            trust=TrustFile(self.certificate),
            handler=self.heard[name],
        )
        self.addCleanup(client.close)
        return client

    async def register(self, *names: str) -> list[ChatClient]:
        """Return clients that have registered."""
        clients = [await self.connect(name) for name in names]
        await gatherResults(
            client.register(name, "password") for client, name in zip(clients, names, strict=True)
        )
        return clients

    async def open_chat(self, inviter: ChatClient, invitee: ChatClient) -> tuple[Chat, Chat]:
        """Return both sides of a new chat."""
        invitation = await inviter.invite(invitee.name)
        await self.heard[invitee.name].hear("invited", inviter.name)
        there = await invitee.accept(inviter.name)
        return await invitation.when_answered(), there

    async def test_signing_in(self) -> None:
        """Registering and logging in work, and are refused, as with the server of today."""
        client = await self.connect("alice")
        await client.register("alice", "größer:als acht")
        self.assertEqual(client.name, "alice")
        again = await self.connect("alice")
        await self.assertFailure(again.register("alice", "password"), NameTakenError)
        await self.assertFailure(again.log_in("alice", "wrong"), NotAuthenticatedError)
        await again.log_in("alice", "größer:als acht")
        self.assertEqual(again.name, "alice")

    async def test_talk(self) -> None:
        """Two users invite, accept and talk both ways; each knows with whom."""
        alice, bob = await self.register("alice", "bob")
        here, there = await self.open_chat(alice, bob)
        self.assertEqual((here.peer, there.peer), ("bob", "alice"))
        await here.send("grüß dich")
        await there.send(b"\xff: x")
        await self.heard["alice"].hear("message", "bob", b"\xff: x")
        self.assertEqual(
            self.heard["alice"].events, [("chat_began", "bob"), ("message", "bob", b"\xff: x")]
        )
        self.assertEqual(
            self.heard["bob"].events,
            [
                ("invited", "alice"),
                ("chat_began", "alice"),
                ("message", "alice", "grüß dich".encode()),
            ],
        )
        new = {packet.command for packet in self.factory.received} - set(range(1, 7))
        self.assertEqual(len(new), 2, "each client has asked once whether the server is of today")

    async def test_many_at_once(self) -> None:
        """Texts sent without waiting all arrive, though the server loses packets in one read."""
        alice, bob = await self.register("alice", "bob")
        here, there = await self.open_chat(alice, bob)
        texts = [b"%d" % number for number in range(20)]
        await gatherResults(chat.send(text) for text in texts for chat in (here, there))
        await self.heard["alice"].hear("message", "bob", texts[-1])
        await self.heard["bob"].hear("message", "alice", texts[-1])
        for name in ("alice", "bob"):
            events = self.heard[name].events
            self.assertEqual([each[2] for each in events if each[0] == "message"], texts)
        self.assertEqual(self.factory.lost_bytes, 0)

    async def test_leave(self) -> None:
        """Each side can leave, the other hears it, and they can meet again."""
        alice, bob = await self.register("alice", "bob")
        for leaving, staying in (("alice", "bob"), ("bob", "alice")):
            here, there = await self.open_chat(alice, bob)
            await (here if leaving == "alice" else there).leave()
            await self.heard[staying].hear("chat_ended", leaving, PeerLeftError)
            self.assertEqual(self.heard[leaving].take()[-1], ("chat_ended", staying, None))
            self.heard[staying].take()
            await self.assertFailure(here.send("late"), NotInChatError)
            self.assertEqual((alice.chat, bob.chat), (None, None))

    async def test_both_leave(self) -> None:
        """If both leave at once, both have left."""
        alice, bob = await self.register("alice", "bob")
        here, there = await self.open_chat(alice, bob)
        await gatherResults([here.leave(), there.leave()])
        self.assertEqual((alice.chat, bob.chat), (None, None))
        await self.open_chat(bob, alice)

    async def test_peer_is_gone(self) -> None:
        """A peer whose connection ends has left."""
        alice, bob = await self.register("alice", "bob")
        await self.open_chat(alice, bob)
        await alice.close()
        await self.heard["bob"].hear("chat_ended", "alice", PeerLeftError)
        self.assertIsNone(bob.chat)

    async def test_decline(self) -> None:
        """The inviter hears that it was declined; the invited one can't accept it any more."""
        alice, bob = await self.register("alice", "bob")
        invitation = await alice.invite("bob")
        await self.heard["bob"].hear("invited", "alice")
        await bob.decline("alice")
        await self.assertFailure(invitation.when_answered(), DeclinedError)
        await self.assertFailure(bob.accept("alice"), NoInvitationError)

    async def test_not_there(self) -> None:
        """That nobody can be invited is told after the invitation, which seems delivered."""
        [alice] = await self.register("alice")
        for name, expected in (("nobody", NotOnlineError), ("alice", YourselfError)):
            invitation = await alice.invite(name)
            self.assertEqual(invitation.invitee, name)
            await self.assertFailure(invitation.when_answered(), expected)

    async def test_what_it_can_not(self) -> None:
        """An invitation can't be withdrawn, and of several received ones only the newest counts."""
        alice, bob, carol = await self.register("alice", "bob", "carol")
        invitation = await alice.invite("bob")
        await self.assertFailure(alice.withdraw("bob"), UnknownCommandError)
        await self.heard["bob"].hear("invited", "alice")
        newest = await carol.invite("bob")
        await self.heard["bob"].hear("invited", "carol")
        await self.assertFailure(bob.accept("alice"), NoInvitationError)
        await bob.accept("carol")
        self.assertEqual((await newest.when_answered()).peer, "bob")
        self.assertNoResult(invitation.when_answered().addErrback(lambda _: None))

    async def test_gone(self) -> None:
        """To accept the invitation of somebody who has gone comes too late."""
        alice, bob = await self.register("alice", "bob")
        await alice.invite("bob")
        await self.heard["bob"].hear("invited", "alice")
        await alice.close()
        await self.assertFailure(bob.accept("alice"), LostError)


class StandInTests(TestCase):
    """The stand-in for the reference server itself."""

    def test_loses_packets(self) -> None:
        """It takes one packet of a read and loses the others."""
        factory = ReferenceFactory()
        server = factory.buildProtocol(None)
        assert isinstance(server, ReferenceProtocol)
        sent: list[bytes] = []
        server.tell = lambda command, body=b"": sent.append(body)  # type: ignore[method-assign]
        server.dataReceived(encode(Packet(Command.REGISTER, b"a:b")) + encode(Packet(0x7F)))
        server.dataReceived(encode(Packet(Command.EXIT_CHAT)))
        self.assertEqual(sent, [AckCode.OK, ErrorCode.UNKNOWN])
        self.assertEqual(factory.lost_bytes, 11)

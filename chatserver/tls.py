"""TLS for the server's connections, which tells when it has ended."""

from __future__ import annotations

from typing import Protocol, cast

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IOpenSSLServerConnectionCreator,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

from chatserver.certificates import describe_subject
from chatserver.limits import MAX_HANDSHAKE
from chatserver.records import RecordBuffer
from chatserver.turns import PendingCall, TurnQueue
from chatserver.writing import WriteBatch

_VERIFICATION_ERRORS = {
    number: name.removeprefix("ERR_").lower().replace("_", " ")
    for name, number in vars(SSL.X509VerificationCodes).items()
    if name.startswith("ERR_")
}


class TLSListener(Protocol):
    """A protocol above TLS: says how much it takes, and is told of the end."""

    @property
    def packetsPerTurn(self) -> int:
        """How many packets it takes in a turn of the reactor. TLS takes as many records.

        So a client that sends each packet in one of its own is not slowed down, and one that sends
        records with a byte each, or with nothing for us (KeyUpdate), is not felt by the others.
        """

    def tlsEnded(self) -> None:
        """The client has said goodbye (close_notify), or sent what is not TLS.

        Nothing more will come from it. This may be told more than once.
        """


class TLSTransport(BufferingTLSTransport):
    """Twisted's TLS, on which its end is an event of its own, and which takes turns.

    Twisted closes the connection at the end, but not before all that waits is sent, and tells only
    after that: a client that does not read would stay as if it were there. And it handles all that
    is read in one go: thousands of records, in some of which there is nothing for the application.
    """

    _log = Logger()

    factory: TLSFactory
    _refusal: str | None = None
    _next_feed: IDelayedCall | PendingCall | None = None
    _allowance: int | None = None
    _completed = 0  # records in what is being taken, of which none has been read yet
    _has_begun = False
    _handshake_size = 0
    _is_paused = False
    _is_reading = True

    def makeConnection(self, transport: ITransport) -> None:
        """Begin, with the handshake."""
        self._records = RecordBuffer()
        super().makeConnection(transport)  # type: ignore[no-untyped-call]
        tls = self.getHandle()  # type: ignore[no-untyped-call]
        if tls.get_verify_mode() != SSL.VERIFY_NONE:
            tls.set_verify(tls.get_verify_mode(), self._note_refusal)

    def dataReceived(self, data: bytes) -> None:
        """Take what came from the network, some records in each turn.

        Of all handshakes few go on in each turn (`TURN_TIME`): a step takes up to a millisecond.
        """
        if self._allowance is not None:
            self._allowance -= len(data)
        self._records.feed(data)
        if self._next_feed is None and self._handshakeDone:
            self._feed()
            return
        if self._next_feed is None and self._has_next:
            self._feed_later()
        self._read_or_not()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Take what is left of what came, and end."""
        if self._next_feed is not None:
            self._next_feed.cancel()
            self._next_feed = None
            # Nothing can stand behind a ClientHello that was not answered.
            is_of_use = self._has_begun and not (self._aborted or self._lostTLSConnection)
            if is_of_use and (data := self._records.take_all()):
                super().dataReceived(data)  # type: ignore[no-untyped-call]
        super().connectionLost(reason)

    def pauseProducing(self) -> None:
        """Read nothing from the network."""
        self._is_paused = True
        self._read_or_not()

    def resumeProducing(self) -> None:
        """Read again."""
        self._is_paused = False
        self._read_or_not()

    def limitReading(self, most: int | None) -> None:
        """Read `most` bytes more from the network, and then none until this is called again.

        None is any number. TLS has answers of its own to what it reads (RFC 8446, section 4.6.3):
        they wait behind those that a client does not take.
        """
        self._allowance = most
        self._read_or_not()

    @property
    def _has_next(self) -> bool:
        """Whether there is something to be taken. Parts of a handshake are not worth a turn."""
        return self._records.has_record if self._handshakeDone else self._records.has_whole_record

    def _feed(self) -> None:
        self._next_feed = None
        self._has_begun = True
        try:
            data = self._take()
            if data:
                self.factory.writes.run(super().dataReceived, data)
            if self.transport.disconnecting:  # type: ignore[union-attr]
                cast(TLSListener, self.wrappedProtocol).tlsEnded()
        except Exception:
            # The reactor would do the same, but it is not always who calls this.
            self._log.failure("Cut off, a fault of the server's: {peer}", peer=self.getPeer())  # type: ignore[no-untyped-call]
            self.abortConnection()  # type: ignore[no-untyped-call]
            return
        if self._has_next and self.connected:
            self._feed_later()
        self._read_or_not()

    def _take(self) -> bytes:
        """Return what is taken next: nothing, and TLS ends, if that is too long a handshake."""
        most = cast(TLSListener, self.wrappedProtocol).packetsPerTurn
        data, self._completed = self._records.take(most)
        if not self._handshakeDone:
            self._handshake_size += len(data)
            if self._handshake_size > MAX_HANDSHAKE:
                self._tlsShutdownFinished(Failure(SSL.Error([("", "", "handshake too long")])))
                return b""
        return data

    def _feed_later(self) -> None:
        if self._handshakeDone:
            self._next_feed = self.factory.clock.callLater(0, self._feed)
        else:
            self._next_feed = self.factory.handshakes.call(self._feed)

    def _read_or_not(self) -> None:
        """Read from the network, unless something speaks against it."""
        is_reading = (
            not self._is_paused
            and self._next_feed is None
            and (self._allowance is None or self._allowance > 0)
        )
        if is_reading is not self._is_reading:
            self._is_reading = is_reading
            producer = cast(IPushProducer, self.transport)
            (producer.resumeProducing if is_reading else producer.pauseProducing)()

    def _flushReceiveBIO(self) -> None:
        # Twisted asks OpenSSL for data until there is none, and then for an answer to what was no
        # data: two exceptions for each read. As a rule each record holds data, and that was all.
        if not (self._handshakeDone and self._receive(self._completed)):
            super()._flushReceiveBIO()  # type: ignore[no-untyped-call]
        self._completed = 0

    def _receive(self, records: int) -> bool:
        """Hand over the data of so many records. Return whether there was data in each."""
        for _ in range(records):
            if self._lostTLSConnection:
                return False
            try:
                data = self._tlsConnection.recv(2**15)
            except (SSL.WantReadError, SSL.ZeroReturnError):
                return False  # Which Twisted meets again, and handles.
            except SSL.Error:
                self._tlsShutdownFinished(Failure())
                return False
            if not self._aborted:
                ProtocolWrapper.dataReceived(self, data)
        return records > 0

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        # Twisted 26.10 looks for the arguments of OpenSSL's error, and a goodbye in the midst of
        # the handshake is one without any: its IndexError would be in the log.
        if reason is not None and not reason.value.args:  # type: ignore[union-attr]
            reason = Failure(SSL.Error([("", "", "goodbye in the handshake")]))
        if reason is not None and self._refusal is not None:
            reason = Failure(SSL.Error([("", "", self._refusal)]))
        super()._tlsShutdownFinished(reason)  # type: ignore[no-untyped-call]

    def _note_refusal(
        self, _: SSL.Connection, certificate: crypto.X509, error: int, _depth: int, is_good: int
    ) -> bool:
        """Keep why the client's certificate is refused: OpenSSL's error does not tell that."""
        if not is_good:
            reason = _VERIFICATION_ERRORS.get(error, f"error {error}")
            subject = describe_subject(certificate.to_cryptography())
            self._refusal = f"certificate refused: {reason}: {subject}"
        return bool(is_good)


def client_subject(connection: SSL.Connection) -> str | None:
    """Return the subject of the client's certificate (RFC 4514); None if it has shown none.

    One that was not asked for one has not.
    """
    certificate = connection.get_peer_certificate(as_cryptography=True)
    return None if certificate is None else describe_subject(certificate)


class TLSFactory(TLSMemoryBIOFactory):
    """Makes the connections of another factory, with TLS below them.

    :param factory: makes a protocol for each client, or None if it takes no more of them
    :param creator: makes the TLS of each connection
    :param clock: where writes wait for others that can go with them
    :param writes: sends at the end of each read; None is one of its own
    """

    protocol = TLSTransport

    def __init__(
        self,
        factory: Factory,
        creator: IOpenSSLServerConnectionCreator,
        clock: IReactorTime,
        writes: WriteBatch | None = None,
    ) -> None:
        self.clock = clock
        self.handshakes = TurnQueue(clock)
        self.writes = writes or WriteBatch(clock)
        super().__init__(creator, False, factory, cast(IReactorTime, self.writes))

    def buildProtocol(self, addr: IAddress | None) -> TLSTransport | None:  # type: ignore[override]
        """Put TLS below the protocol for a client at `addr`; none if there is no protocol."""
        protocol = self.wrappedFactory.buildProtocol(addr)
        return None if protocol is None else self.protocol(self, protocol)

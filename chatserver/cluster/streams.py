"""A stream of messages from one machine to another and back: in order, or broken.

NATS keeps the order of what one machine sends to another, but what is under way is lost when a
connection to it breaks or is too slow. So messages are numbered, and where one is missing the
stream breaks as a whole: both machines know then that nothing is under way between them.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import randbits

from twisted.internet.interfaces import IReactorTime

from chatserver.cluster.messages import Beat, Body, Frame, encode_frame
from chatserver.limits import CLUSTER_BEAT_INTERVAL, CLUSTER_REST


class Stream:
    """Numbers what is sent, and finds what is missing in what comes.

    Each of the two directions has an epoch, a random number. When one machine begins a new one the
    other does so too.

    :param machine: who this machine is
    :param clock: tells how long nothing was sent
    :param publish: sends bytes to the other machine
    `used_at` is when something was sent, or came in its place, for the last time.

    :param broken: called when something is missing, or the other machine has begun anew: nothing
        that was under way will be answered
    """

    def __init__(
        self,
        machine: str,
        clock: IReactorTime,
        publish: Callable[[bytes], None],
        broken: Callable[[str], None],
    ) -> None:
        self._machine = machine
        self._clock = clock
        self._publish = publish
        self._broken = broken
        self.used_at = self._sent_at = clock.seconds()
        self.begin()

    def begin(self) -> None:
        """Begin anew with the next message."""
        self._epoch = randbits(62)
        self._sent = 0
        self._their_epoch: int | None = None
        self._received = 0

    def send(self, body: Body) -> None:
        """Send `body`, behind all that was sent before."""
        now = self._clock.seconds()
        if now - self.used_at > CLUSTER_REST:
            # The other machine may have forgotten that there is a stream.
            self.begin()
        self.used_at = self._sent_at = now
        self._sent += 1
        self._publish(encode_frame(self._machine, self._epoch, self._sent, body))

    def restart(self) -> None:
        """Begin anew, and let the other machine know."""
        self.begin()
        self.send(Beat())

    def follows(self, frame: Frame) -> bool:
        """Return whether `frame` is what comes next, and count it. What was there before is not."""
        if frame.epoch == self._their_epoch:
            if frame.number > self._received + 1:
                self._break("messages are missing")
            if frame.number != self._received + 1:
                return False
        elif frame.number == 1:
            if self._their_epoch is not None:
                self._break("it has begun anew")
            self._their_epoch, self._received = frame.epoch, 0
        else:
            # Once for all that was under way when the stream broke, but again if that is of no use.
            if not self._sent or self._clock.seconds() - self._sent_at >= CLUSTER_BEAT_INTERVAL / 2:
                self._break("messages are missing")
            return False
        self._received += 1
        self.used_at = self._clock.seconds()
        return True

    def _break(self, reason: str) -> None:
        self._broken(reason)
        self.restart()

"""A stream of messages from one machine to another and back: in order, or broken.

NATS keeps the order of what one machine sends to another, but what is under way is lost when a
connection to it breaks or is too slow. So messages are numbered, and where one is missing the
stream breaks as a whole: both machines know then that nothing is under way between them.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from chatserver.cluster.messages import Body, Frame, UnreadableError, encode_frame
from chatserver.limits import CLUSTER_BEAT_INTERVAL, CLUSTER_GENERATIONS


class Stream:
    """Numbers what is sent, and finds what is missing in what comes.

    Both machines count by generations. Whoever misses something begins the next one; the other
    machine follows when it hears of it, and what still comes of an earlier one is dropped. When
    both begin it at once, it is the same one.

    A beat is not counted: it tells how many messages have been sent, so that the last one is
    missed too, and which generation it is.

    :param machine: who this machine is
    :param clock: tells when the other machine was told last
    :param publish: sends bytes to the other machine
    :param broken: called with why when something is missing, or the other machine has begun anew:
        nothing that was under way will be answered; what is sent from then on is of the new
        generation
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
        self._generation = 0
        self._sent = self._received = 0
        self._beat_at = clock.seconds()

    def send(self, body: Body) -> None:
        """Send `body`, behind all that was sent before."""
        self._sent += 1
        self._publish(encode_frame(self._machine, self._generation, self._sent, body))

    def beat(self) -> None:
        """Tell the other machine how far this one is."""
        self._beat_at = self._clock.seconds()
        self._publish(encode_frame(self._machine, self._generation, self._sent, None))

    def begin(self) -> None:
        """Begin anew. The other machine hears of it with the next message."""
        self._follow(self._generation + 1)

    def restart(self) -> None:
        """Begin anew, and let the other machine know."""
        self.begin()
        self.beat()

    def follows(self, frame: Frame) -> bool:
        """Return whether `frame` is the next message, and count it. A beat is none.

        :raises UnreadableError: it can't be true
        """
        if frame.generation > self._generation + CLUSTER_GENERATIONS:
            raise UnreadableError("its generation is too great")
        if frame.generation < self._generation:
            # They have not heard yet that this side has begun anew. It may have got lost.
            if self._clock.seconds() - self._beat_at >= CLUSTER_BEAT_INTERVAL / 2:
                self.beat()
            return False
        if frame.generation > self._generation:
            self._follow(frame.generation)
            self._broken("it has begun anew")
        if frame.number != self._received + (not frame.is_beat):
            self.restart()
            self._broken("messages are missing")
            return False
        self._received = frame.number
        return not frame.is_beat

    def _follow(self, generation: int) -> None:
        self._generation = generation
        self._sent = self._received = 0

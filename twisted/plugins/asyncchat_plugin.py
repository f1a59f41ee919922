"""Makes ``twistd asyncchat`` known to Twisted."""

from twisted.application.service import ServiceMaker

asyncchat = ServiceMaker(
    "AsyncChatServer",
    "chatserver.tap",
    "A TLS-only server for private one-to-one chat.",
    "asyncchat",
)

"""A TLS-only server for private one-to-one chat, on Twisted."""

__version__ = "0.1.0"

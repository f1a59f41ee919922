"""What is only imported when an option asks for it, since it stands on an extra."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from chatserver.errors import OperatorError


def import_membership() -> ModuleType:
    """Return `chatserver.cluster.membership`.

    :raises OperatorError: what it stands on is not installed
    """
    try:
        return import_module("chatserver.cluster.membership")
    except ImportError:
        raise OperatorError(
            "--cluster needs nats-py and msgspec: pip install 'asyncchat[cluster]'", "cluster"
        ) from None

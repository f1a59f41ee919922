"""A folder of its own for a test."""

import os

from twisted.trial.unittest import SynchronousTestCase


def enter_new_folder(test: SynchronousTestCase) -> None:
    """Make an empty folder the current one, until `test` ends."""
    folder = test.mktemp()
    os.mkdir(folder)
    test.addCleanup(os.chdir, os.getcwd())
    os.chdir(folder)

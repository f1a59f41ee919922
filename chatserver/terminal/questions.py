"""Asks the user, at the terminal, also while standard input is a pipe."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.history import DummyHistory
from prompt_toolkit.input import Input, create_input
from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
from prompt_toolkit.output import Output, create_output

TERMINAL = "/dev/tty"
"""The terminal of the process, whatever its standard streams are: POSIX."""


class UserQuit(Exception):  # noqa: N818 - it is no error
    """The user has enough: Ctrl-C, or Ctrl-D on an empty line.

    Not KeyboardInterrupt, which would end the event loop at once, and leave its threads.
    """


class Questions:
    """Asks at the process's terminal. What is answered goes into no history.

    Each question may raise `UserQuit`.

    :raises OSError: there is no terminal
    """

    def __init__(self) -> None:
        self._input: Input | None = None
        self._output: Output | None = None
        self._files = ExitStack()
        if os.name == "posix":
            with ExitStack() as files:
                self._input = create_input(files.enter_context(open(TERMINAL)))
                self._output = create_output(files.enter_context(open(TERMINAL, "w")))
                self._files = files.pop_all()

    def close(self) -> None:
        """Let the terminal go."""
        self._files.close()

    async def ask(self, question: str) -> str:
        """Return what is typed."""
        return await self._prompt(question)

    async def ask_secret(self, question: str) -> str:
        """Return what is typed, and show none of it."""
        return await self._prompt(question, input_processors=[_Hidden()])

    async def confirm(self, question: str) -> bool:
        """Tell whether the answer is yes."""
        return (await self._prompt(f"{question} [y/N] ")).strip().lower() in ("y", "yes")

    async def _prompt(self, question: str, **options: Any) -> str:
        session: PromptSession[str] = PromptSession(
            input=self._input,
            output=self._output,
            history=DummyHistory(),
            interrupt_exception=UserQuit,
            eof_exception=UserQuit,
            **options,
        )
        return await session.prompt_async(question, handle_sigint=False)


class _Hidden(Processor):
    """Shows nothing of what is typed, not even how long it is."""

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        """Show nothing."""
        return Transformation(
            [], source_to_display=lambda index: 0, display_to_source=lambda index: 0
        )

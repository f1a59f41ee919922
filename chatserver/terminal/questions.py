"""Asks the user, at the terminal."""

from __future__ import annotations

from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.history import DummyHistory
from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput

from chatserver.terminal.ending import UserQuit


class Questions:
    """Asks at the terminal. What is answered goes into no history.

    Each question may raise `UserQuit`.
    """

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
            history=DummyHistory(),
            enable_suspend=True,
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

"""The screen of a chat: what happens scrolls by above the line that is being typed."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import platformdirs
from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.renderer import print_formatted_text
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import get_cwidth

from chatserver.terminal.ending import UserQuit

PROMPT = "> "

STYLE = Style.from_dict(
    {
        "time": "ansibrightblack",
        "own": "ansigreen bold",
        "peer": "ansicyan bold",
        "news": "ansiyellow",
        "trouble": "ansired",
        "bottom-toolbar": "noreverse",
        "bottom-toolbar.text": "reverse",
    }
)


MIN_WIDTH = 10
"""Columns of text, at least: in a narrower window the terminal folds the lines once more."""


def fold(text: str, width: int) -> list[str]:
    """Return `text` as lines of at most `width` columns, broken at spaces where there are any."""
    rows, row, used = [], "", 0
    for piece in re.findall(" +|[^ ]+", text):
        size = get_cwidth(piece)
        if row and used + size > width:
            rows.append(row)
            row, used = "", 0
            if piece.isspace():
                continue
        for character in piece if size > width else [piece]:
            size = get_cwidth(character)
            if used + size > width:
                rows.append(row)
                row, used = "", 0
            row += character
            used += size
    return [*rows, row] if row or not rows else rows


def is_command(text: str) -> bool:
    """Tell whether what was typed is a command, and not to be said."""
    return text.startswith("/") and not text.startswith("//") and "\n" not in text.strip()


def history_path() -> Path:
    """Return where the commands that were typed are kept: in the user's folder for state."""
    return platformdirs.user_state_path("asyncchat", appauthor=False) / "history"


class Screen:
    """Shows lines, and reads what is typed.

    :param status: returns the text of the line at the bottom
    :param complete: returns what the text before the cursor may become
    """

    def __init__(
        self,
        status: Callable[[], str],
        complete: Callable[[str], Iterable[str]],
        history: Path | None = None,
    ) -> None:
        self.on_key: Callable[[], None] = lambda: None
        self._lines: list[StyleAndTextTuples] = []
        self._flushing: asyncio.Future[None] | None = None
        self._history = _History(history or history_path(), self.show_trouble)
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=lambda width, number, wraps: " " * width,
            history=self._history,
            completer=_Completer(complete),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            bottom_toolbar=status,
            key_bindings=_key_bindings(),
            style=STYLE,
            erase_when_done=True,
            enable_suspend=True,
            interrupt_exception=UserQuit,
            eof_exception=UserQuit,
        )
        self._session.app.key_processor.before_key_press += lambda _: self.on_key()

    def typed_before(self) -> Iterable[str]:
        """Return what was typed in earlier runs."""
        return self._history.load_history_strings()

    async def read(self, text: str = "") -> str:
        """Return what is typed next; `text` stands there already.

        :raises UserQuit: Ctrl-C, or Ctrl-D on an empty line
        """
        return await self._session.prompt_async(default=text, handle_sigint=False)

    def show_message(self, name: str, lines: list[str], is_own: bool) -> None:
        """Show what somebody said.

        Lines are folded here and not by the terminal, so that all but the first are indented:
        else one could be made to look like somebody else's.
        """
        moment = time.strftime("%H:%M ")
        width = max(self._session.output.get_size().columns - len(moment), MIN_WIDTH)
        first, *rest = lines
        rows = [row for line in (f"{name}: {first}", *rest) for row in fold(line, width)]
        text = ("\n" + " " * len(moment)).join(rows)
        style = "class:own" if is_own else "class:peer"
        self._show([("class:time", moment), (style, text[: len(name)]), ("", text[len(name) :])])

    def show_news(self, text: str) -> None:
        """Show what has happened."""
        self._show([("class:time", time.strftime("%H:%M ")), ("class:news", text)])

    def show_trouble(self, text: str) -> None:
        """Show what went wrong."""
        self._show([("class:time", time.strftime("%H:%M ")), ("class:trouble", text)])

    def show_plain(self, text: str) -> None:
        """Show `text` as it is."""
        self._show([("", text)])

    def ring(self) -> None:
        """Ring the terminal's bell."""
        self._session.output.bell()
        self._session.output.flush()

    def refresh(self) -> None:
        """Show the line at the bottom anew."""
        self._session.app.invalidate()

    def _show(self, line: StyleAndTextTuples) -> None:
        """Show a line, together with others that come in the same moment."""
        self._lines.append(line)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.ensure_future(self._flush_soon())

    async def _flush_soon(self) -> None:
        await asyncio.sleep(0)  # Others may come in the same moment.
        while self._lines:
            if self._session.app.is_running:
                await run_in_terminal(self.flush)
            else:
                self.flush()

    def flush(self) -> None:
        """Show what is still to be shown. Nothing may be read meanwhile."""
        lines, self._lines = self._lines, []
        text = [fragment for line in lines for fragment in (*line, ("", "\n"))]
        output = self._session.output
        print_formatted_text(output, text, STYLE, color_depth=output.get_default_color_depth())


class _History(FileHistory):
    """What was typed: commands in a file for its user only, all else until the end of the run.

    Where the file can't be used, it says so, once.

    :param complain: tells the user
    """

    def __init__(self, path: Path, complain: Callable[[str], None]) -> None:
        super().__init__(str(path))
        self._path = path
        self._complain: Callable[[str], None] | None = complain

    def load_history_strings(self) -> Iterable[str]:
        """Return what was typed before, the newest first."""
        try:
            return list(super().load_history_strings())
        except OSError as error:
            self._tell(error)
            return []

    def store_string(self, string: str) -> None:
        """Keep a command. What is said is nobody's business later: it is kept for this run only."""
        if not is_command(string):
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600))
            super().store_string(string)
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        if self._complain is not None:
            self._complain(f"What you type is not kept: {self._path}: {error.strerror}.")
            self._complain = None


class _Completer(Completer):
    """Completes the last word."""

    def __init__(self, complete: Callable[[str], Iterable[str]]) -> None:
        self._complete = complete

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """See `Completer`."""
        text = document.text_before_cursor
        length = len(text.rpartition(" ")[2])
        for word in self._complete(text):
            yield Completion(word, start_position=-length)


def _key_bindings() -> KeyBindings:
    """Enter sends; Alt-Enter begins a new line. A paste keeps its lines."""
    bindings = KeyBindings()

    @bindings.add("enter", filter=has_focus(DEFAULT_BUFFER))
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=has_focus(DEFAULT_BUFFER))
    def begin_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add(Keys.Vt100MouseEvent)
    def ignore(event: KeyPressEvent) -> None:
        """Take no typed text for an event of the mouse, which is not asked for."""

    return bindings

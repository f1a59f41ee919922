"""Makes docs/asyncchat.svg: a chat in a real terminal, beside a real server.

    python docs/screenshot.py

It needs what the extra `dev` installs, and POSIX.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

from tests.terminals import Terminal  # noqa: E402

PORT = 5555
COLUMNS, ROWS = 76, 12
COLOURS = {"brightblack": "bright_black", "brown": "yellow"}  # pyte's names, and rich's


def draw(terminal: Terminal) -> Text:
    """Return what a terminal shows, colours and all."""
    text = Text()
    for y in range(ROWS):
        for x in range(COLUMNS):
            cell = terminal.screen.buffer[y][x]
            style = [COLOURS.get(cell.fg, cell.fg)]
            style += [name for name in ("bold", "reverse") if getattr(cell, name)]
            text.append(cell.data, " ".join(style))
        text.append("\n")
    return text


def play(home: Path) -> Text:
    """Let two people talk, and return what one of them sees."""
    alice, bob = (
        Terminal(home / name, "--register", "--trust-file", "certs/server.crt",
                 f"{name}@localhost", columns=COLUMNS, rows=ROWS, ASYNCCHAT_PASSWORD="a" * 12)
        for name in ("alice", "bob")
    )  # fmt: skip
    alice.wait_for("\n>")
    bob.wait_for("\n>")
    bob.type("/invite alice\n")
    alice.wait_for("bob invites you")
    alice.type("/accept\n")
    bob.wait_for("in a chat with alice")
    for speaker, hearer, line in (
        (bob, alice, "Hello! Is the build green again?"),
        (alice, bob, "For an hour now. Here's what it was:"),
        (alice, bob, "- a test that slept\n- and one that should have"),
        (bob, alice, "Ha. And a present from me: \x1b[2J (still there?)"),
    ):
        speaker.paste(line) if "\n" in line or "\x1b" in line else speaker.type(line)
        speaker.type("\n")
        hearer.wait_for(line.split("\x1b")[0].splitlines()[-1])
    alice.type("It is, and shows what you t")
    alice.wait_for("shows what you t")
    return draw(alice)


def main() -> None:
    """Start a server, play, and write the picture."""
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        twistd = Path(sys.executable).with_name("twistd")
        server = subprocess.Popen([twistd, "-n", "asyncchat"], stdout=subprocess.DEVNULL)
        try:
            while not Path("certs/server.crt").exists():
                time.sleep(0.1)
            time.sleep(1)
            text = play(Path(folder))
        finally:
            server.terminate()
            server.wait()
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(text, end="")
    console.save_svg(str(ROOT / "docs" / "asyncchat.svg"), title="asyncchat alice@localhost")


if __name__ == "__main__":
    main()

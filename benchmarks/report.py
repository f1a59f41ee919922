"""What a benchmark has found: a small table for people, JSON for programs."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import ssl
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).absolute().parent.parent

PACKAGES = ("asyncchat", "Twisted", "pyOpenSSL", "cryptography", "argon2-cffi", "Automat")
"""What is named with its version: the figures depend on it."""

Value = str | int | float | None


class Report:
    """Columns of figures, a row for each thing that was measured, and what to know about them."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.command = shlex.join(command)
        self.environment = describe_environment()
        self.notes: list[str] = []
        self.rows: list[dict[str, Value]] = []

    def note(self, text: str) -> None:
        """Add what has to be known to read the figures; once, however often it is said."""
        if text not in self.notes:
            self.notes.append(text)

    def note_troubles(self, lines: Sequence[str]) -> None:
        """Add the first of the `lines` in which the server has logged a failure."""
        for line in lines[:3]:
            self.note(f"The server logged: {line}")

    def row(self, **figures: Value) -> None:
        """Add a row. Every row has the same columns, named by the arguments: `_` is a space."""
        self.rows.append({name.replace("_", " "): value for name, value in figures.items()})

    def __str__(self) -> str:
        lines = [f"$ {self.command}", *(f"{k}: {v}" for k, v in self.environment.items()), ""]
        lines += _table(self.rows)
        lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines)

    def as_json(self) -> str:
        """Return all of it as JSON."""
        return json.dumps(
            {
                "benchmark": self.name,
                "command": self.command,
                "environment": self.environment,
                "notes": self.notes,
                "rows": self.rows,
            },
            indent=2,
        )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the value below which `percent` of `ordered` lie, by the nearest rank."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def describe_environment() -> dict[str, str]:
    """Return what the figures depend on: the versions, the machine and the commit."""
    return {
        "versions": ", ".join(
            [
                f"Python {platform.python_version()}",
                *(f"{name} {version(name)}" for name in PACKAGES),
                ssl.OPENSSL_VERSION,
            ]
        ),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.platform(terse=True)}",
        "commit": _commit(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str:
    """Return the checkout's commit, and whether anything was changed since."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return f"{commit}, changed" if _git("status", "--porcelain", "-uno") else commit
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


def _table(rows: Sequence[dict[str, Value]]) -> list[str]:
    """Return `rows` as the lines of a Markdown table, which is plain enough to be read as it is."""
    if not rows:
        return []
    columns = list(rows[0])
    cells = [columns] + [[_show(row[column]) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    texts = [isinstance(rows[0][column], str) for column in columns]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(line, widths, texts, strict=True)
        )
        + " |"
        for line in cells
    ]
    rule = "-|-".join("-" * width for width in widths)
    return [lines[0], f"|-{rule}-|", *lines[1:]]


def _show(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else value

"""Draws what ``python -m benchmarks relay --json FILE`` has measured.

``python -m benchmarks.plot relay.json relay.svg`` needs the extra ``[plot]``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "asyncchat"  # The same figures give the same file.

from matplotlib import pyplot as plt  # noqa: E402


def draw(source: Path, target: Path) -> None:
    """Draw the processor time of a message: a picture for each mode, a bar for each server."""
    rows = json.loads(source.read_text("utf-8"))["rows"]
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    figure, axes = plt.subplots(1, len(modes), figsize=(5 * len(modes), 3.6), squeeze=False)
    for axis, mode in zip(axes[0], modes, strict=True):
        chosen = [row for row in rows if row["mode"] == mode]
        servers = list(dict.fromkeys(row["server"] for row in chosen))
        pairs = list(dict.fromkeys(row["pairs"] for row in chosen))
        width = 0.8 / len(servers)
        for number, server in enumerate(servers):
            own = {row["pairs"]: row for row in chosen if row["server"] == server}
            axis.bar(
                [place + number * width for place in range(len(pairs))],
                [own[count]["CPU us"] for count in pairs],
                width,
                yerr=[
                    [own[count]["CPU us"] - own[count]["least"] for count in pairs],
                    [own[count]["most"] - own[count]["CPU us"] for count in pairs],
                ],
                label=server,
            )
        axis.set_title(mode)
        axis.set_xlabel("pairs")
        axis.set_xticks([place + 0.4 - width / 2 for place in range(len(pairs))], pairs)
        axis.set_ylabel("CPU time of the server, \u00b5s a message")
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    draw(*map(Path, sys.argv[1:]))

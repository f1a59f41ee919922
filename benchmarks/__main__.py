"""The command line: ``python -m benchmarks NAME``."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path

# The benchmarks themselves are imported only in `main`: every process of the load imports this
# module again, and needs none of them.
NAMES = ("relay", "growth", "logins", "idle", "flood", "stall", "churn", "start", "cluster")


def main() -> None:
    """Run one benchmark and print what it has measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    benchmarks = parser.add_subparsers(metavar="NAME", dest="name", required=True)
    for name in NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        own = benchmarks.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_options(own)
        own.add_argument("--json", metavar="FILE", type=Path, help="write the figures there too")
        own.set_defaults(run=module.run)
    options = parser.parse_args()
    # An exception, so that every process that was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    from benchmarks.report import Report  # noqa: PLC0415 - see above

    report = Report(options.name, ["python", "-m", "benchmarks", *sys.argv[1:]])
    options.run(options, report)
    print(report)
    if options.json is not None:
        options.json.write_text(report.as_json(), "utf-8")


if __name__ == "__main__":
    main()

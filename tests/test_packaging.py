"""The sdist and the wheel: what is in them, and that the wheel alone is a server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from chatserver import __version__

ROOT = Path(__file__).absolute().parent.parent

SETUPTOOLS = 77
"""The oldest setuptools that can build it: see pyproject.toml."""

NOT_SOURCE = (
    ".git",
    ".hypothesis",
    ".mypy_cache",
    ".ruff_cache",
    ".venv",
    "_trial_temp*",
    "__pycache__",
    "*.egg-info",
    "build",
    "dist",
    "dropin.cache",
    "logs",
)
"""What lies in a folder that was worked in, and is not source."""

BUILD = """
from setuptools import build_meta
print(build_meta.build_{kind}({folder!r}))
"""

PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"
TWISTD = "from twisted.scripts.twistd import run; run()"
SHOW = """
import chatserver
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins

for maker in getPlugins(IServiceMaker):
    if maker.tapname == "asyncchat":
        print(maker.module)
print(chatserver.__file__)
"""


def copy_source(target: Path) -> None:
    """Copy to `target` what a clone would hold, were all of the checkout committed."""
    if not (ROOT / ".git").exists():  # an unpacked sdist
        shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*NOT_SOURCE))
        return
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # and not deleted since
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)


def run(*command: str | Path, cwd: Path) -> str:
    """Run `command` and return what it prints."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise AssertionError(f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def build(kind: str, source: Path, folder: Path) -> Path:
    """Build the sdist or the wheel of `source`, as `python -m build` would, but without a net.

    That makes an environment with setuptools first; here it is the one that is installed.
    """
    printed = run(sys.executable, "-c", BUILD.format(kind=kind, folder=str(folder)), cwd=source)
    return folder / printed.splitlines()[-1]


class PackagingTests(SynchronousTestCase):
    """What is built from a clean copy of the source: the sdist, and from that the wheel."""

    sdist: Path
    wheel: Path

    def setUp(self) -> None:
        """Build both, once for all tests."""
        cls = type(self)
        if hasattr(cls, "wheel"):
            return
        try:
            installed = version("setuptools")
        except PackageNotFoundError:
            installed = "0"
        if int(installed.partition(".")[0]) < SETUPTOOLS:
            raise SkipTest(f"setuptools {SETUPTOOLS} or newer is not installed: it builds it")
        folder = Path(self.mktemp()).absolute()
        source = folder / "source"
        copy_source(source)
        cls.sdist = build("sdist", source, folder)
        with tarfile.open(self.sdist) as archive:
            if hasattr(tarfile, "data_filter"):  # New in Python 3.11.4, where it is asked for.
                archive.extraction_filter = tarfile.data_filter
            archive.extractall(folder)
        cls.wheel = build("wheel", folder / f"asyncchat-{__version__}", folder)

    def test_sdist(self) -> None:
        """The sdist holds all that is needed to build, test and read, and nothing that was made."""
        with tarfile.open(self.sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        for name in (
            "LICENSE",
            "README.md",
            "pyproject.toml",
            "setup.cfg",
            "certs/README.md",
            "certs/.gitignore",
            "chatserver/py.typed",
            "chatserver/tap.py",
            "docs/protocol.md",
            "tests/__init__.py",
            "tests/blocking.py",
            "tests/reference/users.db",
            "tests/test_packaging.py",
            "twisted/plugins/asyncchat_plugin.py",
        ):
            self.assertIn(name, names)
        for name in names:
            self.assertNotRegex(name, r"\.pyc\Z|dropin\.cache|server\.(crt|key)\Z|\Ausers\.db")

    def test_wheel(self) -> None:
        """The wheel holds the package, its type marker and the plugin. No `__init__.py` hides
        Twisted or its plugins, and the tests stay out.
        """
        with zipfile.ZipFile(self.wheel) as archive:
            names = set(archive.namelist())
        modules = {
            path.relative_to(ROOT).as_posix() for path in (ROOT / "chatserver").rglob("*.py")
        }
        metadata = f"asyncchat-{__version__}.dist-info/"
        self.assertEqual(
            {*modules, "chatserver/py.typed", "twisted/plugins/asyncchat_plugin.py"},
            {name for name in names if not name.startswith(metadata)},
        )
        self.assertIn(f"{metadata}licenses/LICENSE", names)

    def test_plugin(self) -> None:
        """Where only the wheel is installed, beside what it depends on, `twistd --help` lists
        the server, and it is the wheel's.
        """
        folder = Path(self.mktemp()).absolute()
        venv.create(folder, symlinks=os.name != "nt")
        scripts = "Scripts" if os.name == "nt" else "bin"
        python = folder / scripts / "python"
        packages = Path(run(python, "-c", PURELIB, cwd=folder).strip())
        # All that an installer does with a wheel without scripts.
        with zipfile.ZipFile(self.wheel) as archive:
            archive.extractall(packages)
        # Twisted and the rest from here; .pth files there, an editable install's, don't count.
        here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (packages / "dependencies.pth").write_text("\n".join(here))

        maker, package = run(python, "-c", SHOW, cwd=folder).split()
        self.assertEqual("chatserver.tap", maker)
        self.assertEqual(packages / "chatserver" / "__init__.py", Path(package))
        shown = run(python, "-c", TWISTD, "--help", cwd=folder)
        self.assertTrue(re.search(r"^ +asyncchat +A TLS-only server", shown, re.M), shown)

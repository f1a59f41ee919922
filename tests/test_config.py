"""Tests for `chatserver.config`, and for what `chatserver.options` makes of the file."""

from __future__ import annotations

import os
from typing import ClassVar

from twisted.internet import reactor
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from chatserver.config import ConfigError, Setting, read
from chatserver.options import Options
from chatserver.tap import makeService
from tests.folders import enter_new_folder

NAMES = {"config": True, "port": True, "database": True, "stall-timeout": True, "quiet": False}
"""The options of these tests. The last one is a flag."""


class ConfigCase(SynchronousTestCase):
    """A test with a file, in a folder of its own."""

    def setUp(self) -> None:
        enter_new_folder(self)

    def write(self, text: str | bytes) -> str:
        """Write the file, and return its name."""
        with open("chat.toml", "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        return "chat.toml"


class ReadTests(ConfigCase):
    """`read`."""

    def assert_refused(self, text: str | bytes, message: str) -> None:
        """`text` is refused, with `message` behind the name of the file."""
        error = self.assertRaises(ConfigError, read, self.write(text), NAMES)
        self.assertEqual(f"chat.toml{message}", str(error))

    def test_values(self) -> None:
        """Text, numbers and flags become the arguments that say the same, each with its line."""
        path = self.write(
            "# The file of a server\n"
            "port = 5_555  # a number\n"
            "\n"
            "stall-timeout = 1.5\n"
            "'database' = 'sqlite:///ü.db'\n"
            "quiet = true"
        )
        self.assertEqual(
            [
                Setting("port", "--port=5555", 2),
                Setting("stall-timeout", "--stall-timeout=1.5", 4),
                Setting("database", "--database=sqlite:///ü.db", 5),
                Setting("quiet", "--quiet", 6),
            ],
            read(path, NAMES),
        )
        self.assertEqual([Setting("quiet", None, 1)], read(self.write("quiet = false"), NAMES))
        self.assertEqual([], read(self.write("# nothing\n\n"), NAMES))

    def test_what_editors_write(self) -> None:
        """Line ends and a byte order mark of Windows make no difference."""
        path = self.write("\ufeffport = 1\r\n\r\nstall-timeout = 2\r\n")
        self.assertEqual([1, 3], [setting.line for setting in read(path, NAMES)])

    def test_lines(self) -> None:
        """A value of several lines counts where it begins, and what looks like a setting in it
        is none.
        """
        path = self.write('database = """\\\nport = 1\\\n"""\nport = 2\n')
        self.assertEqual(
            [Setting("database", "--database=port = 1", 1), Setting("port", "--port=2", 4)],
            read(path, NAMES),
        )

    def test_unknown_name(self) -> None:
        """A name that is no option's is told with the nearest one, if one is near."""
        for name in ("stal-timeout", "stall_timeout", "Stall-Timeout", "--stall-timeout"):
            self.assert_refused(
                f"port = 1\n{name} = 1",
                f", line 2: there is no option {name}; did you mean stall-timeout?",
            )
        self.assert_refused(
            '"a\\nb" = 1',
            ", line 1: there is no option a\\nb; they are those of twistd asyncchat --help",
        )

    def test_itself(self) -> None:
        """The file can't name another one."""
        self.assert_refused(
            'config = "x"', ", line 1: config names this file, and can't stand in it"
        )

    def test_wrong_type(self) -> None:
        """A value of another type than an option can have is told with its kind."""
        for value, kind in {
            "true": "true or false",
            "[1, 2]": "a list",
            "{ a = 1 }": "a table",
            "2026-01-01": "a date or a time",
            "07:32:00": "a date or a time",
        }.items():
            self.assert_refused(
                f"port = {value}",
                f", line 1: --port is a number, or text in quotes, not {kind}",
            )
        for value, kind in {"1": "a number", "1.5": "a number", '"yes"': "text"}.items():
            self.assert_refused(
                f"quiet = {value}", f", line 1: --quiet is true or false, not {kind}"
            )

    def test_tables(self) -> None:
        """There are no tables, in whatever form."""
        for text in ("[server]\nport = 1", "server.port = 1", "[[server]]", "server = {}"):
            self.assert_refused(
                text,
                ", line 1: server is a table; all options stand outside of tables",
            )

    def test_twice(self) -> None:
        """A name that stands there twice is told with both lines, also at the very end."""
        self.assert_refused("port = 1\n\nport = 2", ", line 3: port stands in line 1 already")

    def test_syntax(self) -> None:
        """What is no TOML is told with the line, and for what nobody ends with its beginning."""
        # What is wrong, tomllib says in words that change from one Python to the next.
        for text, line in {
            "port = 1\ndatabase = users.db": 2,
            "port = 1\nport\n\n": 2,
            "port = 1\n\ndatabase = '''\nport = 2\n": 3,
            "port = [1,\n2,": 1,
            "port = " + "9" * 5000: 1,
            "port = " + "[" * 5000: 1,
        }.items():
            error = self.assertRaises(ConfigError, read, self.write(text), NAMES)
            self.assertRegex(
                str(error),
                rf"\Achat\.toml, line {line}: [^\n]+; a line looks like port = 5555, and text"
                r" stands in quotes\Z",
            )

    def test_characters(self) -> None:
        """What no command line can hold, or no line show, is refused."""
        self.assert_refused(
            'database = "a\\u0000b"',
            ", line 1: --database holds a character that is not printable",
        )
        self.assert_refused(
            "port = 0x" + "f" * 5000, ", line 1: --port is not as long a number as that"
        )

    def test_encoding(self) -> None:
        """A file in another encoding is told with the line."""
        self.assert_refused(
            "# Größe\nport = 1\n# ß".encode() + "\n# ß".encode("latin-1"),
            ", line 4: is not UTF-8: save the file as UTF-8",
        )

    def test_unreadable(self) -> None:
        """A file that is not there, or is none, is told with the system's reason."""
        for path, reason in {"no.toml": "No such file or directory", ".": "Is a directory"}.items():
            error = self.assertRaises(ConfigError, read, path, NAMES)
            if os.name == "posix":
                self.assertEqual(
                    f"{path}: --config: cannot be read: {reason}; name a file that the server's"
                    " user can read",
                    str(error),
                )
            self.assertIsNone(error.line)

    def test_ignored_lines(self) -> None:
        """A line that is to be left out is, whatever is in it."""
        path = self.write("port = 1\nprot = 2\nstall-timeout = 3")
        settings = read(path, NAMES, frozenset([2]))
        self.assertEqual(["port", "stall-timeout"], [setting.name for setting in settings])


class OptionsTests(ConfigCase):
    """`Options` with ``--config``."""

    def parse(self, *arguments: str, text: str = "") -> Options:
        """Return what is parsed from a file with `text`, and `arguments`."""
        options = Options()
        options.parse([f"--config={self.write(text)}", *arguments])
        return options

    def refusal(self, text: str, *arguments: str) -> str:
        """Return what is told to an operator who starts the server with `text` in the file."""
        options = Options()
        with self.assertRaises(SystemExit) as caught:
            options.parseOptions([f"--config={self.write(text)}", *arguments])
            makeService(options, reactor)
        return str(caught.exception.code)

    def test_every_option(self) -> None:
        """Every option with a default can stand in the file, and says there what it says on the
        command line.
        """
        defaults = {
            name: default for name, default in Options().defaults.items() if default is not None
        }
        text = "".join(f'{name} = "{default}"\n' for name, default in defaults.items())
        plain = Options()
        plain.parse([])
        self.assertIn("stall-timeout", defaults)
        self.assertEqual(dict(plain), dict(self.parse(text=text)) | {"config": None})

    def test_command_line_wins(self) -> None:
        """What stands on the command line wins, in whatever form, also over what is no value."""
        text = "port = 1\nstall-timeout = 2\ninvitation-timeout = 'soon'\n"
        options = self.parse("-p", "3", "--invitation-time", "4", text=text)
        self.assertEqual("3", options["port"])
        self.assertEqual(2.0, options["stall-timeout"])
        self.assertEqual(4.0, options["invitation-timeout"])

    def test_wrong_value(self) -> None:
        """A value that an option can't have is told as on the command line, behind the line."""
        told = "--stall-timeout is a number of seconds, 0 for no limit, not '-1'"
        self.assertEqual(
            f"asyncchat: chat.toml, line 2: {told}", self.refusal("port = 0\nstall-timeout = -1")
        )
        error = self.assertRaises(UsageError, self.parse, "--stall-timeout=-1", text="")
        self.assertEqual(told, str(error))

    def test_found_later(self) -> None:
        """What shows only when the server is put together is told with the line too."""
        for text, told in {
            "port = 70000": "--port 70000: a port number is at most 65535",
            "port = 0\ndatabase = 'sqlite://'": "--database: accounts in memory would be gone",
            "port = 0\ndatabase = 'sqlite:///no/x.db'": "there is no folder ",
            "private-key = 'chat.toml'\ncertificate = 'chat.toml'": (
                f"{os.path.abspath('chat.toml')}: holds no certificate"
            ),
        }.items():
            line = text.count("\n") + 1
            self.assertIn(f"asyncchat: chat.toml, line {line}: {told}", self.refusal(text))
        self.assertIn("asyncchat: --port 70000: ", self.refusal("port = 0", "--port=70000"))

    def test_flag(self) -> None:
        """A flag is on or off in the file, and on if the command line has it."""

        class WithFlag(Options):
            optFlags: ClassVar[list[list[str]]] = [["quiet", "q", "Say less."]]

        for text, arguments, value in (
            ("quiet = true", [], 1),
            ("quiet = false", [], 0),
            ("quiet = false", ["-q"], 1),
        ):
            options = WithFlag()
            options.parse([f"--config={self.write(text)}", *arguments])
            self.assertEqual(value, options["quiet"])

    def test_mistake_on_the_command_line(self) -> None:
        """A mistake on the command line is not laid on the file."""
        self.assertEqual(
            "asyncchat: option --nonsense not recognized; try: twistd asyncchat --help",
            self.refusal("port = 1", "--nonsense"),
        )
        self.assertIn("asyncchat: --config needs a value", self.refusal("port = 1", "--config="))

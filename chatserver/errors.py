"""What an operator has to mend."""


class OperatorError(Exception):
    """The server can't start like this. The text is one line: what is wrong, and what to do.

    `option` is the name of the option that it is about. Without it the text tells: by the option
    at its start (``--port 80: ...``), or by the file that an option names.
    """

    option: str | None = None

    def __init__(self, text: str, option: str | None = None) -> None:
        super().__init__(text)
        self.option = option or self.option

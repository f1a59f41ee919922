"""What an operator has to mend."""


class OperatorError(Exception):
    """The server can't start like this. The text is one line: what is wrong, and what to do."""

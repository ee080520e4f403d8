"""The one error of the local stack: a sentence for the person at the terminal."""


class StackError(Exception):
    """The stack cannot do what was asked; the message says what is wrong and what to do, in one line."""

"""What a command ends with: the exit codes, and the error that is told in one line.

`docs/reference/exit-codes.md` has the same table; a test compares the two.
"""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes. The value of each one's docstring is in the documentation."""

    DONE = 0
    FOUND = 1
    USAGE = 2
    INPUT = 3
    SESSION = 4
    MISSING = 5
    OUTPUT = 6
    DEFECT = 70
    INTERRUPTED = 130
    CLOSED_PIPE = 141


MEANINGS = {
    Exit.DONE: "the command has done what it was asked for",
    Exit.FOUND: "it was done, and what was looked for is not as it should be, such as a problem that `doctor` found",
    Exit.USAGE: "the command line is wrong",
    Exit.INPUT: "a file cannot be read, or has no events",
    Exit.SESSION: "there is no such session, or it cannot be looked into",
    Exit.MISSING: "something that is needed is not installed: an extra, a program, a feature of the system",
    Exit.OUTPUT: "the result cannot be written or sent",
    Exit.DEFECT: "a defect of relay_mp: the traceback is shown",
    Exit.INTERRUPTED: "Ctrl-C",
    Exit.CLOSED_PIPE: "who read the output has gone, as `head` does",
}


class CommandError(Exception):
    """A command cannot go on. The message is one line: what was found, what was expected, what to do.

    Args:
        exit_code: what the command ends with.
        message: the line.
    """

    def __init__(self, exit_code: Exit, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code

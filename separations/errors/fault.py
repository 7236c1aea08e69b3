"""The exception for every error that a user or an operator can act on. No Django here.

A fault carries a code and the values for its message; `errors.user_messages` makes a text of them
in the reader's language, at the edge (page, API, command line, admin).
"""

import errno
from typing import Any


class Fault(Exception):
    """An error with a code, and a message that says what to do next.

    trace: for the log and the operator: the traceback, if it happened in another process; how a
        process ended and its last lines.
    """

    def __init__(self, code: str, **params: Any) -> None:
        self.code = code
        self.params = params
        self.trace = ""
        super().__init__(code, params)

    def __str__(self) -> str:
        values = ", ".join(f"{name}={value}" for name, value in self.params.items())
        return f"{self.code} ({values})" if values else self.code


def storage_fault(error: OSError) -> Fault:
    """The fault for an error in writing or reading a file."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Fault("disk_full")
    return Fault("storage", reason=error.strerror or str(error))

"""The one exception for everything a person can cause or cure. No Django here.

A fault carries a code and the values its sentence needs; `separations.sentences` turns both into
a text in the reader's language, at the edge (page, command line, admin).
"""

import errno
from typing import Any


class Fault(Exception):
    """Something went wrong in a way that has a name and, for its reader, a next step.

    trace: where it happened, for the operator's log, when that was in another process.
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
    """The fault for a file that could not be written or read."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Fault("disk_full")
    return Fault("storage", reason=error.strerror or str(error))

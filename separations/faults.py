"""The one exception for everything a person can cause or cure. No Django here.

A fault carries a code and the values its sentence needs; `separations.sentences` turns both into
a text in the reader's language, at the edge (page, command line, admin).
"""

from typing import Any


class Fault(Exception):
    """Something went wrong in a way that has a name and, for its reader, a next step."""

    def __init__(self, code: str, **params: Any) -> None:
        self.code = code
        self.params = params
        super().__init__(code, params)

    def __str__(self) -> str:
        values = ", ".join(f"{name}={value}" for name, value in self.params.items())
        return f"{self.code} ({values})" if values else self.code

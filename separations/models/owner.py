"""The owner of a song: an account, or a visitor without one."""

import uuid
from dataclasses import dataclass


@dataclass(frozen=True)
class Owner:
    """An account, or the visitor whose session has this id."""

    visitor: str
    user_id: int | None = None
    client: str = ""  # the client address of the request; stored only as a hash, for limits
    task: uuid.UUID | None = None  # one job of another visitor, by a token that names it

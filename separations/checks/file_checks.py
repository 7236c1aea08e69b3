"""System checks: which other users can reach the site's files, and its database and queue."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Tags, Warning, register

try:
    import grp
    import pwd
except ImportError:  # no Unix: no modes either
    grp = pwd = None  # type: ignore[assignment]

LOCAL_HOSTS = ("", "localhost", "127.0.0.1", "::1")


def readers(path: Path, bits: int = 0o4) -> str:
    """Which other users may read `path` by its mode, in words; "" if only its owner may.

    bits: of the mode's last digit; 0o4 is reading, 0o2 writing.
    A group counts if it has other members and GROUP_ACCESS does not allow it.
    """
    try:
        found = path.stat()
    except OSError:
        return ""
    if os.name != "posix":
        return ""
    if found.st_mode & bits:
        return "everybody on this machine"
    if not settings.GROUP_ACCESS and found.st_mode & bits << 3:
        return _others_in(found.st_gid)
    return ""


def _others_in(group: int) -> str:
    """The group with its members other than this process's user and root; "" if there are none."""
    own = os.geteuid()
    names = {user.pw_name for user in pwd.getpwall() if user.pw_gid == group}
    try:
        entry = grp.getgrgid(group)
    except KeyError:
        return ""
    names |= set(entry.gr_mem)
    names -= {user.pw_name for user in pwd.getpwall() if user.pw_uid in (own, 0)}
    return f"the group {entry.gr_name} ({', '.join(sorted(names))})" if names else ""


@register(Tags.security)
def secrets_are_kept(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """With the secret key anybody can sign in as any user."""
    return [
        Warning(
            f"{who[0].upper()}{who[1:]} can read {path}.",
            hint=f"Give it to the site's user alone: chmod 600 {path}",
            id="stemsite.W020",
        )
        for path in settings.SECRET_FILES
        if (who := readers(path))
    ]


@register(Tags.security)
def data_is_private(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """The start of the site closes DATA_DIR; a database may lie elsewhere."""
    folder = Path(settings.DATA_DIR)
    found = [(folder, readers(folder, 0o7))]
    found += [(file, readers(file, 0o6)) for file in _database_files() if _is_open(file.parent)]
    messages: list[CheckMessage] = [
        Warning(
            f"{who[0].upper()}{who[1:]} can reach {path}, with songs, sessions and password "
            "hashes.",
            hint=f"Give it to the site's user alone: chmod go= {path}",
            id="stemsite.W025",
        )
        for path, who in found
        if who
    ]
    owner = folder.stat().st_uid if folder.exists() else os.geteuid()  # it is made at the start
    if os.name == "posix" and owner != os.geteuid():
        messages.append(
            Warning(
                f"DATA_DIR, {folder}, belongs to another user (uid {owner}), who can read and "
                "change all that lies in it.",
                hint="Give it to the site's user (chown), and run manage.py as that user.",
                id="stemsite.W026",
            )
        )
    return messages


def _database_files() -> Iterator[Path]:
    """The files of the database and of the queue, where they are files."""
    database = settings.DATABASES["default"]
    names = [str(database["NAME"])] if "sqlite3" in database["ENGINE"] else []
    queue = getattr(settings.HUEY.storage, "filename", None)
    for name in (*names, *([str(queue)] if queue else [])):
        for suffix in ("", "-wal", "-shm"):
            yield Path(name + suffix)


def _is_open(folder: Path) -> bool:
    """Whether others may go through `folder` to a file in it."""
    return bool(readers(folder, 0o1))


@register(Tags.security)
def weights_are_kept(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """A changed model changes the stems of every song."""
    store = Path(settings.MODEL_DIR)
    return [
        Warning(
            f"{who[0].upper()}{who[1:]} can change {path}, and with it what comes out of songs.",
            hint=f"Let its owner alone write there: chmod go-w {path}",
            id="stemsite.W027",
        )
        for path in _store_paths(store)
        if (who := readers(path, 0o2))
    ]


def _store_paths(store: Path) -> Iterable[Path]:
    if store.is_dir():
        yield store
        yield from sorted(path for path in store.rglob("*") if not path.name.startswith("."))


@register(Tags.security)
def services_ask_for_a_password(
    app_configs: Sequence[Any] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Database and queue without a password are open to every process that reaches them.

    PostgreSQL can authenticate a local user without a password, and in other ways; Redis accepts
    every connection to its port, also from this machine.
    """
    found = []
    for name, url in (("HUEY_URL", settings.HUEY_URL), ("DATABASE_URL", settings.DATABASE_URL)):
        parts = urlsplit(url)
        if parts.password or not parts.scheme:
            continue
        given = parse_qs(parts.query)
        if parts.scheme in ("redis", "rediss"):
            trusted = "password" in given or "ssl_certfile" in given
        elif parts.scheme in ("postgres", "postgresql"):
            trusted = _is_trusted_postgres(parts.hostname or "", given)
        else:
            trusted = True
        if not trusted:
            found.append(_without_password(name))
    return found


def _is_trusted_postgres(host: str, given: dict[str, list[str]]) -> bool:
    host = unquote(given.get("host", [host])[0])
    other = {"password", "passfile", "sslcert", "service"} & given.keys()
    return host in LOCAL_HOSTS or host.startswith("/") or bool(other) or _postgres_environment()


def _postgres_environment() -> bool:
    return any(os.environ.get(name) for name in ("PGPASSWORD", "PGPASSFILE", "PGSERVICE"))


def _without_password(name: str) -> CheckMessage:
    return Warning(
        f"{name} holds no password: who reaches that server reads what the site keeps there, "
        "addresses of people among it, and can delete it.",
        hint="Have the server ask for a password (Redis: requirepass, or a user of its own), and "
        f"write it into {name}: redis://:PASSWORD@HOST/0, postgresql://USER:PASSWORD@HOST/NAME",
        id="stemsite.W028",
    )

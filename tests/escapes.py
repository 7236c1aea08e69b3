"""Run in place of `separations.audio.child`: enters the sandbox, then tries to get out of it.

The task is JSON: what to try it on, and which layer to leave out.
"""

import ctypes
import json
import mmap
import os
import resource
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import separations.audio.child
from separations.audio import sandbox
from separations.audio.child import say


def attempts(other: Path, port: int) -> dict[str, Callable[[], object]]:
    def connect() -> None:
        with socket.socket() as client:
            client.connect(("127.0.0.1", port))

    def fork() -> None:
        if os.fork() == 0:
            os._exit(0)

    def make_code() -> None:
        mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)

    def trace() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        seize = 0x4206
        if libc.ptrace(ctypes.c_long(seize), os.getppid(), None, None) != 0:
            raise PermissionError

    return {
        "read a file of the system": lambda: Path("/etc/passwd").read_bytes(),
        "read another's song": lambda: other.read_bytes(),
        "open the own song again": lambda: Path("/proc/self/fd/0").read_bytes(),
        "read the parent's environment": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
        "list a folder": lambda: list(other.parent.iterdir()),
        "write a file": lambda: (other.parent / "new").write_bytes(b"x"),
        "overwrite a file": lambda: other.write_bytes(b"x"),
        "make an empty file": lambda: (other.parent / "empty").touch(),
        "delete a file": other.unlink,
        "rename a file": lambda: other.rename(other.with_name("moved")),
        "connect": connect,
        "send a datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "make a local socket": lambda: socket.socket(socket.AF_UNIX),
        "make a process": fork,
        "make a thread": lambda: threading.Thread(target=int).start(),
        "signal the parent": lambda: os.kill(os.getppid(), 0),
        "trace the parent": trace,
        "make code": make_code,
        "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)),
        "take much memory": lambda: bytes(2 << 30),
        "run a program": lambda: os.execv("/bin/true", ["true"]),  # last: it would not come back
    }


def main() -> None:
    given = json.loads(sys.argv[1])
    for layer in given["without"]:
        setattr(sandbox, layer, lambda _libc: False)
    other = Path(given["other"])
    tries = attempts(other, given["port"])
    if len(given["without"]) == 2:
        del tries["run a program"]  # nothing would stop it
    say(missing=sandbox.enter(30))
    say(environment=dict(os.environ))
    for name, attempt in tries.items():
        try:
            attempt()
        except (OSError, MemoryError, RuntimeError, ValueError) as error:
            say(name=name, error=type(error).__name__)
        else:
            say(name=name, error="")
    say(end=True)
    os._exit(0)


if __name__ == "__main__":
    assert separations.audio.child
    main()

"""Run in place of `audio.sandbox.worker`: enters the sandbox, then tries to get out of it.

The task is JSON: what to try it on, and which layer to leave out.
"""

import ctypes
import json
import mmap
import os
import platform
import resource
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import separations.audio.sandbox.worker
from separations.audio.sandbox import lockdown
from separations.audio.sandbox.worker import send


def attempts(other: Path, port: int) -> dict[str, Callable[[], object]]:
    def connect() -> None:
        with socket.socket() as client:
            client.connect(("127.0.0.1", port))

    def fork() -> None:
        if os.fork() == 0:
            os._exit(0)

    def make_thread() -> None:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()  # else it is still beginning while the next one is tried

    def make_code() -> None:
        mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)

    def trace() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        seize = 0x4206
        if libc.ptrace(ctypes.c_long(seize), os.getppid(), None, None) != 0:
            raise PermissionError

    libc = ctypes.CDLL(None, use_errno=True)
    here, empty_path = -100, 0x1000
    into = ctypes.create_string_buffer(4096)  # for answers; the attempts that name it keep it alive

    def asked(number: tuple[int, int], *arguments: Any) -> None:
        """Make a system call, given by its numbers on x86-64 and ARM64, that takes a path."""
        passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
        call = number[platform.machine() == "aarch64"]
        if libc.syscall(ctypes.c_long(call), *passed) < 0:
            raise OSError(ctypes.get_errno(), "refused")

    path = str(other).encode()
    return {
        "see whether a file exists": other.stat,
        "see whether a path is missing": lambda: _missing(other),
        "look at a path by its folder's descriptor": lambda: asked(
            (262, 79), 0, path, into, empty_path
        ),
        "statx": lambda: asked((332, 291), here, path, 0, 0x7FF, into),
        "access": lambda: asked((269, 48), here, path, 0),
        "access, the newer call": lambda: asked((439, 439), here, path, 0, 0),
        "read a link": lambda: asked((267, 78), here, b"/proc/self/exe", into, 4096),
        "read an attribute": lambda: asked((191, 8), path, b"user.x", into, 4096),
        "look at a file system": lambda: asked((137, 43), path, into),
        "go to a folder": lambda: os.chdir(other.parent),
        "get a handle of a path": lambda: asked(
            (303, 264), here, path, into, ctypes.byref(into, 2048), 0
        ),
        "watch a path": lambda: asked((254, 27), 0, path, 0xFFF),
        "open a path without reading": lambda: os.open(other, os.O_PATH),
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
        "make a thread": make_thread,
        "signal the parent": lambda: os.kill(os.getppid(), 0),
        "trace the parent": trace,
        "make code": make_code,
        "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)),
        "take much memory": lambda: bytes(2 << 30),
        "run a program": lambda: os.execv("/bin/true", ["true"]),  # last: it would not come back
    }


def _missing(other: Path) -> None:
    """Errors that differ would tell what exists."""
    for path in (other, other.with_name("no such file")):
        try:
            path.stat()
        except PermissionError:
            continue
        except FileNotFoundError:
            return
    raise PermissionError


def main() -> None:
    given = json.loads(sys.argv[1])
    for layer in given["without"]:
        setattr(lockdown, layer, lambda _libc: False)
    other = Path(given["other"])
    tries = attempts(other, given["port"])
    if len(given["without"]) == 2:
        del tries["run a program"]  # nothing would stop it
    send(missing=lockdown.enter(30))
    send(environment=dict(os.environ))
    for name, attempt in tries.items():
        try:
            attempt()
        except (OSError, MemoryError, RuntimeError, ValueError) as error:
            send(name=name, error=type(error).__name__)
        else:
            send(name=name, error="")
    send(end=True)
    os._exit(0)


if __name__ == "__main__":
    assert separations.audio.sandbox.worker
    main()

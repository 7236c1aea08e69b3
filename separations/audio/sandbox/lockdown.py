"""Sandbox of a decoder: what a process gives up before it reads a song. It needs no root.

`enter` is called when everything is imported and only the song and the pipes for answers and error
output are open. From then on the process can compute, read the song and answer, no more:

- limits (setrlimit): memory, CPU time, no file to write, no process, no core dump, few open files;
- no new privileges, no tracing, and it dies with its parent (prctl);
- Landlock with no rule at all: no path can be opened, no TCP port bound or connected to, and no
  signal or abstract socket reaches another process;
- seccomp with a short list of system calls: the others fail with EPERM, among them open, socket,
  connect, execve, clone, ptrace and kill; memory cannot be made executable. No call on the list
  takes a path, so that not even the existence of a file can be asked (Landlock does not cover stat,
  and its errors differ). newfstatat is missing for that reason, and with it os.fstat on many
  systems: see `separations.audio.decoding.file_view.size_of`.

Landlock and seccomp are Linux', and each holds without the other. Where one is missing (another
system or processor, an old kernel, a container that forbids it) the rest still holds, and `enter`
returns what is missing.

Own code, because of what PyPI offers (November 2026): `landlock` is an alpha that knows the file
system only, `py-landlock` too, `pyseccomp` wants libseccomp installed and was last released in
2021, `seccompy` is two months old and unknown. What is needed of either are three system calls and
a filter without branches; the constants are those of linux/landlock.h, seccomp.h and bpf_common.h.
"""

import contextlib
import ctypes
import os
import platform
import signal
import sys
from pathlib import Path

from separations.audio.sandbox.seccomp_filter import CALLS, KILL_PROCESS, filter_of

try:
    import resource
except ImportError:  # no Unix
    resource = None  # type: ignore[assignment]

LANDLOCK, SECCOMP = "Landlock", "seccomp"
# On top of what the process holds when the sandbox closes (libraries). Songs of every format needed
# at most 24 MB (an hour of AAC, a cover of 10 MB, 7.1 at 192 kHz), and an MP3 that is nothing but
# 60 MB of covers 62 MB. The limit is on address space (RLIMIT_AS), not on RLIMIT_DATA, which does
# not count shared mappings: an exploited decoder could have any number of those.
ROOM_BYTES = 128 << 20
OWN_BYTES = 32 << 20  # of the process itself, not backed by a file
PROCESS_BYTES = OWN_BYTES + ROOM_BYTES  # the most memory that one decoder uses
UNKNOWN_SIZE = 900 << 20  # assumed where the system does not state how much is mapped
OPEN_FILES = 8  # the song, two pipes, and the song once more for FFmpeg

# prctl
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38

# Landlock: the same numbers on every processor.
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF = 444, 446
CREATE_RULESET_VERSION = 1
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}  # version: how many rights on files it knows
NETWORK_VERSION, NETWORK_RIGHTS = 4, 0b11  # bind and connect, TCP
SCOPE_VERSION, SCOPES = 6, 0b11  # abstract sockets, signals

# seccomp
SECCOMP_SET_MODE_FILTER, SECCOMP_GET_ACTION_AVAIL = 1, 2
FILTER_ALL_THREADS = 1


class _Ruleset(ctypes.Structure):
    """struct landlock_ruleset_attr."""

    _fields_ = [
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    ]


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def missing() -> tuple[str, ...]:
    """The layers that this system does not offer, found without entering them."""
    lacking = () if _landlock_version() > 0 else (LANDLOCK,)
    return lacking if _offers_seccomp() else (*lacking, SECCOMP)


def enter(cpu_seconds: int) -> tuple[str, ...]:
    """Give up all that decoding does not need; there is no way back.

    Returns:
        Those of LANDLOCK and SECCOMP that could not be entered here.
    """
    _set_limits(cpu_seconds)
    if sys.platform != "linux":
        return LANDLOCK, SECCOMP
    libc = ctypes.CDLL(None, use_errno=True)
    _prctl(libc, PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(libc, PR_SET_DUMPABLE, 0)
    if not _prctl(libc, PR_SET_NO_NEW_PRIVS, 1):
        return LANDLOCK, SECCOMP  # both require it
    lacking = () if _enter_landlock(libc) else (LANDLOCK,)
    return lacking if _enter_seccomp(libc) else (*lacking, SECCOMP)


def _set_limits(cpu_seconds: int) -> None:
    if resource is None:
        return
    limits = {
        "RLIMIT_AS": _address_space() + ROOM_BYTES,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NPROC": 0,  # does not bind root, which seccomp stops
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": OPEN_FILES,
        "RLIMIT_CPU": cpu_seconds,
    }
    for name, value in limits.items():
        # The soft limit of time sends SIGXCPU, which tells why; the hard one SIGKILL.
        hard = value + 1 if name == "RLIMIT_CPU" else value
        # Not every system knows every limit; and one that is lower already may stay.
        with contextlib.suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (value, hard))


def _address_space() -> int:
    """Bytes that this process has mapped (proc(5), statm)."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[0]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return UNKNOWN_SIZE


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> bool:
    arguments = (ctypes.c_ulong(each) for each in (value, 0, 0, 0))
    return bool(libc.prctl(ctypes.c_int(option), *arguments) == 0)


def _call(libc: ctypes.CDLL, number: int, *arguments: object) -> int:
    """A system call by its number: its result, or -1. Numbers are passed as long."""
    passed = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    libc.syscall.restype = ctypes.c_long
    return int(libc.syscall(ctypes.c_long(number), *passed))


def _landlock_version() -> int:
    """Version of Landlock's interface, -1 where there is none."""
    if sys.platform != "linux":
        return -1
    libc = ctypes.CDLL(None, use_errno=True)
    return _call(libc, LANDLOCK_CREATE_RULESET, None, 0, CREATE_RULESET_VERSION)


def _enter_landlock(libc: ctypes.CDLL) -> bool:
    version = _landlock_version()
    if version < 1:
        return False
    rights = max(count for known, count in FILE_RIGHTS.items() if known <= version)
    rules = _Ruleset((1 << rights) - 1)
    size = ctypes.sizeof(ctypes.c_uint64)
    if version >= NETWORK_VERSION:
        rules.handled_access_net = NETWORK_RIGHTS
        size = 2 * ctypes.sizeof(ctypes.c_uint64)
    if version >= SCOPE_VERSION:
        rules.scoped = SCOPES
        size = ctypes.sizeof(rules)
    ruleset = _call(libc, LANDLOCK_CREATE_RULESET, ctypes.byref(rules), size, 0)
    if ruleset < 0:
        return False
    done = _call(libc, LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return done


def _offers_seccomp() -> bool:
    if sys.platform != "linux" or platform.machine() not in CALLS:
        return False
    number = CALLS[platform.machine()][1]
    action = ctypes.c_uint32(KILL_PROCESS)
    libc = ctypes.CDLL(None, use_errno=True)
    return _call(libc, number, SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0


def _enter_seccomp(libc: ctypes.CDLL) -> bool:
    if platform.machine() not in CALLS:
        return False
    instructions = filter_of(platform.machine())
    program = _Program(len(instructions) // 8, instructions)
    return (
        _call(
            libc,
            CALLS[platform.machine()][1],
            SECCOMP_SET_MODE_FILTER,
            FILTER_ALL_THREADS,
            ctypes.byref(program),
        )
        == 0
    )

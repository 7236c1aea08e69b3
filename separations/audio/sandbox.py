"""What a process gives up before it looks at a stranger's file. It needs no root.

`enter` is called when everything is imported and only the song, the answer's pipe and the pipe for
complaints are open; from there on the process can compute, read the song and answer, no more:

- limits (setrlimit): memory, CPU time, no file to write, no process, no core dump, few open files;
- no new privileges, not to be traced, and it dies with whoever started it (prctl);
- Landlock with no rule at all: no path can be opened, no TCP port bound or connected to, and no
  signal or abstract socket reaches another process;
- seccomp with a short list of system calls: the others fail with EPERM, among them open, socket,
  connect, execve, clone, ptrace and kill; memory cannot be made executable.

Landlock and seccomp are Linux', and each holds without the other. Where one is missing (another
system or processor, an old kernel, a container that forbids it) the rest still holds, and `enter`
says what is missing.

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
import struct
import sys

try:
    import resource
except ImportError:  # no Unix
    resource = None  # type: ignore[assignment]

LANDLOCK, SECCOMP = "Landlock", "seccomp"
MEMORY_BYTES = 1 << 30
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
KILL_PROCESS, REFUSE, ALLOW = 0x80000000, 0x00050000 | 1, 0x7FFF0000  # 1: EPERM
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06  # of classic BPF
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data
PROT_EXEC = 4
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC; not those that have signals sent
FCNTL_COMMANDS = (0, 1, 2, 3, 1030)

# machine: (AUDIT_ARCH, number of seccomp(), of fcntl(), of mmap() and mprotect(), of what is free)
CALLS = {
    "x86_64": (
        0xC000003E,
        317,
        72,
        (9, 10),
        {
            "read": 0,
            "write": 1,
            "close": 3,
            "fstat": 5,
            "lseek": 8,
            "munmap": 11,
            "brk": 12,
            "rt_sigaction": 13,
            "rt_sigprocmask": 14,
            "rt_sigreturn": 15,
            "pread64": 17,
            "readv": 19,
            "writev": 20,
            "sched_yield": 24,
            "mremap": 25,
            "madvise": 28,
            "dup": 32,
            "getpid": 39,
            "exit": 60,
            "gettimeofday": 96,
            "sigaltstack": 131,
            "gettid": 186,
            "futex": 202,
            "sched_getaffinity": 204,
            "restart_syscall": 219,
            "clock_gettime": 228,
            "exit_group": 231,
            "newfstatat": 262,
            "getrandom": 318,
        },
    ),
    "aarch64": (
        0xC00000B7,
        277,
        25,
        (222, 226),
        {
            "dup": 23,
            "close": 57,
            "lseek": 62,
            "read": 63,
            "write": 64,
            "readv": 65,
            "writev": 66,
            "pread64": 67,
            "newfstatat": 79,
            "fstat": 80,
            "exit": 93,
            "exit_group": 94,
            "futex": 98,
            "clock_gettime": 113,
            "sched_getaffinity": 123,
            "sched_yield": 124,
            "restart_syscall": 128,
            "sigaltstack": 132,
            "rt_sigaction": 134,
            "rt_sigprocmask": 135,
            "rt_sigreturn": 139,
            "gettimeofday": 169,
            "getpid": 172,
            "gettid": 178,
            "brk": 214,
            "munmap": 215,
            "mremap": 216,
            "madvise": 233,
            "getrandom": 278,
        },
    ),
}


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
    """The layers that this system does not offer; asked without entering them."""
    lacking = () if _landlock_version() > 0 else (LANDLOCK,)
    return lacking if _offers_seccomp() else (*lacking, SECCOMP)


def enter(cpu_seconds: int) -> tuple[str, ...]:
    """Give up whatever it does not take to decode the song; there is no way back.

    Returns:
        The layers that could not be put on here, of LANDLOCK and SECCOMP.
    """
    _set_limits(cpu_seconds)
    if sys.platform != "linux":
        return LANDLOCK, SECCOMP
    libc = ctypes.CDLL(None, use_errno=True)
    _prctl(libc, PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(libc, PR_SET_DUMPABLE, 0)
    if not _prctl(libc, PR_SET_NO_NEW_PRIVS, 1):
        return LANDLOCK, SECCOMP  # neither is to be had without
    lacking = () if _enter_landlock(libc) else (LANDLOCK,)
    return lacking if _enter_seccomp(libc) else (*lacking, SECCOMP)


def _set_limits(cpu_seconds: int) -> None:
    if resource is None:
        return
    limits = {
        "RLIMIT_AS": MEMORY_BYTES,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NPROC": 0,  # counts for everyone but root, whom seccomp stops
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": OPEN_FILES,
        "RLIMIT_CPU": cpu_seconds,
    }
    for name, value in limits.items():
        # At the softer limit of time comes SIGXCPU, which says why; at the other SIGKILL.
        hard = value + 1 if name == "RLIMIT_CPU" else value
        # Not every system knows every limit; and one that is lower already may stay so.
        with contextlib.suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (value, hard))


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
    instructions = _filter(platform.machine())
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


def _filter(machine: str) -> bytes:
    """The list of system calls as a program of classic BPF, eight bytes an instruction."""
    architecture, _seccomp, fcntl, executing, free = CALLS[machine]
    program = [
        _step(LOAD, ARCHITECTURE_AT),
        _step(EQUAL, architecture, 1, 0),
        _step(RETURN, KILL_PROCESS),  # a 32-bit call, whose numbers mean something else
        _step(LOAD, NUMBER_AT),
    ]
    for number in free.values():
        program += [_step(EQUAL, number, 0, 1), _step(RETURN, ALLOW)]
    for number in executing:
        program += [
            _step(EQUAL, number, 0, 4),
            _step(LOAD, ARGUMENTS_AT + 2 * 8),
            _step(ANY_BIT, PROT_EXEC, 0, 1),
            _step(RETURN, REFUSE),
            _step(RETURN, ALLOW),
        ]
    program += [
        _step(EQUAL, fcntl, 0, 2 + 2 * len(FCNTL_COMMANDS) - 1),
        _step(LOAD, ARGUMENTS_AT + 1 * 8),
    ]
    for command in FCNTL_COMMANDS:
        program += [_step(EQUAL, command, 0, 1), _step(RETURN, ALLOW)]
    program.append(_step(RETURN, REFUSE))
    return b"".join(program)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """struct sock_filter: how many instructions to skip if a comparison holds, and if not."""
    return struct.pack("=HBBI", code, if_true, if_false, value)

"""The seccomp filter of a decoder: which system calls it may make, as a program of classic BPF.

Each processor has its own numbers; constants are those of linux/seccomp.h and bpf_common.h.
"""

import struct

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


def filter_of(machine: str) -> bytes:
    """The list of system calls as a program of classic BPF, eight bytes an instruction."""
    architecture, _seccomp, fcntl, executing, free = CALLS[machine]
    program = [
        _step(LOAD, ARCHITECTURE_AT),
        _step(EQUAL, architecture, 1, 0),
        _step(RETURN, KILL_PROCESS),  # a 32-bit call, whose numbers mean other calls
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

"""A decoder that was taken over and takes all the memory it can get; see `test_decoders`."""

import mmap
import sys
import time

from separations.audio.sandbox import lockdown
from separations.audio.sandbox.worker import send

PIECE = 4 << 20


def main() -> None:
    send(missing=lockdown.enter(30))
    shared = mmap.MAP_SHARED if sys.argv[1] == "shared" else mmap.MAP_PRIVATE
    held: list[mmap.mmap] = []
    try:
        while len(held) < 100:
            held.append(mmap.mmap(-1, PIECE, flags=shared | mmap.MAP_ANONYMOUS))
            held[-1].write(bytes(1) * PIECE)
    except (MemoryError, OSError):
        pass
    send(held=len(held) * PIECE)
    time.sleep(30)


if __name__ == "__main__":
    main()

"""What this machine multiplies at best: `python -m tests.bench.matrix_peak THREADS PRECISION`."""

import sys
import time

import torch

SIZE = 3072
ROUNDS = 8


def main() -> None:
    threads, precision = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(threads)
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = (torch.randn(SIZE, SIZE).to(kind) for _ in range(2))
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.monotonic()
        torch.mm(left, right)
        best = min(best, time.monotonic() - began)
    print(2 * SIZE**3 / best)


if __name__ == "__main__":
    main()

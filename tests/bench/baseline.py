"""`demucs.api.Separator` with its defaults, in a process of its own: songs in, seconds out.

`python -m tests.bench.baseline MODEL_DIR MODEL`, then the path of a WAV file on each line.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from demucs import api
from demucs.apply import BagOfModels

from separations.engine import memory
from separations.engine.inference.torch_network import load
from separations.engine.weights.store import read_model


def main() -> None:
    info = read_model(Path(sys.argv[1]), sys.argv[2])
    models = [load(info, part) for part in range(info.passes)]
    bag = BagOfModels(models, [list(row) for row in info.weights])
    # It would look for its weights on the network; it gets the same ones from the store.
    api.get_model = lambda **_: bag
    separator = api.Separator(model=info.name)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        samples = soundfile.read(line.strip(), dtype="float32")[0].T
        song = torch.from_numpy(np.ascontiguousarray(samples))
        memory.reset_peak()
        began = time.monotonic()
        separator.separate_tensor(song)
        seconds = time.monotonic() - began
        print(json.dumps({"seconds": seconds, "peak": memory.peak()}), flush=True)


if __name__ == "__main__":
    main()

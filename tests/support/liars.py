"""Run in place of `audio.sandbox.worker`: computes for ever, as a file may make a decoder do; or
complains for ever, as one that was taken over might.
"""

import sys

from separations.audio.sandbox import lockdown
from separations.audio.sandbox.decoder_process import DecoderProcess
from separations.audio.sandbox.worker import send


class Busy(DecoderProcess):
    module = "tests.support.liars"


if __name__ == "__main__":
    send(missing=lockdown.enter(int(sys.argv[3])))
    while True:
        if sys.argv[1] == "loud":
            sys.stderr.write("!" * 65536)

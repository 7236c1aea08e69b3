"""Run in place of `separations.audio.child`: computes for ever, as a file may make a decoder do."""

import sys

from separations.audio import sandbox
from separations.audio.child import say
from separations.audio.isolated import Child


class Busy(Child):
    module = "tests.liars"


if __name__ == "__main__":
    say(missing=sandbox.enter(int(sys.argv[3])))
    while True:
        pass

"""The decoder with hardly any memory; see `test_decoders`."""

from separations.audio.sandbox import lockdown, worker

lockdown.ROOM_BYTES = 256 << 10

if __name__ == "__main__":
    worker.main()

"""The engine process: `python -m separations.engine`. Requests in, messages out; see `process`."""

import logging
import os
import signal

# systemd and terminals signal all processes of a service at once. When this one ends is for whoever
# started it to say, by closing the pipe or by a kill. First of all: to import torch takes seconds.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)


def main() -> None:
    from separations.engine.process import serve
    from stemsite.logs import formatter

    logging.basicConfig(level=logging.INFO)
    kind = os.environ.get("LOG_FORMAT", "").strip() or "text"  # checked by the site's settings
    logging.root.handlers[0].setFormatter(formatter(kind))
    serve()


if __name__ == "__main__":
    main()

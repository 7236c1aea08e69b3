"""Start an engine process: `python -m separations.engine`; see `process.worker`."""

import faulthandler
import logging
import os
import signal

from separations.audio.child_process import end_with_parent

# systemd and terminals signal all processes of a service at once. This one ends when its parent
# closes the pipe or kills it. Set before the imports: torch needs seconds.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
# If the consumer is killed, nobody wants the song of now any more.
end_with_parent(signal.SIGKILL)


faulthandler.enable()  # a crash says where it was


def main() -> None:
    from separations.engine.process.worker import serve
    from separations.logs.formatter import formatter

    logging.basicConfig(level=logging.INFO)
    kind = os.environ.get("LOG_FORMAT", "").strip() or "text"  # checked by the site's settings
    logging.root.handlers[0].setFormatter(formatter(kind))
    serve()


if __name__ == "__main__":
    main()

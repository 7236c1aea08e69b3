"""Say that the site is ready, when web server and consumer answer, or what it waits for.

`python -m stemsite.setup.ready HOST PORT PID` does so while it is a child of the process PID, which
runs the site.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import time
from collections.abc import Callable

from stemsite.setup.steps import say

LOOK_SECONDS = 0.5
SLOW_LOOK_SECONDS = 5.0  # once PATIENCE_SECONDS have passed: each look is a request, and is logged
PATIENCE_SECONDS = 60.0  # until what is in the way is said
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 (what to ask, not to listen to)


def watch(host: str, port: str, is_running: Callable[[], bool]) -> None:
    """Wait until a site that starts is ready at http://HOST:PORT, and say so."""
    began = time.monotonic()
    told = False
    while is_running():
        lacking = what_lacks(EVERYWHERE.get(host, host), port)
        if not lacking:
            say(f"Ready: http://{host}:{port}")
            return
        if not told and time.monotonic() - began > PATIENCE_SECONDS:
            told = True
            say(f"Not ready yet: {lacking}")
        time.sleep(SLOW_LOOK_SECONDS if told else LOOK_SECONDS)


def what_lacks(host: str, port: str) -> str:
    """What keeps a site from being ready, by its own answer; "" if it is."""
    connection = http.client.HTTPConnection(f"{host}:{port}", timeout=10)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = response.read()
        if response.status == http.client.OK:
            return ""
        checks = json.loads(body)["checks"]
        return ", ".join(f"{name}: {word}" for name, word in checks.items() if word != "ok")
    except (OSError, http.client.HTTPException, ValueError, KeyError, AttributeError):
        return "the web server does not answer"
    finally:
        connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C ends it without a traceback
    watch(sys.argv[1], sys.argv[2], lambda: os.getppid() == int(sys.argv[3]))

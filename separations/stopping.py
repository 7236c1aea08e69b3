"""Whether this web server process was told to stop: what answers for long ends on it."""

import threading

# Set once, by `stemsite.web_worker`. Whoever streams waits on it instead of sleeping.
stopping = threading.Event()

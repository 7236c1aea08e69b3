"""The event that ends long responses when this web server process has to stop."""

import threading

# `stemsite.server.gunicorn_worker` sets it once. Streaming views wait on it instead of sleeping.
stopping = threading.Event()

"""Whether this process is told to stop: what takes long and can be begun again ends on it."""

import threading

stopping = threading.Event()

"""The HTTP API: the services of the pages, as JSON and server-sent events."""

"""Runs the web server and the consumer side by side, and starts again what ends.

Own code, because of what PyPI offers (November 2026): honcho ends everything when one process ends,
and cannot start one again; circus brings an event loop, ZeroMQ and a protocol of its own, and had
its last release in 2024; supervisor is a daemon with a configuration of its own, whose pauses grow
without a limit until it gives up for good. honcho's Procfile parser and printer are used.
"""

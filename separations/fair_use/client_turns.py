"""Fair turns at a scarce resource, by client: a client's many requests delay its own alone."""

import time
from collections import Counter, deque
from threading import Event, Lock

SLICE_SECONDS = 1.0  # after which a turn is shared, if others wait
HALF_LIFE = 60.0  # seconds after which half of what a client used is forgotten
FORGOTTEN = 0.01  # seconds of use


class Turn:
    """A place in the queue for a turn. `with turn:` waits for it, and ends it."""

    def __init__(self, turns: "Turns", client: str) -> None:
        self.client = client
        self.begun = Event()
        self.began_at = 0.0
        self._turns = turns

    def __enter__(self) -> "Turn":
        self.begun.wait()
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()

    def share(self) -> None:
        """Call this often during a turn: after SLICE_SECONDS it lets waiting clients go first."""
        if time.monotonic() - self.began_at >= SLICE_SECONDS and self._turns.pause(self):
            self.begun.wait()

    def end(self) -> None:
        """End the turn, begun or not. Call it once."""
        self._turns.end(self)


class Turns:
    """Gives turns to the client with the fewest under way, then to the one that used least time
    lately, then to the one that has waited longest."""

    def __init__(self, most: int) -> None:
        self._lock = Lock()
        self._free = most
        self._waiting: dict[str, deque[Turn]] = {}  # by client
        self._begun: Counter[str] = Counter()
        self._used: dict[str, tuple[float, float]] = {}  # by client: seconds, and when counted

    def ask(self, client: str) -> Turn:
        turn = Turn(self, client)
        with self._lock:
            self._waiting.setdefault(client, deque()).append(turn)
            self._begin()
        return turn

    def pause(self, turn: Turn) -> bool:
        """Put a turn back before its client's others. Returns False when no other client waits."""
        with self._lock:
            if not self._waiting.keys() - {turn.client}:
                return False
            self._stop(turn)
            turn.begun.clear()
            self._waiting.setdefault(turn.client, deque()).appendleft(turn)
            self._begin()
            return True

    def end(self, turn: Turn) -> None:
        with self._lock:
            if turn.begun.is_set():
                self._stop(turn)
            else:
                self._waiting[turn.client].remove(turn)
                if not self._waiting[turn.client]:
                    del self._waiting[turn.client]
            self._begin()

    def _stop(self, turn: Turn) -> None:
        now = time.monotonic()
        self._used[turn.client] = (self._seconds(turn.client, now) + now - turn.began_at, now)
        self._free += 1
        self._begun[turn.client] -= 1
        if not self._begun[turn.client]:
            del self._begun[turn.client]
        if turn.client in self._waiting:  # it had a turn just now: behind all others
            self._waiting[turn.client] = self._waiting.pop(turn.client)

    def _begin(self) -> None:
        now = time.monotonic()
        for client in [each for each in self._used if self._seconds(each, now) < FORGOTTEN]:
            del self._used[client]
        while self._free and self._waiting:
            client = min(
                self._waiting, key=lambda each: (self._begun[each], self._seconds(each, now))
            )
            own = self._waiting.pop(client)
            turn = own.popleft()
            if own:
                self._waiting[client] = own
            self._free -= 1
            self._begun[client] += 1
            turn.began_at = now
            turn.begun.set()

    def _seconds(self, client: str, now: float) -> float:
        """Seconds that a client used lately, decayed."""
        used, at = self._used.get(client, (0.0, now))
        return float(used * 0.5 ** ((now - at) / HALF_LIFE))

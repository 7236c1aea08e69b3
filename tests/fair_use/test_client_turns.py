"""Turns at the encoders go round by client."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from separations.delivery import encoding_jobs
from separations.fair_use import client_turns as turn_module
from separations.fair_use.client_turns import Turn, Turns
from tests.support.running_site import until


class Clock:
    now = 1000.0


def test_a_client_with_many_encodings_delays_another_by_the_one_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding_jobs, "_turns", Turns(1))
    gate, begun = threading.Event(), list[str]()

    def write(target: Path, _turn: Turn) -> None:
        begun.append(target.name.partition(".")[0])
        assert gate.wait(30)
        target.write_bytes(b"x")

    def ask(name: str, client: str) -> encoding_jobs.GrowingFile:
        return encoding_jobs.encode(tmp_path / f"{name}.flac", write, None, client)

    makings = [ask(f"a{n}", "a") for n in range(20)]
    until(lambda: begun)
    makings += [ask("b0", "b"), ask("b1", "b"), ask("c0", "c")]
    gate.set()
    for making in makings:
        making.wait()
    assert begun[:3] == ["a0", "b0", "c0"]
    assert len(begun) == 23


def test_of_two_encoders_one_client_has_one_while_others_wait() -> None:
    turns = Turns(2)
    first, second, third = (turns.ask("a") for _ in range(3))
    assert (first.begun.is_set(), second.begun.is_set(), third.begun.is_set()) == (1, 1, 0)
    others = [turns.ask("b"), turns.ask("c")]
    first.end()
    assert [each.begun.is_set() for each in others] == [True, False], "a has one"
    second.end()
    assert [each.begun.is_set() for each in (*others, third)] == [True, True, False]
    others[0].end()
    assert third.begun.is_set()


def test_who_goes_away_before_their_turn_leaves_none_behind() -> None:
    turns = Turns(1)
    first, gone, last = turns.ask("a"), turns.ask("b"), turns.ask("c")
    gone.end()
    first.end()
    assert last.begun.is_set()
    last.end()
    assert (turns._free, turns._waiting, turns._begun) == (1, {}, {})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: found.now)
    return found


def test_what_takes_long_is_shared_with_others(clock: Clock) -> None:
    turns = Turns(1)
    long, next_of_long = turns.ask("a"), turns.ask("a")
    short = turns.ask("b")
    clock.now += turn_module.SLICE_SECONDS / 2
    long.share()
    assert long.begun.is_set(), "not yet"
    clock.now += turn_module.SLICE_SECONDS
    with ThreadPoolExecutor() as pool:
        rest = pool.submit(long.share)
        assert short.begun.wait(10)
        assert not long.begun.is_set()
        short.end()
        rest.result(10)
    assert long.begun.is_set(), "it goes on before its client's next"
    clock.now += 10
    long.share()
    assert long.begun.is_set(), "as nobody else waits"
    long.end()
    assert next_of_long.begun.is_set()


def test_who_used_much_time_lately_comes_after_who_used_little(clock: Clock) -> None:
    turns = Turns(1)
    for client, seconds in (("much", 20.0), ("little", 5.0)):
        turn = turns.ask(client)
        clock.now += seconds
        turn.end()
    holder = turns.ask("holder")
    waiting = {client: turns.ask(client) for client in ("much", "little", "none")}
    begun = []
    holder.end()
    while waiting:
        (client,) = (each for each in waiting if waiting[each].begun.is_set())
        begun.append(client)
        waiting.pop(client).end()
    assert begun == ["none", "little", "much"]
    clock.now += 20 * turn_module.HALF_LIFE
    turns.ask("x").end()
    assert set(turns._used) <= {"x"}, "old use is forgotten"

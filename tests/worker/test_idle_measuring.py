"""The machine is measured while no song wants it, and gives way to one at once."""

import threading
from pathlib import Path

import pytest
from pytest_django import Settings

from separations.engine import engine_choice
from separations.engine.engine_choice import OPENVINO, Choice, Plan, Trial
from separations.engine.options import Options
from separations.engine.tuning import tuner
from separations.engine.tuning.trial_process import Wait
from separations.engine.weights.store import read_model
from separations.queue import queue_switch
from separations.worker import idle_measuring
from separations.worker.idle_measuring import IdleMeasuring
from tests.support.jobs import Submit, claimed
from tests.support.running_site import until


class Machine:
    """A consumer with one slot, and measuring that goes on until it gives way or is `done`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.busy, self.done, self.stopping = (threading.Event() for _ in range(3))
        self.taken = threading.Lock()
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.room: list[int] = []
        self.measured = threading.Event()
        monkeypatch.setattr(tuner, "choose", self._choose)
        monkeypatch.setattr(idle_measuring, "LOOK_SECONDS", 0.01)
        monkeypatch.setattr(idle_measuring, "IDLE_SECONDS", 0.05)
        self.measuring = IdleMeasuring(
            *(1, self.stopping, self.busy.is_set, self.room.append, self.measured.set),
            self.taken,
        )

    def _choose(self, models: Path, engines: Path, options: Options, wait: Wait) -> Choice:
        self.begun.append(options.model)
        try:
            while not self.done.wait(0.01):
                wait()
        except idle_measuring.GivesWay:
            self.ended.append(options.model)
            raise
        folder = engine_choice.folder_of(engines, read_model(models, options.model), options)
        folder.mkdir(parents=True)
        return engine_choice.write_choice(folder, [Trial(Plan(OPENVINO), 1.0, 90.0)], options)


@pytest.fixture
def machine(site_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Machine:
    site_settings.ENGINE = site_settings.PRECISION = "auto"
    return Machine(monkeypatch)


@pytest.mark.django_db
@pytest.mark.usefixtures("no_queue")
def test_a_song_that_waits_or_runs_wants_the_machine(
    machine: Machine, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = machine.measuring._is_wanted
    assert not wanted()
    submit()
    assert wanted()
    queue_switch.pause("staff")
    assert not wanted(), "it is not claimed now"
    queue_switch.resume()
    claimed()
    assert wanted(), "another consumer on this machine may run it"
    monkeypatch.setattr(idle_measuring, "LOOK_SECONDS", 60.0)
    machine.measuring._give_way()  # the database was asked just now
    machine.busy.set()
    with pytest.raises(idle_measuring.GivesWay):
        machine.measuring._give_way()


@pytest.mark.django_db(transaction=True)
def test_measuring_waits_for_idleness_gives_way_and_goes_on(machine: Machine) -> None:
    machine.busy.set()
    thread = threading.Thread(target=machine.measuring.run)
    thread.start()
    try:
        assert not machine.measured.wait(0.3)
        assert machine.begun == []
        machine.taken.acquire()  # an engine is loaded
        machine.busy.clear()
        assert not machine.measured.wait(0.3)
        assert machine.begun == []
        machine.taken.release()
        until(lambda: machine.begun, 10)
        assert machine.taken.locked(), "no engine is loaded or tested meanwhile"
        assert machine.room[0] > 1_000_000_000, "idle engines leave their memory"
        machine.busy.set()
        until(lambda: machine.ended, 10)
        assert not machine.measured.is_set()
        machine.busy.clear()
        until(lambda: len(machine.begun) > 1, 10)
        machine.done.set()
        assert machine.measured.wait(10), "idle slots load what was found"
        # One model after the other; one of the four has nothing to choose from.
        until(lambda: len(set(machine.begun)) == 3, 10)
    finally:
        machine.stopping.set()
        thread.join(10)
    assert not thread.is_alive()

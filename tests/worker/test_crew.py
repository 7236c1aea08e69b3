"""The crew: what its slots wait for."""

import threading

import pytest

from separations.engine.process.engine_process import EngineProcess
from separations.worker import resources
from separations.worker.crew import Crew
from separations.worker.slots import Slot
from tests.support.jobs import Submit, claimed


@pytest.mark.django_db
def test_a_slot_whose_engine_died_rests_before_the_next_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rests = [0.2, 0.2, 0.1, 0.1]
    monkeypatch.setattr(EngineProcess, "rest", property(lambda _: rests.pop(0) if rests else 0.0))
    crew, left = Crew(), []

    def run_next(_slot: object) -> bool:
        left.extend(rests)
        crew.stop()
        return False

    monkeypatch.setattr(crew, "_run_next", run_next)
    worker = threading.Thread(target=crew._work, args=(crew._slots[0],))
    worker.start()
    worker.join(10)
    assert not worker.is_alive()
    assert (rests, left) == ([], []), "it claimed a job while its engine rested"


@pytest.mark.django_db
@pytest.mark.usefixtures("no_queue", "site_settings")
def test_a_song_that_needs_memory_has_an_engine_that_loads_give_way(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit()
    job = claimed()
    killed: list[EngineProcess] = []
    crew = Crew()
    crew._slots = slots = [Slot(EngineProcess(), 1, crew._stopping) for _ in range(3)]
    monkeypatch.setattr(EngineProcess, "kill", lambda engine: killed.append(engine))
    monkeypatch.setattr(resources, "capacity", lambda: 0)
    slots[1].is_loading = True
    crew._free_memory(slots[0], job)
    assert killed == [slots[2].engine]
    assert slots[1].gives_way, "its own thread ends it"


@pytest.mark.django_db
@pytest.mark.usefixtures("no_queue", "site_settings")
def test_no_engine_is_loaded_beside_measuring_nor_into_the_memory_of_songs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loads: list[Slot] = []
    monkeypatch.setattr(Slot, "load", lambda slot: loads.append(slot))
    crew = Crew()
    slot = crew._slots[0]
    with crew._machine:
        assert not crew._load(slot)
    with monkeypatch.context() as patch:
        patch.setattr(resources, "reserved", lambda _host: resources.capacity())
        assert crew._load(slot)
    assert not loads
    assert crew._load(slot)
    assert loads == [slot]
    assert not slot.is_loading

"""The crew: what its slots wait for."""

import threading

import pytest

from separations.engine.process.engine_process import EngineProcess
from separations.worker.crew import Crew


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

"""`make run` and its sisters, as far as they can be tried without setting up once more."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from stemsite import bootstrap
from tests.running_site import until
from tests.sounds import ROOT


def start(folder: Path, procfile: str, **environment: str) -> "subprocess.Popen[str]":
    (folder / "Procfile").write_text(procfile)
    code = (
        "import sys; from pathlib import Path; from stemsite import bootstrap; "
        "bootstrap.PYTHON = Path(sys.executable); bootstrap.ROOT = Path(sys.argv[1]); "
        "bootstrap.start('Procfile')"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        cwd=ROOT,
        env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_every_way_to_stop_stops_both(tmp_path: Path, name: str) -> None:
    site = start(tmp_path, "web: exec sleep 600\nconsumer: exec sleep 600\n")

    def sleepers() -> list[psutil.Process]:
        family = psutil.Process(site.pid).children(recursive=True)
        found = [child for child in family if child.name() == "sleep"]
        return found if len(found) == 2 else []

    both = until(sleepers)
    site.send_signal(getattr(signal, name))
    assert site.wait(30) == 0
    assert psutil.wait_procs(both, timeout=10)[1] == []


def test_an_empty_address_is_the_default_and_ipv6_is_written_as_servers_do(tmp_path: Path) -> None:
    for host, shown in (("", "127.0.0.1:8000"), ("::1", "[::1]:8000")):
        site = start(tmp_path, 'web: echo "bound to $HOST:$PORT"\n', HOST=host, PORT="")
        output = site.communicate(timeout=60)[0]
        assert f"http://{shown} " in output
        assert f"bound to {shown}" in output


def test_a_crash_is_seen_and_said(tmp_path: Path) -> None:
    site = start(tmp_path, "web: exec sleep 600\nconsumer: exit 7\n")
    output = site.communicate(timeout=60)[0]
    assert site.returncode == 7
    assert "consumer.1 stopped (rc=7)" in output


def test_a_failed_step_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    monkeypatch.setattr(sys, "argv", ["bootstrap.py", "setup"])
    assert bootstrap.main() == 1
    assert "needs 3.11 or newer" in capsys.readouterr().err


def test_the_compiled_part_of_torchaudio_is_set_aside_only_when_it_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / "lib/python3/site-packages/torchaudio/lib/_torchaudio.so"
    library.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.setattr(bootstrap, "VENV", tmp_path)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    monkeypatch.setattr(bootstrap, "PYTHON", python)
    bootstrap.mend_torchaudio()
    assert library.exists()
    python.write_text(f"#!/bin/sh\n[ ! -e {library} ]\n")
    bootstrap.mend_torchaudio()
    assert not library.exists()
    assert library.with_name("_torchaudio.so.aside").exists()


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="there is one process only")
def test_the_tests_of_a_file_share_a_process(request: pytest.FixtureRequest) -> None:
    """Else every site that a file shares is started in each process."""
    assert request.node.nodeid.endswith("@test_bootstrap")

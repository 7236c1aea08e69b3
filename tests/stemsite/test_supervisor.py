"""The supervisor: what ends is started again, everything stops together, orphans of an earlier run
are ended, and a port that is taken has a name."""

import array
import fcntl
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from django.conf import settings

from separations.audio.child_process import RestartPause
from separations.monitoring.restarts import RUN_VARIABLE, restarts
from stemsite.setup import bootstrap, env_file, paths, run
from stemsite.supervisor import service, supervisor
from stemsite.supervisor.output import Output
from stemsite.supervisor.port import WhyNot, check_port
from stemsite.supervisor.runs import Run, data_folder, end_orphans, shared_by_group
from stemsite.supervisor.writer import Writer
from tests.support.running_site import free_port, until
from tests.support.sounds import ROOT

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    'print("deaf", flush=True); time.sleep(600)'
)
LISTENING = (
    'import socket; server = socket.create_server(("127.0.0.1", 0)); '
    "print(server.getsockname()[1], flush=True); input()"
)

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a Procfile in `tmp_path` as `make run` does."""
    started: list[subprocess.Popen[str]] = []

    def begin(procfile: str, **environment: str) -> "subprocess.Popen[str]":
        (tmp_path / "Procfile").write_text(procfile)
        code = (
            "import sys; from pathlib import Path; from stemsite.setup import paths, run; "
            "paths.PYTHON = Path(sys.executable); paths.ROOT = Path(sys.argv[1]); "
            "run.start('Procfile')"
        )
        own = {"PYTHONPATH": str(ROOT), "DATA_DIR": str(tmp_path), "PORT": str(free_port())}
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            cwd=ROOT,
            env=os.environ | own | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.terminate()
        process.communicate(timeout=30)


def named(site: "subprocess.Popen[str]", name: str, count: int = 1) -> list[psutil.Process]:
    """The processes of that name that the supervisor started, once there are `count`."""

    def find() -> list[psutil.Process] | None:
        family = psutil.Process(site.pid).children(recursive=True)
        found = [child for child in family if child.name() == name]
        return found if len(found) == count else None

    return until(find)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_every_way_to_stop_stops_both(start: Start, name: str) -> None:
    site = start("web: exec sleep 600\nconsumer: sleep 600; true\n")
    both = named(site, "sleep", 2)
    site.send_signal(getattr(signal, name))
    assert site.wait(30) == 0
    assert psutil.wait_procs(both, timeout=10)[1] == []


def test_a_service_that_floods_an_output_that_nobody_reads_stops_too(start: Start) -> None:
    site = start("web: exec sleep 600\nconsumer: exec yes\n")
    (web,) = named(site, "sleep")
    assert site.stdout is not None
    unread, waiting = site.stdout.fileno(), array.array("i", [0])
    seen = [0, 0, 0]

    def is_full() -> bool:
        fcntl.ioctl(unread, termios.FIONREAD, waiting)
        seen.append(waiting[0])
        return waiting[0] > 10_000 and seen[-4:-1] == [waiting[0]] * 3

    until(is_full)  # how much fits depends on how it was written
    web.kill()
    until(lambda: named(site, "sleep") != [web])  # deaths are seen too
    site.terminate()
    assert site.wait(8) == 0


def test_what_nobody_reads_is_dropped_and_counted(capfd: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb") as full:
        writer = Writer(most=100_000)
        output = Output(["web"], as_json=False, writer=writer)
        assert writer.put(full.fileno(), b"x" * 99_990), "more than a pipe takes"
        for number in range(3):
            output.line("web", f"dropped {number} as there is no room")
        os.read(reading, 1 << 17)
        until(lambda: writer.is_empty() or os.read(reading, 1 << 17))
        until(writer.is_empty)
        output.line("web", "printed")
        output.close()
    lines = [line.rpartition("| ")[2] for line in capfd.readouterr().out.splitlines()]
    assert lines == ["3 lines were dropped here, as nobody read them", "printed"]


def test_a_signal_that_was_ignored_stays_so_as_nohup_means_it(start: Start) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        site = start("web: exec sleep 600\n")
    finally:
        signal.signal(signal.SIGHUP, before)
    named(site, "sleep")
    (mask,) = re.findall(r"SigIgn:\s*(\w+)", Path(f"/proc/{site.pid}/status").read_text())
    assert int(mask, 16) & 1 << (signal.SIGHUP - 1)


def test_env_file_says_where_the_site_listens_unless_a_variable_does(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("# here\nPORT=9\nHOST = '127.0.0.9'\nDATA_DIR=/nowhere\n")
    site = start('named: echo "bound to $HOST:$PORT"; exit 1\n', PORT="")
    output = site.communicate(timeout=60)[0]
    assert "Starting the site: http://127.0.0.9:9 " in output
    assert "bound to 127.0.0.9:9" in output
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(os, "environ", os.environ | {"PORT": "10", "HOST": ""})
    assert (run._environment()["HOST"], run._environment()["PORT"]) == ("127.0.0.9", "10")
    (tmp_path / ".env").write_text("OK=1\nNAME='not closed\n")
    with pytest.raises(ValueError, match="line 2: No closing quotation"):
        env_file.read(tmp_path)


def test_an_empty_address_is_the_default_and_ipv6_is_written_as_servers_do(start: Start) -> None:
    for host, shown in (("", "127.0.0.1:8000"), ("::1", "[::1]:8000")):
        site = start('named: echo "bound to $HOST:$PORT"; exit 1\n', HOST=host, PORT="")
        output = site.communicate(timeout=60)[0]
        assert f"http://{shown} " in output
        assert f"bound to {shown}" in output


def test_what_cannot_be_started_ends_the_site_with_the_reason(start: Start) -> None:
    site = start("web: exec sleep 600\nconsumer: echo 'a setting is wrong'; exit 7\n")
    output = site.communicate(timeout=60)[0]
    assert site.returncode == 7
    assert "consumer | a setting is wrong" in output
    last = output.splitlines()[-1]
    assert last.startswith("Stopped: consumer could not be started, it ended with status 7;")


def test_what_is_killed_is_started_again_and_what_it_left_is_ended(
    start: Start, tmp_path: Path
) -> None:
    site = start("web: exec sleep 600\nconsumer: sleep 500 & sleep 600\n", LOG_FORMAT="json")
    first = named(site, "sleep", 3)
    web = [each for each in first if each.ppid() == site.pid]
    (shell,) = named(site, "sh")
    shell.kill()
    left = [each for each in first if each not in web]
    assert psutil.wait_procs(left, timeout=4)[1] == [], "they may hold its port"
    again = named(site, "sleep", 3)
    assert set(web) <= set(again), "the other one was not disturbed"
    (record,) = (tmp_path / "runs").glob("*.json")
    assert json.loads(record.read_text())["restarts"] == {"web": 0, "consumer": 1}
    site.terminate()
    lines = site.communicate(timeout=30)[0].splitlines()[1:]  # after that of make
    told = [json.loads(line)["message"] for line in lines]
    assert any("consumer was killed by SIGKILL" in text for text in told)
    assert any("it is started again in 1 s" in text for text in told)
    assert list((tmp_path / "runs").iterdir()) == [], "no record of a run that ended"


def test_a_first_start_that_signals_end_is_tried_three_times() -> None:
    tried = service.Service("web", "true", {})
    assert [tried.is_hopeless(-11, 0.1) for _ in range(3)] == [False, False, True]
    working = service.Service("web", "true", {})
    assert not working.is_hopeless(1, service.FIRST_SECONDS)
    assert not working.is_hopeless(1, 0.1), "it had worked once"
    # Whatever status it ended with, the site has none of success.
    for status, site in ((0, 1), (7, 7), (-9, 137)):
        boss = supervisor.Supervisor([], Output([], as_json=True))
        tried = service.Service("web", "true", {})
        tried._failed_starts, tried._began = service.FIRST_TRIES, time.monotonic()
        boss._ended(tried, status)
        assert boss._status == site


def test_pauses_grow_and_begin_again_after_a_good_while() -> None:
    pause = RestartPause()
    assert [pause.after(0.5) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [pause.after(61), pause.after(1)] == [1, 2]


def test_services_end_with_a_supervisor_that_is_killed(start: Start) -> None:
    site = start("web: exec sleep 600\n")
    (web,) = named(site, "sleep")
    site.kill()
    assert psutil.wait_procs([web], timeout=10)[1] == []


def test_what_an_earlier_run_left_is_ended_and_nothing_else(start: Start, tmp_path: Path) -> None:
    # It hears no SIGTERM, neither the kernel's nor that of the next run.
    site = start(f"web: exec {sys.executable} -c '{STUBBORN}'\n")
    assert site.stdout is not None
    while "| deaf" not in site.stdout.readline():
        pass
    family = psutil.Process(site.pid).children()  # with the process that waits to say "Ready"
    (orphan,) = (each for each in family if "stemsite.setup.ready" not in each.cmdline())
    site.kill()
    site.wait()
    other = subprocess.Popen(["sleep", "600"], env=os.environ | {RUN_VARIABLE: "another"})
    try:
        said: list[str] = []
        with Run(tmp_path, "http://127.0.0.1:1") as living:
            living.record({})
            end_orphans(tmp_path, said.append, patience=0.2)
            assert [path.stem for path in (tmp_path / "runs").glob("*.json")] == [living.mark]
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
        assert f"process {orphan.pid} (" in said[0]
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_port_that_is_taken_says_by_whom_and_what_to_do(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        site = start("web: exec sleep 600\n", PORT=str(port))
        site.wait(60)
    output = site.communicate(timeout=60)[0]
    assert site.returncode == 1
    last = output.splitlines()[-1]
    assert last.startswith(f"Stopped: Port {port} is held by process {os.getpid()} (")
    assert f"kill {os.getpid()}" in last
    assert "or choose another port: PORT=" in last.replace("Or", "or")
    check_port("127.0.0.1", port, tmp_path)  # it is free now


def test_the_long_steps_are_spared_where_the_site_cannot_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "PYTHON", Path(sys.executable))
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("PORT", str(server.getsockname()[1]))
        with pytest.raises(SystemExit) as ended:
            run.check_address()
        assert ended.value.code == 1
        assert "is held by process" in capfd.readouterr().err
        monkeypatch.setattr(bootstrap, "setup", lambda: pytest.fail("a site runs from here"))
        with pytest.raises(SystemExit):
            bootstrap.run()
        assert "is held by process" in capfd.readouterr().err
    run.check_address()
    run.check_address_first()


def test_a_group_that_shares_the_data_sees_the_runs_and_no_record_is_told(tmp_path: Path) -> None:
    for group, mode in ((True, 0o770), (False, 0o700)):
        with Run(tmp_path, "http://127.0.0.1:9", group=group) as living:
            assert stat.S_IMODE((tmp_path / "runs").stat().st_mode) == mode
            assert not living.problem
    assert [shared_by_group({"GROUP_ACCESS": text}) for text in ("Yes", "no", "")] == [1, 0, 0]
    (tmp_path / "file").touch()
    with Run(tmp_path / "file", "http://127.0.0.1:9") as living:
        assert "cannot be recorded" in living.problem


def test_a_server_at_all_addresses_holds_the_port_though_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(socket.socket, "bind", lambda _self, _place: None)  # as macOS has it
        with pytest.raises(WhyNot, match=f"Port {port} is held by process {os.getpid()}"):
            check_port("127.0.0.1", port, tmp_path)


def test_a_site_that_runs_already_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Run(tmp_path, "http://127.0.0.1:9") as living:
        living.record({"web": 2})
        web = subprocess.Popen(
            [sys.executable, "-c", LISTENING],
            env=os.environ | {RUN_VARIABLE: living.mark},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with web:
            assert web.stdout is not None
            port = int(web.stdout.readline())
            with pytest.raises(
                WhyNot, match=f"runs already, on http://127.0.0.1:9 .process {os.getpid()}"
            ):
                check_port("127.0.0.1", port, tmp_path)
            web.communicate(b"\n")
        monkeypatch.setenv(RUN_VARIABLE, living.mark)
        assert restarts(tmp_path) == {"web": 2}
    assert restarts(tmp_path) == {}


def test_addresses_that_no_server_gets_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(WhyNot, match=r"This machine has no address 192\.0\.2\.1"):
        check_port("192.0.2.1", free_port(), tmp_path)


def test_the_supervisor_finds_data_dir_as_the_settings_do() -> None:
    assert data_folder(os.environ) == settings.DATA_DIR
    assert data_folder({}) == settings.BASE_DIR / "data"


def test_a_line_that_never_ends_is_printed_in_parts(capfd: pytest.CaptureFixture[str]) -> None:
    output = Output(["web"], as_json=False)
    boss = supervisor.Supervisor([], output)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    pipe = os.fdopen(reading, "rb")
    boss._selector.register(pipe, 1, "web")
    waiting = array.array("i", [0])
    for _ in range(3):
        os.write(writing, b"\n" * supervisor.READ_BYTES)
    boss._read()
    fcntl.ioctl(reading, termios.FIONREAD, waiting)
    assert waiting[0] == 2 * supervisor.READ_BYTES, "signals and deaths come between"
    boss._read()
    boss._read()
    os.write(writing, b"one\ntwo")
    os.close(writing)
    boss._read()
    boss._read()  # its end
    output.close()
    assert [line.rpartition("| ")[2] for line in capfd.readouterr().out.splitlines()] == [
        "one",
        "two",
    ]

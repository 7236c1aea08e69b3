"""A project of tiny packages that `make setup` sets up in seconds and that can be killed meanwhile.

The steps are the set-up's own. Only pip comes into a new environment as a link, not by ensurepip,
which takes seconds.
"""

import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pip

from tests.support.sounds import ROOT

FILES = 400  # of the large package: pip takes long enough over them to be killed meanwhile
DRIVER = """
import functools, os, pkgutil, signal, sys
from pathlib import Path
from stemsite.setup import bootstrap, paths, virtual_environment

root, pip, point = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
paths.ROOT, paths.VENV, paths.PYTHON = root, root / ".venv", root / ".venv/bin/python"
paths.RUN_LOCK, paths.DEV_LOCK = root / "requirements.lock", root / "requirements-dev.lock"
paths.PLATFORMS_LOCK, paths.TORCH = root / "requirements-platforms.lock", "1.0"
virtual_environment.ENSUREPIP = ("-c", (
    "import os, sysconfig; folder = sysconfig.get_path('purelib'); "
    f"os.symlink({str(pip)!r}, folder + '/pip')"
))

def die(function, after):
    @functools.wraps(function)
    def dying(*arguments, **named):
        if after:
            function(*arguments, **named)
        os.killpg(0, signal.SIGKILL)
    return dying

if point:
    when, _, place = point.partition(" ")
    module, _, name = place.rpartition(".")
    holder = pkgutil.resolve_name(module)
    setattr(holder, name, die(getattr(holder, name), when == "after"))
sys.argv = ["bootstrap", "setup"]
sys.exit(bootstrap.main())
"""


@dataclass(frozen=True)
class Project:
    """A checkout in which `start` sets up the environment `venv`."""

    root: Path

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Where the environment's packages lie."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.venv / "lib" / version / "site-packages"

    def start(self, point: str = "") -> "subprocess.Popen[str]":
        """Begin a set-up, which kills itself and all that it started at `point`.

        point: "before stemsite.setup.steps.write_whole", say, or "after" it.
        """
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.root / "wheels")}
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "TORCH_"))}
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(self.root), str(Path(pip.__file__).parent), point],
            cwd=ROOT,
            env=clean | offline | {"PIP_CONFIG_FILE": os.devnull},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def set_up(self) -> str:
        """Set up, which must succeed; returns what was printed."""
        process = self.start()
        output = process.communicate(timeout=120)[0]
        assert process.returncode == 0, output
        return output

    def answer(self, code: str) -> str:
        """What the environment's Python prints."""
        command = [str(self.python), "-I", "-c", code]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()


def make_project(root: Path) -> Project:
    """A project of the packages large, small, torch and torchaudio, whose wheels lie beside it."""
    wheels = root / "wheels"
    wheels.mkdir(parents=True)
    large = {f"large/part{number}.py": "" for number in range(FILES)}
    compiled = "torchaudio/lib/_one.so", "torchaudio/lib/_two.so"
    # Importable only without its compiled part, as the published one beside a CPU build of torch.
    picky = (
        "from pathlib import Path\n"
        "assert not list((Path(__file__).parent / 'lib').glob('*.so')), 'no CUDA here'\n"
    )
    locked = "".join(
        f"{name}==1.0 --hash=sha256:{_wheel(wheels, name, '1.0', files)}\n"
        for name, files in (
            ("large", {"large/__init__.py": "WHOLE = True\n", **large}),
            ("small", {"small.py": ""}),
            ("torchaudio", {"torchaudio/__init__.py": picky, **dict.fromkeys(compiled, "x")}),
        )
    )
    _wheel(wheels, "torch", "1.0+cpu", {"torch.py": ""})
    (root / "requirements.lock").write_text(locked)
    (root / "requirements-dev.lock").write_text(locked)
    (root / "requirements-platforms.lock").write_text("")
    return Project(root)


def _wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> str:
    """Write a wheel; returns its SHA-256."""
    about = f"{name}-{version}.dist-info"
    contents = {
        # First, which pip's own order allows: what is killed then seems installed.
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **files,
    }
    record = "".join(f"{path},,{len(text)}\n" for path, text in contents.items())
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**contents, f"{about}/RECORD": f"{record}{about}/RECORD,,\n"}.items():
            archive.writestr(path, text)
    return hashlib.sha256(wheel.read_bytes()).hexdigest()

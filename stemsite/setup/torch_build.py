"""torch and torchaudio, whose builds depend on the machine: installed apart from the lock files."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from stemsite.setup import paths
from stemsite.setup.half_installed import ASIDE
from stemsite.setup.steps import StepFailed, call, pip_install, run, say, was_interrupted


def install() -> None:
    """Install a CPU build if there is one, from TORCH_INDEX or from pip's own index."""
    if _is_installed():
        return
    index = os.environ.get("TORCH_INDEX", "").strip()
    pip = [str(paths.PYTHON), "-m", "pip", "install"]
    hashes = os.environ.get("TORCH_SHA256", "").replace(",", " ").split()
    if hashes:
        install_by_hash(hashes, ["--index-url", index] if index else [])
        return
    if index:
        say(f"Installing torch {paths.TORCH} from TORCH_INDEX")
        call(
            *pip,
            f"torch=={paths.TORCH}",
            "--index-url",
            index,
            advice="TORCH_INDEX does not offer this torch. Check its address, or unset it.",
        )
        return
    say(f"Looking for a CPU build of torch {paths.TORCH} (200 MB)")
    cpu_only = run([*pip, f"torch=={paths.TORCH}+cpu"], stderr=subprocess.PIPE)
    if cpu_only.returncode == 0:
        return
    if "No matching distribution" not in cpu_only.stderr:
        print(cpu_only.stderr)
        raise StepFailed("torch could not be installed; see above. Then run the same again.")
    say(
        f"None here: installing the default build of torch {paths.TORCH}. On Linux that is the one "
        "for GPUs, several GB; stop now and set TORCH_INDEX (see README) if that is too much"
    )
    call(
        *pip,
        f"torch=={paths.TORCH}",
        advice="torch could not be installed. Check the network and the free disk space, or set "
        "TORCH_INDEX to PyTorch's CPU wheel index (see README).",
    )


def install_by_hash(hashes: list[str], index: list[str]) -> None:
    """Install the file of torch that has one of these SHA-256, without its dependencies.

    A build for GPUs needs more packages, which have no known hash; `pip check` finds that later.
    """
    if not all(re.fullmatch("[0-9a-f]{64}", each) for each in hashes):
        raise StepFailed("TORCH_SHA256 must hold SHA-256 sums of 64 hexadecimal digits.")
    say(f"Installing torch {paths.TORCH} by its hash (TORCH_SHA256)")
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "torch.txt"
        wanted.write_text(
            " ".join([f"torch=={paths.TORCH}", *(f"--hash=sha256:{h}" for h in hashes)])
        )
        if pip_install(*index, "--no-deps", "--require-hashes", "-r", str(wanted), total=1) != 0:
            raise StepFailed(
                f"No file of torch {paths.TORCH} that pip sees for this machine has the hash in "
                "TORCH_SHA256. Check it, and TORCH_INDEX."
            )


def _is_installed() -> bool:
    code = (
        f"import importlib.metadata as m; exit(m.version('torch').split('+')[0] != '{paths.TORCH}')"
    )
    asked = run([paths.PYTHON, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return asked.returncode == 0


def mend_torchaudio() -> None:
    """Rename torchaudio's compiled part if it was built for another torch.

    It is optional; resampling is plain torch.
    """
    check = [str(paths.PYTHON), "-c", "import torchaudio"]
    tried = run(check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if tried.returncode == 0:
        return
    if was_interrupted(tried.returncode):
        raise StepFailed("The set-up was interrupted. Run the same again.")
    say("Fitting torchaudio to this build of torch")
    for library in paths.VENV.glob("**/site-packages/torchaudio/lib/*.so"):
        library.rename(library.with_name(library.name + ASIDE))
    call(*check, advice="torchaudio cannot be imported. Delete .venv and run this again.")

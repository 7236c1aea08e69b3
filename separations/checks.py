"""System checks: what an operator should hear before a visitor does."""

import re
import stat
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from separations import limits
from separations.audio import sandbox
from separations.engine.memory import estimated_need
from separations.engine.options import ALL_STEMS, settle
from separations.engine.store import list_models, read_model
from separations.faults import Fault
from separations.jobs import site_options
from separations.sentences import sentence

IMPORT_SECONDS = 120
STRONG_TOKEN = 24  # characters


@register(Tags.compatibility, deploy=False)
def torchaudio_imports(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """torchaudio's compiled part must fit the torch beside it, or be absent.

    Looked at without importing torch, which would weigh on every process that runs the checks; only
    when the parts seem not to fit is the import tried, in a process of its own.
    """
    spec = find_spec("torchaudio")
    if spec is None or not spec.submodule_search_locations:
        return [Error("torchaudio is not installed.", hint="Run make setup.", id="stemsite.E001")]
    compiled = list(Path(spec.submodule_search_locations[0]).glob("lib/*.so"))
    if not compiled or _torch_has_cuda():
        return []
    child = subprocess.run(
        [sys.executable, "-c", "import torchaudio"],
        capture_output=True,
        timeout=IMPORT_SECONDS,
        check=False,
    )
    if child.returncode == 0:
        return []
    return [
        Error(
            "torchaudio cannot be imported: it was built for a GPU, and this torch is for CPUs.",
            hint="Run make setup, which sets its optional compiled part aside.",
            id="stemsite.E002",
        )
    ]


def _torch_has_cuda() -> bool:
    """What torch's version file says of CUDA, read as text: importing torch takes seconds."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    text = Path(spec.origin).with_name("version.py").read_text()
    found = re.search(r"^cuda\b.*=\s*(\S+)", text, re.MULTILINE)
    return found is not None and found[1] != "None"


@register("models")
def settings_fit_the_engine(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """What the operator set must not make every upload fail."""
    try:
        model = read_model(settings.MODEL_DIR, settings.DEFAULT_MODEL)
        settle(site_options(settings.DEFAULT_MODEL, ALL_STEMS), model)
    except Fault as fault:
        if fault.code == "bad_option":
            hint = "Change the setting of that name."
            return [Error(sentence(fault), hint=hint, id="stemsite.E003")]
    return []


@register("models")
def default_model_is_there(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """The site can open without models, but not do its job."""
    names = [model.name for model in list_models(settings.MODEL_DIR)]
    if settings.DEFAULT_MODEL in names:
        return []
    return [
        Warning(
            f"The model {settings.DEFAULT_MODEL} is not in {settings.MODEL_DIR}.",
            hint=f"Run manage.py fetch_models {settings.DEFAULT_MODEL}.",
            id="stemsite.W001",
        )
    ]


@register("models")
def default_model_fits_in_memory(
    app_configs: Sequence[Any] | None, **kwargs: Any
) -> list[CheckMessage]:
    """A song is tried all the same; but it may well end for lack of memory."""
    try:
        model = read_model(settings.MODEL_DIR, settings.DEFAULT_MODEL)
    except Fault:
        return []
    need, capacity = estimated_need(model, settings.JOBS), limits.capacity()
    if need <= capacity:
        return []
    return [
        Warning(
            f"{settings.DEFAULT_MODEL} is expected to take {need / 1e9:.1f} GB of memory, and "
            f"separations here may take {capacity / 1e9:.1f} GB.",
            hint="Add memory, or see MEMORY_MB and MEMORY_MARGIN_MB in the README.",
            id="stemsite.W002",
        )
    ]


@register(Tags.security, deploy=False)
def songs_are_read_in_a_sandbox(
    app_configs: Sequence[Any] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Limits and an empty environment hold anywhere, the rest is the kernel's to give."""
    missing = sandbox.missing()
    if not missing:
        return []
    return [
        Warning(
            f"Songs are decoded without {' and '.join(missing)}, which this system does not offer.",
            hint="On a public address, run the site on Linux 6.12 or newer, on x86-64 or ARM64, in "
            "a container that allows the system calls of both.",
            id="stemsite.W003",
        )
    ]


@register(Tags.security)
def secrets_are_kept(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Whoever can read the key can sign in as anybody."""
    return [
        Warning(
            f"Everybody on this machine can read {path}.",
            hint=f"Give it to the site's user alone: chmod 600 {path}",
            id="stemsite.W020",
        )
        for path in settings.SECRET_FILES
        if path.exists() and path.stat().st_mode & stat.S_IROTH
    ]


@register(Tags.security)
def metrics_token_is_strong(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Nothing slows down who guesses it."""
    token = settings.METRICS_TOKEN
    if not token or (len(token) >= STRONG_TOKEN and len(set(token)) >= 10):
        return []
    return [
        Warning(
            "METRICS_TOKEN can be guessed, and with it everybody reads what /metrics tells.",
            hint='Make one: python3 -c "import secrets; print(secrets.token_urlsafe(32))"',
            id="stemsite.W024",
        )
    ]


@register(Tags.security)
def https_can_be_seen(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """The site itself speaks http alone; that a visitor came by https, only a proxy can tell."""
    if not settings.HTTPS or settings.TRUSTED_PROXIES:
        return []
    return [
        Warning(
            "HTTPS is yes, but no proxy is trusted to say who came by https: visitors may be sent "
            "to https for ever.",
            hint="Set TRUSTED_PROXIES to the number of proxies before the site, mostly 1.",
            id="stemsite.W021",
        )
    ]


@register(Tags.security, deploy=True)
def https_is_on(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Django names its own settings; these are the ones of this site that stand for them."""
    if settings.HTTPS:
        return []
    return [
        Warning(
            "Songs, passwords and sessions cross the network in the clear.",
            hint="On a public address put a proxy with a certificate before the site and set "
            "HTTPS=yes and TRUSTED_PROXIES=1; see README, “On a public address”.",
            id="stemsite.W022",
        )
    ]


@register(Tags.security)
def debug_is_private(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Django's debug pages show settings, paths and what others sent."""
    if not settings.DEBUG or settings.HOST in ("127.0.0.1", "localhost", "::1", "[::1]"):
        return []
    return [
        Warning(
            f"DEBUG is yes on {settings.HOST}: strangers see how the site works inside.",
            hint="Unset DEBUG, or HOST.",
            id="stemsite.W023",
        )
    ]

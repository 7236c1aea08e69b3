"""System checks: settings, models, memory and security, before a visitor meets a problem."""

import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from separations.audio.info import studio_megabytes
from separations.audio.sandbox import lockdown
from separations.audio.sandbox.lockdown import PROCESS_BYTES
from separations.checks import listen_address
from separations.checks.host_names import public_names
from separations.engine.memory import estimated_need
from separations.engine.options import ALL_STEMS, settle
from separations.engine.weights.store import list_models, read_model
from separations.errors.fault import Fault
from separations.errors.user_messages import sentence
from separations.jobs.lifecycle import site_options
from separations.worker import resources

IMPORT_SECONDS = 120
PUBLIC_ADDRESS = "See docs/deployment.md, “On a public address”."
STRONG_TOKEN = 24  # characters


@register(Tags.compatibility, deploy=False)
def torchaudio_imports(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """torchaudio's compiled part must fit the installed torch, or be absent.

    Does not import torch, which takes seconds and memory; only if the parts seem not to fit, a
    process of its own tries the import.
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
    """Whether torch's version file names a CUDA version, read as text."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    text = Path(spec.origin).with_name("version.py").read_text()
    found = re.search(r"^cuda\b.*=\s*(\S+)", text, re.MULTILINE)
    return found is not None and found[1] != "None"


@register("models")
def settings_fit_the_engine(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Settings that the engine refuses would make every upload fail."""
    try:
        model = read_model(settings.MODEL_DIR, settings.DEFAULT_MODEL)
        settle(site_options(settings.DEFAULT_MODEL, ALL_STEMS), model)
    except Fault as fault:
        if fault.code == "bad_option":
            hint = "Change the setting of that name."
            return [Error(sentence(fault), hint=hint, id="stemsite.E003")]
    return []


@register(Tags.compatibility)
def the_size_limit_holds_the_length_limit(
    app_configs: Sequence[Any] | None, **kwargs: Any
) -> list[CheckMessage]:
    """A song within MAX_DURATION_SECONDS should not be refused for its size."""
    wanted = studio_megabytes(settings.MAX_DURATION_SECONDS)
    if wanted <= settings.MAX_UPLOAD_MB:
        return []
    return [
        Warning(
            f"Songs of {settings.MAX_DURATION_SECONDS} s are allowed, but as 24-bit stereo WAV at "
            f"96 kHz they take more than MAX_UPLOAD_MB={settings.MAX_UPLOAD_MB}.",
            hint=f"Unset MAX_UPLOAD_MB or set it to {wanted}, and allow as much in the proxy.",
            id="stemsite.W005",
        )
    ]


@register("models")
def default_model_is_there(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Without the default model the site starts, but cannot separate."""
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
    """A model that needs more memory is used all the same, but songs may fail."""
    try:
        model = read_model(settings.MODEL_DIR, settings.DEFAULT_MODEL)
    except Fault:
        return []
    need, capacity = estimated_need(model, settings.JOBS), resources.capacity()
    if need <= capacity:
        return []
    return [
        Warning(
            f"{settings.DEFAULT_MODEL} is expected to take {need / 1e9:.1f} GB of memory, and "
            f"separations here may take {capacity / 1e9:.1f} GB.",
            hint="Add memory, or see MEMORY_MB and MEMORY_MARGIN_MB in docs/configuration.md.",
            id="stemsite.W002",
        )
    ]


@register("models")
def decoders_fit_in_memory(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Memory for the decoders of uploads is reserved, up to half of all memory."""
    whole, aside = resources.whole_memory(), resources.set_aside()
    if not settings.DECODERS or whole - aside >= whole // 2:
        return []
    return [
        Warning(
            f"{settings.DECODERS} decoders at once may take "
            f"{settings.DECODERS * PROCESS_BYTES / 1e9:.1f} GB of memory, more than is left beside "
            "separations and MEMORY_MARGIN_MB.",
            hint="Lower DECODERS, or leave it 0: then it follows CPUs and memory.",
            id="stemsite.W004",
        )
    ]


@register(Tags.security, deploy=False)
def songs_are_read_in_a_sandbox(
    app_configs: Sequence[Any] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Limits and an empty environment work anywhere; the rest depends on the kernel."""
    missing = lockdown.missing()
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
def metrics_token_is_strong(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """No limit slows down guessing of METRICS_TOKEN."""
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
    """The site serves http; only a proxy can report that a visitor came by https."""
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


@register(Tags.security)
def strangers_come_by_a_proxy(
    app_configs: Sequence[Any] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Refuse a public address without a proxy, for `runserver` too (for gunicorn: web_server)."""
    why = listen_address.refusal(
        settings.HOST, proxies=settings.TRUSTED_PROXIES, direct=settings.DIRECT
    )
    return [Error(why, hint=PUBLIC_ADDRESS, id="stemsite.E004")] if why else []


@register(Tags.security, deploy=True)
def nothing_is_direct(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """DIRECT is for networks without strangers."""
    if (
        not settings.DIRECT
        or settings.TRUSTED_PROXIES
        or not listen_address.is_public(settings.HOST)
    ):
        return []
    return [
        Warning(
            f"The site listens on {settings.HOST} without a proxy: who sends and reads slowly, "
            "from a few addresses, keeps others out.",
            hint="On a public address put a proxy before the site, and unset DIRECT.",
            id="stemsite.W029",
        )
    ]


@register(Tags.security, deploy=True)
def https_is_on(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Django's checks name Django's settings; this one names HTTPS, which sets them."""
    if settings.HTTPS:
        return []
    return [
        Warning(
            "Songs, passwords and sessions cross the network in the clear.",
            hint="On a public address put a proxy with a certificate before the site and set "
            "HTTPS=yes and TRUSTED_PROXIES=1; see docs/deployment.md, “On a public address”.",
            id="stemsite.W022",
        )
    ]


@register(Tags.security)
def debug_is_private(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Django's debug pages show settings, paths and requests."""
    if not settings.DEBUG or settings.HOST in ("127.0.0.1", "localhost", "::1", "[::1]"):
        return []
    return [
        Warning(
            f"DEBUG is yes on {settings.HOST}: strangers see how the site works inside.",
            hint="Unset DEBUG, or HOST.",
            id="stemsite.W023",
        )
    ]


@register(Tags.security)
def site_address_is_known(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Links in mails lead to one address, which is a guess if SITE_URL is not set."""
    if not settings.EMAIL_URL or settings.SITE_URL_GIVEN:
        return []
    hosts = settings.ALLOWED_HOSTS
    below_one = any(name == "*" or name.startswith(".") for name in hosts)
    if not below_one and len(public_names(hosts)) <= 1:
        return []
    return [
        Warning(
            f"The site answers to several names, and links in its mails lead to "
            f"{settings.SITE_URL}.",
            hint="Set SITE_URL to the address that people use, such as https://stems.example.org.",
            id="stemsite.W030",
        )
    ]


@register(Tags.security)
def visitors_keep_their_songs(
    app_configs: Sequence[Any] | None, **kwargs: Any
) -> list[CheckMessage]:
    """A visitor without an account reaches songs by the session alone."""
    hours = settings.SESSION_COOKIE_AGE // 3600
    if hours >= settings.KEEP_RESULTS_HOURS:
        return []
    return [
        Warning(
            "Stems are kept for longer than a browser is known: visitors without an account lose "
            "them sooner.",
            hint="Set SESSION_DAYS to as many days as KEEP_RESULTS_HOURS are, or more.",
            id="stemsite.W031",
        )
    ]

"""Names of stems as shown to users."""

from collections.abc import Iterable

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

LABELS = {
    "drums": _("Drums"),
    "bass": _("Bass"),
    "other": _("Other"),
    "vocals": _("Vocals"),
    "guitar": _("Guitar"),
    "piano": _("Piano"),
    "instrumental": _("Instrumental"),
}


def stem_label(name: str) -> str:
    """The name of a stem in the active language, or the model's own name for unknown ones."""
    if name.startswith("no_"):
        return gettext("Without %(stem)s") % {"stem": stem_label(name.removeprefix("no_")).lower()}
    return str(LABELS.get(name, name.replace("_", " ").capitalize()))


def stem_list(names: Iterable[str]) -> str:
    """Several names as one line."""
    return ", ".join(stem_label(name) for name in names)

"""The form beside a song: the choice of a model and of stems."""

from dataclasses import dataclass
from typing import Any

from django import forms
from django.conf import settings
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from separations.delivery.stem_names import stem_label, stem_list
from separations.engine.options import ALL_STEMS, Options
from separations.engine.weights.store import ModelInfo, list_models
from separations.errors.fault import Fault
from separations.jobs.lifecycle import site_options

# What Demucs' authors say of their models, in a sentence each.
ABOUT_MODELS = {
    "htdemucs": _("The balanced choice: good quality at full speed."),
    "htdemucs_ft": _("The cleanest stems: one network tuned for each stem."),
    "htdemucs_6s": _("Guitar and piano too; the piano is still experimental."),
    "hdemucs_mmi": _("The previous generation, for songs that the newer one gets wrong."),
    "mdx_extra": _("Four older networks that vote; a different character."),
}
ADDED_MODEL = _("A model that was added to this site.")


@dataclass(frozen=True)
class ModelChoice:
    """A model as the form offers it."""

    name: str
    stems: str
    about: str
    speed: str
    sources: tuple[str, ...]


def model_choices() -> list[ModelChoice]:
    """The installed models, the default one first."""
    models = list_models(settings.MODEL_DIR)
    models.sort(key=lambda model: model.name != settings.DEFAULT_MODEL)
    return [_choice(model) for model in models]


def _choice(model: ModelInfo) -> ModelChoice:
    stems, about = stem_list(model.sources), about_model(model.name)
    return ModelChoice(model.name, stems, about, speed_sentence(model), model.sources)


def about_model(name: str) -> str:
    """What a model is good at, in a sentence in the reader's language."""
    return str(ABOUT_MODELS.get(name, ADDED_MODEL))


def speed_sentence(model: ModelInfo) -> str:
    if model.passes == 1:
        return gettext("Fast: one pass over the song.")
    return gettext("About %(times)d times slower.") % {"times": model.passes}


class SeparationForm(forms.Form):
    """Model and stems. `separations.uploads.song_files` checks the file itself."""

    model = forms.ChoiceField()
    stems = forms.ChoiceField()

    def __init__(self, data: Any = None) -> None:
        self.model_choices = model_choices()
        names = [choice.name for choice in self.model_choices]
        values = {"model": names[0] if names else "", "stems": ALL_STEMS}
        values |= {key: data[key] for key in values if data and data.get(key)}
        super().__init__(values)
        model_field, stems_field = self.fields["model"], self.fields["stems"]
        assert isinstance(model_field, forms.ChoiceField)  # noqa: S101 - for the type checker
        assert isinstance(stems_field, forms.ChoiceField)  # noqa: S101
        model_field.choices = [(name, name) for name in names]
        stems_field.choices = self._stem_choices()

    def _stem_choices(self) -> list[tuple[str, str]]:
        sources = dict.fromkeys(s for choice in self.model_choices for s in choice.sources)
        choices = [(ALL_STEMS, gettext("All stems"))]
        if "vocals" in sources:
            choices.append(("vocals", gettext("Vocals and instrumental (karaoke)")))
        choices += [
            (source, gettext("%(stem)s and the rest") % {"stem": stem_label(source)})
            for source in sources
            if source != "vocals"
        ]
        return choices

    def options(self) -> Options:
        """The chosen options. Raises Fault: model_missing, no_such_stem."""
        if not self.is_valid():
            field = next(iter(self.errors))
            raise Fault("model_missing" if field == "model" else "no_such_stem", **self._asked())
        return site_options(self.cleaned_data["model"], self.cleaned_data["stems"])

    def _asked(self) -> dict[str, str]:
        stems = ", ".join(value for value, _label in self._stem_choices())
        return {"model": self.data["model"], "stem": self.data["stems"], "stems": stems}

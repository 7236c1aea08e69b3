"""What the mixer's template shows: its strips, presets and meters."""

import math
from dataclasses import dataclass

from django.urls import reverse
from django.utils.translation import gettext

from separations.access.permissions import SongKey
from separations.audio.mixing.gain_laws import FARTHEST, LOUDEST, UNITY
from separations.audio.mixing.mix_spec import Strip
from separations.audio.store.player_chunks import CHUNK_FRAMES
from separations.audio.store.stem_file import PEAK_FRAMES
from separations.delivery import playback
from separations.delivery.stem_names import stem_label
from separations.logs.secret_tokens import ShareToken
from separations.models import Stem
from separations.web.presenters.levels import SILENCE, decimal
from separations.web.presenters.song import SongPresenter


@dataclass(frozen=True)
class TrackPresenter:
    """A strip of the mixer. level: its peak and loudness in words, "" while unknown."""

    name: str
    label: str
    level: str
    loudness: float | None


@dataclass(frozen=True)
class Preset:
    label: str
    mix: str  # as the mixer writes it


@dataclass(frozen=True)
class MixerPresenter:
    """What the mixer on a page starts from. frames, reach: see `delivery.playback.Recording`.

    saved_mix_key: the name under which the browser stores the listener's mix.
    """

    tracks: list[TrackPresenter]
    presets: list[Preset]
    saved_mix_key: str
    tracks_href: str
    frames: int
    reach: int
    has_song: bool
    song_loudness: float | None
    song_peak: float | None
    chunk_frames: int = CHUNK_FRAMES
    peak_frames: int = PEAK_FRAMES
    unity: int = UNITY
    loudest: int = LOUDEST
    farthest: int = FARTHEST

    @property
    def stems(self) -> str:
        """The stems that presets are made of: a key for the template cache."""
        return " ".join(track.name for track in self.tracks)


def present_mixer(song: SongPresenter) -> MixerPresenter | None:
    """The mixer of a song; None for a job that has no stems and will have none."""
    job = song.job
    found = playback.recording(job, song.run)
    if found is None:
        return None
    measured = {} if song.active else {stem.name: stem for stem in job.stems.all()}
    return MixerPresenter(
        tracks=[_track(name, measured.get(name)) for name in found.names],
        presets=_presets(found.names),
        saved_mix_key=_saved_mix_key(song.key),
        tracks_href=reverse("separations:job", args=[song.key]) + "/stems/",
        frames=found.frames,
        reach=found.reach,
        has_song=found.has_song,
        song_loudness=job.song_loudness,
        song_peak=job.song_peak,
    )


def _saved_mix_key(key: SongKey) -> str:
    """For a shared song a hash: the browser must store neither the song's id nor its token."""
    return f"shared-{key.digest[:32]}" if isinstance(key, ShareToken) else str(key)


def _track(name: str, stem: Stem | None) -> TrackPresenter:
    level = ""
    loudness = stem.loudness if stem else None
    if stem and stem.peak >= SILENCE:
        level = gettext("Peak %(db)s dB") % {"db": decimal(20 * math.log10(stem.peak))}
        if loudness is not None:
            level += "\n" + gettext("%(loudness)s LUFS") % {"loudness": decimal(loudness)}
    return TrackPresenter(name, stem_label(name), level, loudness)


def _presets(names: tuple[str, ...]) -> list[Preset]:
    """Useful mixes of these stems."""
    presets = [Preset(gettext("Everything"), "")]
    pair = len(names) == 2
    if "vocals" in names:
        presets.append(Preset(gettext("Karaoke: without vocals"), Strip("vocals", muted=True).text))
    presets += [
        Preset(gettext("%(stem)s only") % {"stem": stem_label(name)}, Strip(name, soloed=True).text)
        for name in names
        if not (pair and name == "instrumental")
    ]
    presets += [
        Preset(
            gettext("Without %(stem)s") % {"stem": stem_label(name).lower()},
            Strip(name, muted=True).text,
        )
        for name in names
        if not pair and name not in ("vocals", "other")
    ]
    return presets

"""The message of every fault and note, translated, and the HTTP status of each fault."""

import math
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from separations.errors.fault import Fault

SAID_IN_SECONDS = 120  # waits; longer ones in minutes
# code: (status, sentence)
FAULTS: dict[str, tuple[int, Promise]] = {
    # The file
    "no_file": (400, _("No song was sent. Choose an audio file first.")),
    "empty": (400, _("This file is empty. Check it on your device and send it again.")),
    "too_large": (
        413,
        _("This file is larger than %(max_mb)s MB. Send it as MP3 or FLAC instead."),
    ),
    "too_many_files": (
        413,
        _("At most %(most)s songs are taken at once. Send the others afterwards."),
    ),
    "too_long": (
        413,
        _("This song is longer than %(max_minutes)s minutes. Cut it shorter and send it again."),
    ),
    "too_much_sound": (
        413,
        _(
            "At %(rate)s Hz and in %(channels)s channels a song may last %(max_minutes)s minutes "
            "here. Export it in stereo, or at 48000 Hz, and send it again."
        ),
    ),
    "wrong_extension": (
        415,
        _("Files of this kind are not taken. Send one of these: %(allowed)s."),
    ),
    "not_audio": (
        415,
        _(
            "This is not an audio file, or it is broken from the start. Open it in a player; if it "
            "plays there, save it as WAV, FLAC or MP3 and send that."
        ),
    ),
    "no_audio": (
        415,
        _("There is no sound in this file, pictures at most. Send one with an audio track."),
    ),
    "codec_not_read": (
        415,
        _(
            "This kind of sound is not read here (%(codec)s). Open the file in an audio editor, "
            "save it as WAV, FLAC or MP3, and send that."
        ),
    ),
    "protected": (
        415,
        _(
            "This file is protected against copying (DRM), so it cannot be read. Send one without "
            "protection."
        ),
    ),
    "too_short": (422, _("This file is too short to separate. Send a longer one.")),
    "truncated": (
        422,
        _(
            "This file is cut off: only %(read)s seconds of it could be read. Download or export "
            "it again, then send it."
        ),
    ),
    "damaged": (
        422,
        _("Too much of this file is damaged. Download or export it again, then send it."),
    ),
    "unreadable": (
        422,
        _("This file could not be read. Open it in an audio editor, export it and send that."),
    ),
    "too_slow": (
        422,
        _("This file takes too long to read. Export it in stereo at 44.1 kHz and send that."),
    ),
    "absurd_index": (
        422,
        _(
            "The index of this file lists %(entries)s pieces; a song has at most %(most)s. Open "
            "the file in an audio editor, export it and send that."
        ),
    ),
    "too_much_memory": (
        422,
        _(
            "This file takes more memory to read than any song needs. Export it without pictures, "
            "as FLAC or MP3, and send that."
        ),
    ),
    "absurd_rate": (
        422,
        _(
            "A sample rate of %(rate)s Hz is not supported. Export the song at 44.1 kHz and send "
            "that."
        ),
    ),
    "too_many_channels": (
        422,
        _(
            "This file has %(channels)s channels, more than 7.1 surround. Export it in stereo and "
            "send that."
        ),
    ),
    "not_finite": (
        422,
        _(
            "This file holds values that are no numbers (NaN or infinity). Export it again, as "
            "16-bit WAV for example."
        ),
    ),
    "too_loud": (
        422,
        _(
            "This file holds levels that no sound has, more than %(decibels)s dB above full scale. "
            "Export it again, as 16-bit WAV for example."
        ),
    ),
    # The site's own parts
    "decoder_unavailable": (
        503,
        _(
            "This site cannot read songs just now: a part of it does not start. That is not your "
            "file's fault. Try again in a few minutes, or tell whoever runs the site."
        ),
    ),
    "decoder_died": (
        503,
        _(
            "Reading this song was interrupted on the site's side; your file is not at fault. Try "
            "again in a moment."
        ),
    ),
    "engine_unavailable": (
        503,
        _(
            "This site cannot separate songs just now: a part of it does not start. That is not "
            "your song's fault. Try again later, or tell whoever runs the site."
        ),
    ),
    # The options
    "rate_not_in_format": (
        422,
        _(
            "Files of the format %(format)s cannot have a sample rate of %(khz)s kHz. Choose WAV "
            "or FLAC, or 44.1 kHz."
        ),
    ),
    "bad_option": (422, _("%(option)s must be one of or within: %(allowed)s.")),
    "no_such_stem": (422, _("This model has no stem “%(stem)s”. Choose one of: %(stems)s.")),
    "bad_model_name": (422, _("“%(model)s” cannot be the name of a model.")),
    "model_missing": (
        422,
        _("The model %(model)s is not installed here. Choose another one."),
    ),
    "model_unusable": (
        503,
        _("The model %(model)s cannot be used (%(reason)s). Choose another one."),
    ),
    "model_not_fetched": (
        503,
        _(
            "The model %(model)s could not be fetched. Tried: %(tried)s. Get on a network that "
            "reaches one of these, or give a folder that holds the model with --from."
        ),
    ),
    "no_cuda": (503, _("DEVICE is cuda, but no usable GPU was found. Set DEVICE to cpu.")),
    # The separation
    "engine_died": (
        500,
        _("The separation stopped unexpectedly and was given up. Try again in a while."),
    ),
    "engine_error": (
        500,
        _("Something went wrong while separating this song (%(reason)s). Try again."),
    ),
    "absurd_stem": (
        500,
        _(
            "The model gave values for “%(stem)s” that no sound has. Choose another model, or "
            "export the song again as 16-bit WAV."
        ),
    ),
    "out_of_memory": (
        500,
        _("Not enough memory to separate this song. Try a shorter one, or try again later."),
    ),
    "storage": (
        500,
        _("The files could not be saved (%(reason)s). Try again later."),
    ),
    "disk_full": (
        507,
        _("The disk of this site is full. Try again later, or tell whoever runs the site."),
    ),
    "database": (
        500,
        _("The stems were made but could not be recorded. Try again in a while."),
    ),
    "timed_out": (
        500,
        _(
            "This song was not done after %(minutes)s minutes and was stopped. Try a shorter one, "
            "or a faster model."
        ),
    ),
    "stalled": (
        500,
        _("The separation made no progress for %(seconds)s seconds and was given up. Try again."),
    ),
    "lost": (
        500,
        _("This song was interrupted %(attempts)s times and was given up. Try again in a while."),
    ),
    "too_many_links": (
        422,
        _("This song has %(most)s links already. End one of them first."),
    ),
    # Tokens and webhooks
    "too_many_tokens": (
        422,
        _("This account has %(most)s tokens already. End one of them first."),
    ),
    "token_shown": (409, _("This token was made and shown already. Make a new one.")),
    "bad_webhook": (422, _("This webhook address cannot be called: %(reason)s")),
    # Fair use
    "too_many_requests": (
        429,
        _(
            "Too much came from you in a short time: the limit for %(what)s is reached. Try again "
            "in %(time)s."
        ),
    ),
    "site_limit": (
        503,
        _(
            "All visitors together have asked for as much as this site takes in a while; it is not "
            "about you. Try again in %(time)s."
        ),
    ),
    "too_many_at_once": (
        429,
        _("You are sending or loading too much at once. Try again when some of it is done."),
    ),
    "cannot_record": (
        503,
        _(
            "The site has no room to write anything down just now. What you have here is kept; try "
            "again in a few minutes, or tell whoever runs the site."
        ),
    ),
    "busy": (503, _("The site is busy with others just now. Try again in a moment.")),
    "quota_queued": (
        429,
        _("You have %(most)s songs waiting. Wait until one is done, or cancel one."),
    ),
    "quota_minutes": (
        429,
        _(
            "You have sent as many songs as fit into a day here (%(most)s minutes; slower models "
            "count several times). Send the next one in %(time)s."
        ),
    ),
    "quota_storage": (
        429,
        _("Your songs and stems take %(most)s GB here, the most there can be. Delete some first."),
    ),
    "quota_incoming": (
        429,
        _(
            "Songs of %(most)s GB are on their way from your network already, the most that may "
            "arrive at once. Send this one when they are here."
        ),
    ),
    "quota_network": (
        429,
        _(
            "The songs that came from your network today take %(most)s GB here with their stems, "
            "the most that one network may add in a day. Send the next one in %(time)s."
        ),
    ),
    "upload_gone": (
        410,
        _("The song is no longer kept here. Upload it again."),
    ),
    "not_finished": (
        404,
        _("This part of the song is not separated yet. Try again in a moment."),
    ),
    "account_gone": (
        410,
        _("Your account was deleted while this song was on its way. The song was not kept."),
    ),
    "result_gone": (410, _("The stems are no longer kept here. Upload the song again.")),
    # The API
    "unauthorized": (
        401,
        _("This needs a token, sent as “Authorization: Bearer …”. Make one on your account page."),
    ),
    "not_found": (404, _("There is nothing here, or it belongs to somebody else.")),
    "wrong_method": (405, _("This address takes %(allowed)s alone.")),
    "not_done": (
        409,
        _("The stems are not there: this song is %(status)s. Ask again when it is completed."),
    ),
    "already_over": (409, _("This song is %(status)s already: there is nothing to cancel.")),
    "not_over": (409, _("This song is %(status)s: only failed and cancelled ones can be retried.")),
    "one_file": (422, _("One song is taken at a time. Send each in a request of its own.")),
    "wrong_content_type": (415, _("Send the song as a form: multipart/form-data, field “file”.")),
    "bad_range": (416, _("The file has no such range. Content-Range says how long it is.")),
    "bad_field": (422, _("%(fields)s: this value cannot be read, or is out of its range.")),
    "too_much_work": (
        422,
        _("These options take %(asked)s passes over the song; at most %(most)s are made here."),
    ),
    "bad_idempotency_key": (
        422,
        _("An Idempotency-Key has 16 to 200 printable characters. A random UUID is a good one."),
    ),
    "idempotency_mismatch": (
        422,
        _("This Idempotency-Key came with another request before. Take a new one for each song."),
    ),
    "broken": (500, _("Something went wrong on this site. Try again in a moment.")),
    # The request
    "stale_form": (
        403,
        _(
            "This page was open for too long, or your browser keeps no cookies. Load it again and "
            "repeat what you did."
        ),
    ),
    "bad_request": (
        400,
        _("Your browser sent something this site cannot read. Load the page again and try again."),
    ),
    "wrong_host": (
        400,
        _(
            "This site does not answer to the name in your address bar. Whoever runs it can add "
            "the name to ALLOWED_HOSTS."
        ),
    ),
    "length_required": (
        411,
        _("Only songs may be sent in chunks of unknown length. Send this with a Content-Length."),
    ),
    "form_too_large": (413, _("More text was sent than any form here holds. Send less.")),
}

LIMITS: dict[str, Promise] = {  # by the kinds of `fair_use.rate_limits` and `login_attempts`
    "upload": _("songs sent"),
    "encode": _("files to encode"),
    "download": _("downloads"),
    "action": _("changes"),
    "api": _("requests"),
    "events": _("songs followed"),
    "signup": _("new accounts"),
    "reset": _("new passwords"),
    "confirmation": _("e-mails"),
    "mails": _("e-mails"),
    "mails_per_address": _("e-mails"),
    "login": _("log-ins"),
    "name": _("log-ins"),
    "known": _("log-ins"),
    "spare": _("log-ins"),
}

NOTES: dict[str, Promise] = {
    "segment_clamped": _(
        "This model works on pieces of at most %(used)s seconds; %(asked)s was asked for."
    ),
    "split_needed": _(
        "%(model)s cannot take a song in one piece; it was split into pieces of %(used)s seconds."
    ),
}


def fault_sentence(code: str, params: dict[str, Any]) -> str:
    """The message for a fault's code in the active language."""
    _status, sentence = FAULTS.get(code, FAULTS["engine_error"])
    return str(sentence) % _Values(params, time=_time(params), what=_limit(params))


def wait_of(params: dict[str, Any]) -> int:
    """The seconds after which to try again, as sentence and Retry-After say them; 0 if unknown.

    Beyond two minutes they are whole minutes.
    """
    wait = math.ceil(params.get("wait") or 0)
    return wait if wait <= SAID_IN_SECONDS else -(-wait // 60) * 60


def _time(params: dict[str, Any]) -> str:
    wait = wait_of(params)
    if wait <= SAID_IN_SECONDS:
        return gettext("%(number)s s") % {"number": wait}
    return gettext("%(number)s min") % {"number": wait // 60}


def _limit(params: dict[str, Any]) -> str:
    return str(LIMITS.get(params.get("limit", ""), LIMITS["api"]))


def sentence(fault: Fault) -> str:
    return fault_sentence(fault.code, fault.params)


def general_sentence(code: str) -> str:
    """The message for a code whose values are not known, with an ellipsis for each."""
    _status, sentence = FAULTS.get(code, FAULTS["engine_error"])
    return str(sentence) % _Blanks()


def status(fault: Fault) -> int:
    """The HTTP status for a fault that ends a request."""
    return FAULTS.get(fault.code, FAULTS["engine_error"])[0]


def note_sentences(notes: list[dict[str, Any]]) -> list[str]:
    """The messages for a job's stored notes."""
    return [str(NOTES[note["code"]]) % note["params"] for note in notes if note["code"] in NOTES]


class _Values(dict[str, Any]):
    """The values of a message; one that a row of an older version lacks is "unknown"."""

    def __missing__(self, _key: str) -> str:
        return gettext("unknown")


class _Blanks(dict[str, Any]):
    def __missing__(self, _key: str) -> str:
        return "…"


STANDSTILL: dict[str, Promise] = {
    "paused": _(
        "Whoever runs this site has paused it for a while. Songs wait, and start when it goes on."
    ),
    "no_consumer": _(
        "Nothing is separated here just now: that part of the site is not running. Songs are kept, "
        "and start when it is back."
    ),
    "broken": _(
        "Nothing is separated here just now: a part of the site does not work. Songs are kept, and "
        "start when it is mended. Whoever runs the site can read why."
    ),
}


def standstill(reason: str) -> str:
    """The notice for waiting visitors if `queue_switch.standstill` has a reason; else ""."""
    return str(STANDSTILL.get(reason, ""))


def deleted_everything(count: int, *, account: bool) -> str:
    text = ngettext(
        "%(count)d song was deleted with all that was made of it.",
        "%(count)d songs were deleted with all that was made of them.",
        count,
    )
    told = text % {"count": count} if count else gettext("There was no song to delete.")
    return told + " " + gettext("Your account was deleted.") if account else told


def claimed(count: int) -> str:
    text = ngettext(
        "%(count)d song of this browser is in your account now.",
        "%(count)d songs of this browser are in your account now.",
        count,
    )
    return text % {"count": count}


def deleted(title: str) -> str:
    return gettext("“%(title)s” and its stems were deleted.") % {"title": title}

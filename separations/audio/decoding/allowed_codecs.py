"""Containers and codecs that are accepted as songs. Light: the web process imports it."""

# By FFmpeg's names. "mov" is MP4, QuickTime and 3GP; "asf" is WMA; "matroska" is MKV and WebM.
DEMUXERS = (
    *("mp3", "wav", "w64", "flac", "ogg", "mov", "mp4", "m4a", "3gp", "aac"),
    *("aiff", "asf", "caf", "matroska", "webm", "wv"),
)
# No video codecs: a cover is not decoded, nor the film of a sound track.
DECODERS = (
    *("mp3float", "mp3", "mp2float", "mp2", "mp1float", "mp1", "aac", "flac", "alac"),
    *("vorbis", "opus", "libopus", "wavpack", "ac3", "eac3", "amrnb", "amrwb"),
    *("wmav1", "wmav2", "wmapro", "wmalossless"),
    *("pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le"),
    *("pcm_s32be", "pcm_s64le", "pcm_s64be", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be"),
    *("pcm_alaw", "pcm_mulaw", "adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt"),
)
MOST_STREAMS = 32  # sound, covers, chapters, a film's tracks
LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000
MOST_CHANNELS = 8  # 7.1

# The container that each extension stands for, as `AudioInfo.container` names it.
CONTAINERS = {
    **dict.fromkeys((".mp3", ".mp2", ".mpga"), "mp3"),
    **dict.fromkeys((".wav", ".wave", ".bwf", ".rf64"), "wav"),
    ".w64": "w64",
    **dict.fromkeys((".flac", ".fla"), "flac"),
    **dict.fromkeys((".ogg", ".oga", ".opus", ".ogv", ".ogx"), "ogg"),
    **dict.fromkeys((".m4a", ".m4b", ".m4r", ".mp4", ".m4v", ".mov", ".qt"), "mov"),
    **dict.fromkeys((".3gp", ".3gpp", ".3g2"), "mov"),
    **dict.fromkeys((".aac", ".adts"), "aac"),
    **dict.fromkeys((".aiff", ".aif", ".aifc"), "aiff"),
    **dict.fromkeys((".wma", ".asf", ".wmv"), "asf"),
    ".caf": "caf",
    **dict.fromkeys((".mkv", ".mka", ".webm", ".weba"), "matroska"),
    ".wv": "wv",
}
ALIASES = {
    **dict.fromkeys((".wave", ".bwf", ".rf64"), ".wav"),
    **dict.fromkeys((".aif", ".aifc"), ".aiff"),
    **{".oga": ".ogg", ".m4b": ".m4a", ".m4v": ".mp4", ".qt": ".mov", ".mka": ".mkv"},
}
# Extensions of what is often sent by mistake, so that it need not arrive first.
OTHER_THINGS = frozenset(
    (
        *(".jpg", ".jpeg", ".png", ".gif", ".webp", ".heic", ".bmp", ".tif", ".tiff", ".svg"),
        *(".txt", ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".odt", ".rtf"),
        *(".html", ".htm", ".xml", ".json", ".csv", ".md", ".js", ".py", ".sh", ".bat"),
        *(".zip", ".rar", ".7z", ".gz", ".tar", ".iso", ".dmg", ".exe", ".msi", ".dll", ".apk"),
        *(".m3u", ".m3u8", ".pls", ".cue", ".lrc", ".srt"),
        *(".mid", ".midi", ".mscz", ".sib", ".als", ".flp", ".logicx", ".cpr", ".ptx", ".band"),
        # Sound that is not read here.
        *(".ape", ".mpc", ".tta", ".tak", ".dsf", ".dff", ".amr", ".ac3", ".dts", ".ra", ".rm"),
        *(".au", ".snd", ".aax", ".m4p", ".avi", ".flv", ".mpg", ".mpeg", ".vob", ".ts", ".mts"),
    )
)


def is_known_extension(extension: str) -> bool:
    """Whether the extension says what a file is; of others, and of none, the content decides."""
    return extension in CONTAINERS or extension in OTHER_THINGS


def is_container_allowed(container: str, extensions: list[str]) -> bool:
    """Whether one of the allowed extensions stands for the container."""
    return any(CONTAINERS.get(extension) == container for extension in extensions)


def kinds(extensions: list[str]) -> list[str]:
    """The extensions as people name kinds of files, each once: "WAV", "AIFF"."""
    names = (ALIASES.get(extension, extension).lstrip(".").upper() for extension in extensions)
    return list(dict.fromkeys(names))

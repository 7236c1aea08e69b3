"""Containers and codecs that are accepted as songs. Light: the web process imports it."""

import mimetypes

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
# Extensions of other things, by Python's own table; ".bin" says nothing of what is in a file.
_OF_OTHER_THINGS = set(mimetypes.MimeTypes().types_map[True]) - {".bin", ".dat"}


def is_known_extension(extension: str) -> bool:
    """Whether the extension says what a file is; of others, and of none, the content decides."""
    return extension in CONTAINERS or extension in _OF_OTHER_THINGS


def is_container_allowed(container: str, extensions: list[str]) -> bool:
    """Whether one of the allowed extensions stands for the container."""
    return any(CONTAINERS.get(extension) == container for extension in extensions)

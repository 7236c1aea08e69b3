"""Containers and codecs that are accepted as songs. Light: the web process imports it."""

DEMUXERS = ("mp3", "wav", "w64", "flac", "ogg", "mov", "mp4", "m4a", "3gp", "aac")
# By FFmpeg's names. No video codecs: a cover is not decoded, nor the film of a sound track.
DECODERS = (
    *("mp3float", "mp3", "mp2float", "mp2", "mp1float", "mp1", "aac", "flac", "alac"),
    *("vorbis", "opus", "libopus"),
    *("pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le"),
    *("pcm_s32be", "pcm_s64le", "pcm_s64be", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be"),
    *("pcm_alaw", "pcm_mulaw", "adpcm_ms", "adpcm_ima_wav"),
)
MOST_STREAMS = 32  # sound, covers, chapters, a film's tracks
LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000
MOST_CHANNELS = 8  # 7.1

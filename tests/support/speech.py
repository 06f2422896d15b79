"""Speech for tests. The files in the folder beside were spoken by eSpeak NG."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

HERTZ = 16_000
#: On average over 20 ms; what is not is a pause.
LOUD = 130
HOSPITAL = Path(__file__).parent / "speech/hospital.ogg"
COUNT = Path(__file__).parent / "speech/count.ogg"
#: What is said in them.
HOSPITAL_WORDS = "good morning my name is peter i live in london and i work in a hospital"
COUNT_WORDS = "one two three four five six seven eight nine ten"
#: Containers and codecs that people send.
CODECS = {
    "wav": ("wav", "pcm_s16le"),
    "mp3": ("mp3", "libmp3lame"),
    "flac": ("flac", "flac"),
    "m4a": ("mp4", "aac"),
    "opus": ("ogg", "libopus"),
}

Samples = npt.NDArray[np.int16]


def samples(path: Path) -> Samples:
    """One channel at 16 kHz."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=HERTZ)
    with av.open(str(path)) as file:
        frames = [made for frame in file.decode(audio=0) for made in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * HERTZ), dtype=np.int16)


def tone(seconds: float) -> Samples:
    """440 Hz."""
    turn = 2 * np.pi * 440 * np.arange(round(seconds * HERTZ)) / HERTZ
    return (10_000 * np.sin(turn)).astype(np.int16)


def spans(sound: Samples) -> list[tuple[float, float]]:
    """From when to when, in seconds, it is loud: words with pauses between them."""
    step, pause = HERTZ // 50, 8
    parts = sound[: len(sound) // step * step].reshape(-1, step)
    loud = np.flatnonzero(np.abs(parts.astype(np.int32)).mean(axis=1) > LOUD)
    cuts = np.flatnonzero(np.diff(loud) > pause) + 1
    return [(part[0] / 50, (part[-1] + 1) / 50) for part in np.split(loud, cuts)]


def wav(sound: Samples) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(HERTZ)
        file.writeframes(sound.tobytes())
    return out.getvalue()


def encoded(sound: Samples, name: str) -> bytes:
    """As one of the codecs writes it."""
    container, codec = CODECS[name]
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=HERTZ)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        frame.sample_rate = HERTZ
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)
    return out.getvalue()

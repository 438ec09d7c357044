"""Sound files to log mel filterbank features; the only file that knows soundfile and kaldi-native-fbank.

Features are Kaldi's (Povey et al. 2011), those that most recognisers of speech start from: 40 bands, windows of 25 ms
every 10 ms, without dither, so that a sound always has the same ones.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from math import gcd
from typing import TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import DataError, extra
from sizewise.records import Exclusion

EXTENSIONS = {".wav", ".flac", ".ogg"}
BANDS, WINDOW_MS, STEP_MS = 40, 25, 10
HIGHEST_RATE, LOWEST_RATE = 16_000, 4_000
"""Samples a second. What speech has above 8 kHz does not tell words apart; below 2 kHz too little is left of it."""

Wave = NDArray[np.float32]
"""One channel (samples,), loudest possible -1 and 1."""

Files = Mapping[str, Callable[[], bytes]]
"""Contents of files, by name."""

Kept = TypeVar("Kept")

_UNREADABLE = (OSError, BadZipFile, zlib.error, NotImplementedError, RuntimeError)
"""What reading raises, of files and of a .zip's members, damaged, encrypted or packed in an unknown way; soundfile's
own error is of the last kind."""


class Skips:
    """Files or rows that are left out, by reason."""

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[int, str]]] = {}

    def add(self, reason: str, row: int, name: str) -> None:
        """Leave one out; rows count from 1."""
        self._found.setdefault(reason, []).append((row, name))

    def exclusions(self) -> tuple[Exclusion, ...]:
        """The record of what was left out, which names the first three of each reason."""
        return tuple(
            Exclusion(f"{reason}: {named([name for _, name in found])}", len(found), tuple(r for r, _ in found[:10]))
            for reason, found in self._found.items()
        )


def named(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def listen(
    files: Files, names: Sequence[str], keep: Callable[[Wave, int], Kept]
) -> tuple[dict[str, Kept], tuple[Exclusion, ...]]:
    """Decode the named files one after another, at one sampling rate.

    That rate is the lowest of all files, so that none has bands that are empty in another, and at most 16 kHz.

    Args:
        keep: what is kept of a wave and its sampling rate.

    Returns:
        what was kept, by name, and what was left out: broken files, and those shorter than a window.

    Raises:
        DataError: nothing is left.
    """
    skips, rates = Skips(), {}
    for row, name in enumerate(names, 1):
        rate = _rate(files[name])
        if rate is None:
            skips.add("cannot be read as sound", row, name)
        elif rate < LOWEST_RATE:
            skips.add(f"has fewer than {LOWEST_RATE:,} samples a second", row, name)
        else:
            rates[row, name] = rate
    rate, kept = min((HIGHEST_RATE, *rates.values())), {}
    for (row, name), own in rates.items():
        wave = _decode(files[name])
        if wave is None:
            skips.add("cannot be read as sound", row, name)
        elif len(wave) * 1000 < own * WINDOW_MS:
            skips.add(f"is shorter than {WINDOW_MS} ms", row, name)
        else:
            kept[name] = keep(resampled(wave, own, rate), rate)
    if not kept:
        reasons = "; ".join(f"{exclusion.count:,} {exclusion.reason}" for exclusion in skips.exclusions())
        raise DataError(
            f"none of the {len(names):,} sound files can be used: {reasons}", hint="give WAV, FLAC or OGG files"
        )
    return kept, skips.exclusions()


def is_sound(name: str) -> bool:
    """Whether a file is named like a sound."""
    return any(name.lower().endswith(extension) for extension in EXTENSIONS)


def resampled(wave: Wave, rate: int, wanted: int) -> Wave:
    """A wave at another sampling rate."""
    from scipy.signal import resample_poly

    if rate == wanted:
        return wave
    divisor = gcd(rate, wanted)
    return np.asarray(resample_poly(wave, wanted // divisor, rate // divisor), np.float32)


def filterbanks(wave: Wave, rate: int) -> NDArray[np.float32]:
    """Logarithms of the energy in each band, shape (frames, bands): a frame every 10 ms of sound."""
    with extra("speech", needed_for="turning sound into features"):
        from kaldi_native_fbank import FbankOptions, OnlineFbank

    options = FbankOptions()
    options.frame_opts.samp_freq = rate
    options.frame_opts.frame_length_ms, options.frame_opts.frame_shift_ms = WINDOW_MS, STEP_MS
    options.frame_opts.dither, options.frame_opts.snip_edges = 0.0, False
    options.mel_opts.num_bins = BANDS
    banks = OnlineFbank(options)
    banks.accept_waveform(rate, wave)
    banks.input_finished()
    return np.stack([banks.get_frame(i) for i in range(banks.num_frames_ready)])


def features(sound: bytes, rate: int) -> NDArray[np.float32]:
    """Filterbanks (frames, bands) of one sound file, brought to a sampling rate as all of a task's are.

    Raises:
        DataError: it is no sound, or one shorter than a window.
        MissingExtraError: the libraries for sound are not installed.
    """
    own, wave = _rate(lambda: sound), _decode(lambda: sound)
    if own is None or wave is None or own < LOWEST_RATE:
        raise DataError(f"{len(sound):,} bytes cannot be read as sound", hint="send a WAV, FLAC or OGG file")
    if len(wave) * 1000 < own * WINDOW_MS:
        raise DataError(f"the sound is shorter than {WINDOW_MS} ms", hint="send a longer one")
    return filterbanks(resampled(wave, own, rate), rate)


def described(rate: int) -> dict[str, bytes]:
    """The file that tells whoever runs an exported model how its features are made."""
    return {"sound.json": json.dumps({"rate": rate}).encode()}


def frames(seconds: float) -> int:
    """Feature vectors of so much sound."""
    return round(seconds * 1000 / STEP_MS)


def _rate(read: Callable[[], bytes]) -> int | None:
    """Samples a second; None if it is no sound."""
    with extra("speech", needed_for="reading sound"):
        import soundfile

    try:
        return int(soundfile.info(io.BytesIO(read())).samplerate)
    except _UNREADABLE:
        return None


def _decode(read: Callable[[], bytes]) -> Wave | None:
    """The mean of all channels; None if it is no sound, or not a finite one."""
    import soundfile

    try:
        samples, _ = soundfile.read(io.BytesIO(read()), dtype="float32", always_2d=True)
    except _UNREADABLE:
        return None
    wave: Wave = samples.mean(axis=1, dtype=np.float32)
    return wave if np.isfinite(wave).all() else None

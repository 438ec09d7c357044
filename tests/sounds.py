"""Small sound files for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile


def tone(seconds: float = 0.3, rate: int = 8000, pitch: float = 440.0, channels: int = 1) -> np.ndarray:
    """A sine of half the loudest amplitude, (samples,) or (samples, channels)."""
    wave = 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
    return wave if channels == 1 else np.repeat(wave[:, None], channels, axis=1)


def write(path: Path, wave: np.ndarray | None = None, rate: int = 8000) -> Path:
    """A sound file of the format that its ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(rate=rate) if wave is None else wave, rate)
    return path


def takes(folder: Path, labels: str = "ab", speakers: tuple[str, ...] = ("ann", "bob"), count: int = 10) -> Path:
    """Recordings named as in the Free Spoken Digit Dataset, each of its own pitch."""
    pitch = 200.0
    for label in labels:
        for speaker in speakers:
            for take in range(count):
                write(folder / f"{label}_{speaker}_{take}.wav", tone(0.2 + 0.01 * take, pitch=pitch))
                pitch += 7.0
    return folder

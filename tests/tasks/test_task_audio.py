"""Sound files: formats, channels, sampling rates, and files that cannot be used."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests.sounds import tone, write

from sizewise.errors import DataError
from sizewise.tasks import audio
from sizewise.tasks.recordings import opened


def hear(folder: Path) -> tuple[dict[str, tuple[audio.Wave, int]], tuple[tuple[str, int], ...]]:
    """What is heard of all files of a folder or .zip, and the reasons and counts of what is not."""
    with opened(folder) as files:
        heard, skipped = audio.listen(files, list(files), lambda wave, rate: (wave, rate))
    return heard, tuple((exclusion.reason, exclusion.count) for exclusion in skipped)


@pytest.mark.parametrize("end", ["wav", "flac", "ogg"])
def test_every_format_is_read(tmp_path: Path, end: str) -> None:
    write(tmp_path / f"a.{end}", tone(1.0))
    wave, rate = hear(tmp_path)[0][f"a.{end}"]
    assert rate == 8000
    assert len(wave) == 8000
    assert np.abs(wave).max() == pytest.approx(0.5, abs=0.05)


def test_a_zip_holds_the_same_as_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.wav")
    write(tmp_path / "in" / "deep" / "b.wav", tone(pitch=300))
    write(tmp_path / "in" / ".hidden" / "c.wav")
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (tmp_path / "in").rglob("*.wav"):
            archive.write(path, path.relative_to(tmp_path / "in"))
        archive.writestr("__MACOSX/a.wav", b"not a sound")
    ours, theirs = hear(tmp_path / "in.zip")[0], hear(tmp_path / "in")[0]
    assert list(ours) == list(theirs) == ["a.wav", "deep/b.wav"]
    for name, (wave, _) in ours.items():
        np.testing.assert_array_equal(wave, theirs[name][0])


def test_several_channels_become_their_mean(tmp_path: Path) -> None:
    wave = tone()
    write(tmp_path / "stereo.wav", np.stack([wave, np.zeros_like(wave)], axis=1))
    heard, _ = hear(tmp_path)[0]["stereo.wav"]
    np.testing.assert_allclose(heard, wave / 2, atol=1e-4)


def test_files_of_several_rates_get_the_lowest(tmp_path: Path) -> None:
    for rate in (8000, 11025, 44100):
        write(tmp_path / f"{rate}.wav", tone(0.5, rate), rate)
    heard = hear(tmp_path)[0]
    low = heard["8000.wav"][0]
    for wave, rate in heard.values():
        assert rate == 8000
        assert len(wave) == pytest.approx(4000, abs=1)
        middle = slice(500, 3500)
        np.testing.assert_allclose(wave[middle], low[middle], atol=0.01)


def test_music_is_brought_to_the_rate_of_speech(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", tone(0.5, 44100), 44100)
    assert hear(tmp_path)[0]["a.wav"][1] == audio.HIGHEST_RATE


def test_files_that_cannot_be_used_are_left_out_and_named(tmp_path: Path) -> None:
    good = write(tmp_path / "good.wav")
    (tmp_path / "broken.wav").write_bytes(b"RIFF and nothing that follows")
    (tmp_path / "empty.flac").write_bytes(b"")
    (tmp_path / "cut.wav").write_bytes(good.read_bytes()[:20])
    write(tmp_path / "short.wav", tone(0.01))
    write(tmp_path / "none.wav", np.zeros(0))
    write(tmp_path / "slow.wav", tone(0.5, 2000, 100), 2000)
    soundfile.write(tmp_path / "nan.wav", np.full(4000, np.nan), 8000, subtype="FLOAT")
    heard, reasons = hear(tmp_path)
    assert list(heard) == ["good.wav"]
    assert dict(reasons) == {
        "cannot be read as sound: broken.wav, cut.wav, empty.flac and 1 more": 4,
        "has fewer than 4,000 samples a second: slow.wav": 1,
        "is shorter than 25 ms: none.wav, short.wav": 2,
    }


def test_nothing_but_broken_files(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"no")
    with pytest.raises(DataError, match=r"none of the 2 sound files .* a.wav, b.wav"):
        hear(tmp_path)


def test_a_file_that_is_no_zip(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no")
    with pytest.raises(DataError, match=r"is no \.zip"), opened(tmp_path / "a.zip"):
        pass


def test_a_frame_every_10_ms_and_the_energy_in_its_band() -> None:
    low, high = (audio.filterbanks(tone(1.0, pitch=pitch).astype(np.float32), 8000) for pitch in (300, 3000))
    assert low.shape == high.shape == (100, audio.BANDS)
    assert low.dtype == np.float32
    assert low.mean(axis=0).argmax() < 12
    assert high.mean(axis=0).argmax() > 28


@pytest.mark.parametrize("samples", [200, 201, 279, 8000])
def test_silence_has_finite_features_that_never_change(samples: int) -> None:
    silence = np.zeros(samples, np.float32)
    found = audio.filterbanks(silence, 8000)
    assert np.isfinite(found).all()
    assert len(found) >= 1
    np.testing.assert_array_equal(found, audio.filterbanks(silence, 8000))


def test_real_speech_has_features_in_the_range_that_kaldi_gives(shared_data: Path) -> None:
    with opened(shared_data / "fsdd" / "recordings.zip") as files:
        names = sorted(files)[::300]
        heard, skipped = audio.listen(files, names, audio.filterbanks)
    assert not skipped
    everything = np.concatenate(list(heard.values()))
    assert -16 < everything.min() < everything.max() < 10
    assert everything.std() > 2

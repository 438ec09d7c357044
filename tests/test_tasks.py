"""Real data loads as it should, and each kind of bad data is refused with one clear error."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import re
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.special import softmax
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, precision_score, recall_score

from sizewise import tasks
from sizewise.errors import DataError, UsageError
from sizewise.records import Signature
from sizewise.tasks import Split, download, idx
from sizewise.tasks.problems import Judged, make


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x0800 | array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path, *, count: int = 60, compress: bool = False) -> Path:
    """A small data set in MNIST's four files."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for label, stem in idx.STEMS.items():
        shape = (count, 28, 28) if "images" in label else (count,)
        array = rng.integers(0, 255, shape, dtype=np.uint8) if len(shape) > 1 else np.arange(count, dtype=np.uint8) % 10
        data = idx_bytes(array)
        (folder / (stem + (".gz" if compress else ""))).write_bytes(gzip.compress(data) if compress else data)
    return folder


def write_images(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 8, size: int = 6) -> Path:
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (size, size), dtype=np.uint8)).save(folder / name / f"{i}.png")
    return folder


def arrays(count: int = 40) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(count, 6, 6)).astype(np.float32), "y": np.arange(count) % 2}


def refuse(words: str, name: str, data: Path | None = None) -> None:
    with pytest.raises(DataError, match=words) as caught:
        tasks.load(name, data)
    assert caught.value.hint


def test_digits_are_complete_and_stratified() -> None:
    task = tasks.load("digits")
    assert [len(s.y) for s in (task.train, task.validation, task.test)] == [1078, 360, 359]
    assert task.signature.input_shape == (1, 8, 8)
    for split in (task.train, task.validation, task.test):
        shares = np.bincount(split.y, minlength=10) / len(split.y)
        assert shares.min() > 0.08


def test_real_mnist(shared_data: Path) -> None:
    task = tasks.load("mnist", shared_data / "mnist")
    assert [len(s.y) for s in (task.train, task.validation, task.test)] == [54_000, 6_000, 10_000]
    assert task.preprocessor.mean[0] == pytest.approx(33.3, abs=0.1)


def test_the_known_hashes_are_those_of_mnist(shared_data: Path) -> None:
    for name, expected in download.FILES.items():
        content = gzip.decompress((shared_data / "mnist" / name).read_bytes())
        assert hashlib.sha256(content).hexdigest() == expected


def test_real_npz(shared_data: Path) -> None:
    task = tasks.load(str(shared_data / "pneumonia" / "pneumoniamnist.npz"))
    assert [len(s.y) for s in (task.train, task.validation, task.test)] == [2428, 270, 468]
    assert task.name == "pneumoniamnist"


def test_preprocessing_is_fitted_on_the_training_split_alone(tmp_path: Path) -> None:
    a = {"x_train": arrays()["x"], "y_train": arrays()["y"], "x_test": arrays()["x"], "y_test": arrays()["y"]}
    np.savez(tmp_path / "a.npz", **a)
    np.savez(tmp_path / "b.npz", **(a | {"x_test": 100 * a["x_test"]}))
    one, two = (tasks.load(str(tmp_path / name)) for name in ("a.npz", "b.npz"))
    assert one.preprocessor == two.preprocessor
    assert one.fingerprint != two.fingerprint


def test_preprocessing_standardises() -> None:
    task = tasks.load("digits")
    x = task.preprocessor(task.train.x)
    assert x.dtype == np.float32
    assert x.mean() == pytest.approx(0, abs=1e-5)
    assert x.std() == pytest.approx(1, abs=1e-5)


def test_fingerprint_knows_the_data_and_not_the_place(tmp_path: Path) -> None:
    here, there = write_mnist(tmp_path / "here"), write_mnist(tmp_path / "there", compress=True)
    assert tasks.load("mnist", here).fingerprint == tasks.load("mnist", there).fingerprint
    stem = there / (idx.STEMS["test images"] + ".gz")
    data = bytearray(gzip.decompress(stem.read_bytes()))
    data[-1] ^= 1
    stem.write_bytes(gzip.compress(bytes(data)))
    assert tasks.load("mnist", here).fingerprint != tasks.load("mnist", there).fingerprint


def test_both_spellings_of_idx_files(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path)
    for path in folder.glob("*-idx*"):
        path.rename(folder / path.name.replace("-idx", ".idx"))
    assert len(tasks.load("mnist", folder).test.y) == 60


@given(shape=st.tuples(st.integers(0, 5), st.integers(1, 6), st.integers(1, 6)), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_idx_round_trip(tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int, int], seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path_factory.mktemp("idx") / "array"
    path.write_bytes(idx_bytes(array))
    np.testing.assert_array_equal(idx.parse(path, 3), array)


@given(data=st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_an_array_or_a_data_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("idx") / "array"
    path.write_bytes(data)
    whole = len(data) >= 8 and data[:4] == b"\0\0\x08\x01" and int.from_bytes(data[4:8], "big") == len(data) - 8
    if whole:
        assert len(idx.parse(path, 1)) == len(data) - 8
    else:
        with pytest.raises(DataError, match=re.escape(str(path))):
            idx.parse(path, 1)


def test_missing_idx_file(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / idx.STEMS["train labels"]).unlink()
    refuse("has no train-labels-idx1-ubyte", "mnist", tmp_path)
    refuse("there is no folder", "mnist", tmp_path / "nowhere")


def test_truncated_idx_file(tmp_path: Path) -> None:
    path = write_mnist(tmp_path) / idx.STEMS["train images"]
    path.write_bytes(path.read_bytes()[:-5])
    refuse("truncated or damaged: its header says 47,040 bytes of data, it has 47,035", "mnist", tmp_path)
    path.write_bytes(b"\x00\x00")
    refuse("too few for an IDX header", "mnist", tmp_path)


def test_truncated_gzip(tmp_path: Path) -> None:
    path = write_mnist(tmp_path, compress=True) / (idx.STEMS["train images"] + ".gz")
    path.write_bytes(path.read_bytes()[:100])
    refuse("damaged or truncated gzip", "mnist", tmp_path)


def test_wrong_magic_number(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    images, labels = (tmp_path / idx.STEMS[f"train {kind}"] for kind in ("images", "labels"))
    images.write_bytes(labels.read_bytes())
    refuse("magic number 0x00000801.*0x00000803", "mnist", tmp_path)


def test_label_out_of_range(tmp_path: Path) -> None:
    path = write_mnist(tmp_path) / idx.STEMS["test labels"]
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")
    refuse("label 11 at position 59", "mnist", tmp_path)


def test_counts_that_differ(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / idx.STEMS["test labels"]).write_bytes(idx_bytes(np.zeros(7, np.uint8)))
    refuse("60 samples and 7 labels", "mnist", tmp_path)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite")])
def test_values_that_are_not_finite(tmp_path: Path, value: float, words: str) -> None:
    data = arrays()
    data["x"][3, 0, 0] = value
    np.savez(tmp_path / "a.npz", **data)
    refuse(words, str(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.zeros(40, int), "one class|class 0"),
        (np.arange(40) % 2 - 1, "label -1, out of range"),
        (np.arange(40) % 2 * 2, "no example of class 1|class '1' has 0"),
        (np.zeros(0, int), "empty|has 0|too few"),
        (np.r_[np.zeros(38, int), 1, 1], "class '1' has 2 examples"),
    ],
)
def test_bad_labels(tmp_path: Path, y: NDArray[np.int64], words: str) -> None:
    np.savez(tmp_path / "a.npz", x=arrays()["x"][: len(y)], y=y)
    refuse(words, str(tmp_path / "a.npz"))


def test_pickled_objects_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}] * 4, dtype=object), y=np.arange(4))
    refuse("pickled", str(tmp_path / "a.npz"))


def test_a_file_that_is_no_npz(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"hello")
    refuse("a.npz", str(tmp_path / "a.npz"))


def test_keys_that_say_nothing(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", left=np.zeros(3))
    refuse("has the keys left", str(tmp_path / "a.npz"))


@pytest.mark.parametrize("shape", [(40, 6, 6), (40, 6, 6, 3), (40, 3, 6, 6), (40, 6, 6, 1)])
def test_layouts_of_arrays(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).random(shape), y=np.arange(40) % 2)
    channels = 3 if 3 in shape else 1
    assert tasks.load(str(tmp_path / "a.npz")).signature.input_shape == (channels, 6, 6)


def test_image_folder(tmp_path: Path) -> None:
    task = tasks.load(str(write_images(tmp_path / "pets", count=20)))
    assert task.classes == ("cat", "dog")
    assert task.signature.input_shape == (1, 6, 6)
    assert [len(s.y) for s in (task.train, task.validation, task.test)] == [28, 6, 6]


def test_one_coloured_image_makes_all_coloured(tmp_path: Path) -> None:
    folder = write_images(tmp_path)
    Image.new("RGB", (6, 6), "red").save(folder / "cat" / "red.png")
    assert tasks.load(str(folder)).signature.input_shape == (3, 6, 6)


def test_the_users_own_division_is_kept(tmp_path: Path) -> None:
    for name, count in (("train", 10), ("val", 3), ("test", 4)):
        write_images(tmp_path / name, count=count)
    task = tasks.load(str(tmp_path))
    assert [len(s.y) for s in (task.train, task.validation, task.test)] == [20, 6, 8]


def test_images_of_two_sizes(tmp_path: Path) -> None:
    folder = write_images(tmp_path)
    Image.new("L", (7, 6)).save(folder / "dog" / "wide.png")
    refuse("differ in size: .* is 6×6, .*wide.png is 7×6", str(folder))


def test_an_unreadable_image(tmp_path: Path) -> None:
    folder = write_images(tmp_path)
    (folder / "dog" / "broken.png").write_bytes(b"\x89PNG nothing")
    refuse("broken.png cannot be read", str(folder))


def test_one_class_folder(tmp_path: Path) -> None:
    refuse("1 class subfolders", str(write_images(tmp_path, classes=("cat",))))


def test_an_empty_class_folder(tmp_path: Path) -> None:
    folder = write_images(tmp_path)
    (folder / "eel").mkdir()
    refuse("eel has no images", str(folder))


def test_unknown_task_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean 'digits'"):
        tasks.load("digit")


def test_metrics_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(200, 4)), rng.integers(0, 4, 200)
    found, said = judge(logits, y), logits.argmax(1)
    assert found.values["accuracy"] == pytest.approx(accuracy_score(y, said))
    assert found.values["precision"] == pytest.approx(precision_score(y, said, average="macro"))
    assert found.values["recall"] == pytest.approx(recall_score(y, said, average="macro"))
    assert found.values["F1"] == pytest.approx(f1_score(y, said, average="macro"))
    assert np.array_equal(found.confusion, confusion_matrix(y, said))
    assert found.loss == pytest.approx(log_loss(y, softmax(logits, axis=1)))


def test_a_class_that_is_never_said_counts_nothing() -> None:
    found = judge(np.array([[2.0, 1.0, 0.0]] * 3), np.array([0, 1, 2]))
    assert found.values["precision"] == pytest.approx(1 / 9)
    assert found.values["F1"] == pytest.approx(1 / 6)
    assert found.confusion == ((1, 0, 0), (1, 0, 0), (1, 0, 0))


def test_losses_of_huge_logits_are_finite() -> None:
    assert judge(np.array([[1e4, -1e4], [1e4, -1e4]]), np.array([1, 0])).loss == pytest.approx(1e4)


def judge(logits: NDArray[np.float64], y: NDArray[np.int64]) -> Judged:
    classes = logits.shape[1]
    problem = make(Signature("classification", (1, 6, 6), classes), "abcd"[:classes])
    return problem.judge(logits, Split(np.empty((len(y), 0)), y))


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A real HTTP server over a folder."""
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", folder
    server.shutdown()


def test_download_from_a_mirror(
    mirror: tuple[str, Path], shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = mirror
    for name in download.FILES:
        (folder / name).write_bytes((shared_data / "mnist" / name).read_bytes())
    monkeypatch.setenv("SIZEWISE_MNIST_MIRROR", url)
    monkeypatch.setenv("SIZEWISE_CACHE", str(tmp_path / "cache"))
    assert len(tasks.load("mnist").test.y) == 10_000
    for path in folder.iterdir():
        path.unlink()
    assert len(tasks.load("mnist").test.y) == 10_000  # from the cache


def test_a_changed_download_is_refused_and_not_kept(
    mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = mirror
    for name in download.FILES:
        (folder / name).write_bytes(gzip.compress(b"something else"))
    monkeypatch.setenv("SIZEWISE_MNIST_MIRROR", url)
    monkeypatch.setenv("SIZEWISE_CACHE", str(tmp_path / "cache"))
    refuse("sha256 is", "mnist")
    assert not list((tmp_path / "cache").rglob("*.gz"))


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIZEWISE_MNIST_MIRROR", "http://127.0.0.1:9/")
    monkeypatch.setenv("SIZEWISE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match="cannot download") as caught:
        tasks.load("mnist")
    assert "--data DIR" in caught.value.hint

"""Images with boxes: Pascal VOC and COCO, from folders and archives, good ones and bad ones."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.detection_data import Boxes, coco, jpeg, voc, xml

from sizewise import tasks
from sizewise.errors import DataError, SizewiseError, UsageError
from sizewise.records import Reading
from sizewise.tasks.detection.annotated import Annotated, Skipped
from sizewise.tasks.detection.pictures import _inside

IMAGES: dict[str, Boxes] = {f"i{n}": [("cat", 10, 10, 30, 34), ("dog", 32, 4, 60, 40)] for n in range(10)}


def load(path: Path, size: tuple[int, ...] = (24, 32)) -> tasks.Task:
    return tasks.load("detection", path, Reading(size=size))


def reasons(task: tasks.Task) -> dict[str, int]:
    return {exclusion.reason.partition(" (first")[0]: exclusion.count for exclusion in task.skipped}


def refuse(words: str, path: Path, size: tuple[int, ...] = (24, 32), kind: type[SizewiseError] = DataError) -> None:
    with pytest.raises(kind, match=words) as caught:
        load(path, size)
    assert caught.value.hint


def test_blood_cells(shared_data: Path) -> None:
    task = load(shared_data / "bccd" / "bccd-voc.zip", (48, 64))
    assert task.classes == ("Platelets", "RBC", "WBC")
    assert [len(split) for split in (task.train, task.validation, task.test)] == [205, 87, 72]
    assert task.train.x.dtype == np.uint8
    assert task.train.x.shape[1:] == (3, 48, 64)
    kinds, edges = task.train.y[..., 0], task.train.y[..., 1:]
    assert set(np.unique(kinds)) == {0, 1, 2, 3}
    assert edges.min() >= 0
    assert (edges <= [64, 48, 64, 48]).all()
    assert reasons(task) == {"boxes without width or height: left out": 2}


def test_boxes_follow_their_image(tmp_path: Path) -> None:
    task = load(voc(tmp_path / "d", IMAGES))
    assert task.classes == ("cat", "dog")
    np.testing.assert_allclose(task.train.y[0], [[1, 5, 5, 15, 17], [2, 16, 2, 30, 20]])
    assert [len(split) for split in (task.train, task.validation, task.test)] == [6, 2, 2]
    assert not task.skipped


def test_size_follows_the_aspect_of_the_data(tmp_path: Path) -> None:
    assert load(voc(tmp_path / "d", IMAGES), ()).signature.input_shape == (3, 96, 128)


def test_a_folder_and_its_archive_are_one_task(tmp_path: Path) -> None:
    folder = voc(tmp_path / "d", IMAGES, {"train": [f"i{n}" for n in range(6)], "test": ["i6", "i7"]})
    archive = tmp_path / "d.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            file.write(path, Path("inner") / path.relative_to(folder))
    before = set(tmp_path.rglob("*"))
    a, b = load(folder), load(archive)
    assert a.fingerprint == b.fingerprint
    assert reasons(b) == {"annotated images that no split lists: left out": 2}
    assert set(tmp_path.rglob("*")) == before


def test_names_that_lead_out_of_an_archive_are_left_alone(tmp_path: Path) -> None:
    folder, archive = voc(tmp_path / "d", IMAGES), tmp_path / "inside" / "d.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            file.write(path, path.relative_to(folder))
        file.writestr("../Annotations/evil.xml", xml([("evil", 1, 1, 9, 9)]))
        file.writestr("/JPEGImages/evil.jpg", jpeg())
    before = set(tmp_path.rglob("*"))
    assert load(archive).fingerprint == load(folder).fingerprint
    assert set(tmp_path.rglob("*")) == before


def test_coco_says_the_same_as_voc(tmp_path: Path) -> None:
    a = load(voc(tmp_path / "a", IMAGES))
    for name in IMAGES:
        (tmp_path / "b" / "images").mkdir(parents=True, exist_ok=True)
        (tmp_path / "b" / "images" / f"{name}.jpg").write_bytes(jpeg())
    (tmp_path / "b" / "annotations").mkdir()
    (tmp_path / "b" / "annotations" / "instances.json").write_text(coco(IMAGES, {3: "cat", 7: "dog"}))
    b = load(tmp_path / "b")
    assert b.classes == a.classes
    assert b.fingerprint == a.fingerprint


def test_coco_splits_go_by_the_names_of_the_files(tmp_path: Path) -> None:
    names = list(IMAGES)
    for split, part in (("train", names[:6]), ("val", names[6:8]), ("test", names[8:])):
        (tmp_path / f"instances_{split}2017.json").write_text(coco({n: IMAGES[n] for n in part}, {1: "cat", 2: "dog"}))
    for name in IMAGES:
        (tmp_path / f"{name}.jpg").write_bytes(jpeg())
    task = load(tmp_path)
    assert [len(split) for split in (task.train, task.validation, task.test)] == [6, 2, 2]


def test_what_is_wrong_with_boxes_and_images_is_counted(tmp_path: Path) -> None:
    images = IMAGES | {
        "out": [("cat", 100, 100, 120, 120), ("cat", 5, 5, 20, 20)],
        "over": [("cat", 50, 30, 90, 60)],
        "flat": [("dog", 5, 5, 5, 20)],
        "none": [],
        "broken": [("cat", 1, 1, 9, 9)],
        "missing": [("cat", 1, 1, 9, 9)],
    }
    folder = voc(tmp_path / "d", images)
    (folder / "JPEGImages" / "broken.jpg").write_bytes(jpeg()[:200])
    (folder / "JPEGImages" / "missing.jpg").unlink()
    task = load(folder)
    assert sum(map(len, (task.train, task.validation, task.test))) == len(images) - 2
    assert reasons(task) == {
        "boxes outside their image: left out": 1,
        "boxes that reach out of their image: cut to it": 1,
        "boxes without width or height: left out": 1,
        "images without boxes: kept, to learn what is none": 2,
        "images that cannot be read: left out": 1,
        "images that are missing: left out": 1,
    }
    assert any("broken.jpg" in exclusion.reason for exclusion in task.skipped)


def test_crowds_are_counted(tmp_path: Path) -> None:
    document = json.loads(coco(IMAGES, {1: "cat", 2: "dog"}))
    document["annotations"][0]["iscrowd"] = 1
    (tmp_path / "all.json").write_text(json.dumps(document))
    for name in IMAGES:
        (tmp_path / f"{name}.jpg").write_bytes(jpeg())
    assert reasons(load(tmp_path)) == {"regions of crowds: left out": 1}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("<annotation>", "not valid XML"),
        ('<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation/>', "document type"),
        ("<annotation><object><name>cat</name></object></annotation>", "without <bndbox>"),
        (xml([("", 1, 2, 3, 4)]), "without <name>"),
        (xml([("cat", "a", 2, 3, 4)]), "edges"),  # type: ignore[list-item]
        (xml([("cat", float("nan"), 2, 3, 4)]), "edges"),
    ],
)
def test_bad_annotations_are_refused(tmp_path: Path, content: str, words: str) -> None:
    folder = voc(tmp_path / "d", IMAGES)
    (folder / "Annotations" / "i3.xml").write_text(content)
    refuse(words, folder)


def test_a_document_type_in_another_encoding_is_refused(tmp_path: Path) -> None:
    folder = voc(tmp_path / "d", IMAGES)
    text = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY e "cat">]><annotation/>'
    (folder / "Annotations" / "i3.xml").write_bytes(text.encode("utf-16"))
    refuse("document type", folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"annotations": [{"image_id": 0, "category_id": 9, "bbox": [1, 2, 3, 4]}]}, "an annotation that is none"),
        ({"annotations": [{"image_id": 0, "category_id": 1, "bbox": [1, 2, 3]}]}, "an annotation that is none"),
        ({"annotations": [{"image_id": 99, "category_id": 1, "bbox": [1, 2, 3, 4]}]}, "does not list"),
        ({"images": [{"id": 0}]}, "an image that is none"),
        ({"categories": [{"id": 1}]}, "a category that is none"),
        ({"categories": 3}, "neither"),
    ],
)
def test_bad_coco_is_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    document = json.loads(coco(IMAGES, {1: "cat", 2: "dog"})) | change
    (tmp_path / "all.json").write_text(json.dumps(document))
    refuse(words, tmp_path)


def test_other_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    refuse("not valid JSON", tmp_path)
    (tmp_path / "a.json").write_text("[]")
    refuse("neither", tmp_path)
    (tmp_path / "a.zip").write_bytes(b"PK nothing")
    refuse("no folder and no .zip", tmp_path / "a.zip")
    refuse("no file or folder", tmp_path / "b")


def test_data_without_boxes_or_images_is_refused(tmp_path: Path) -> None:
    refuse("no boxes at all", voc(tmp_path / "a", {name: [] for name in IMAGES}))
    folder = voc(tmp_path / "b", IMAGES)
    for path in (folder / "JPEGImages").iterdir():
        path.unlink()
    refuse("none of the images", folder)
    refuse("none of the images", folder, ())


def test_an_image_of_two_splits_is_refused(tmp_path: Path) -> None:
    refuse("both train and test", voc(tmp_path / "a", IMAGES, {"train": ["i0", "i1"], "test": ["i1"]}))


def test_a_size_must_be_two_numbers(tmp_path: Path) -> None:
    folder = voc(tmp_path / "a", IMAGES)
    refuse("reading.size", folder, (3, 3), UsageError)
    refuse("reading.size", folder, (32,), UsageError)


@given(st.lists(st.tuples(*[st.integers(-50, 150)] * 4), max_size=8))
def test_every_box_is_kept_inside_its_image_or_counted(edges: list[tuple[int, int, int, int]]) -> None:
    boxes = np.array([(1, *e) for e in edges], float).reshape(-1, 5)
    skipped = Skipped()
    kept = _inside(Annotated("a", 1, boxes), (0.5, 2.0), (48, 64), skipped)
    counts = {reason: len(images) for reason, images in skipped.found.items()}
    left_out = sum(count for reason, count in counts.items() if "left out" in reason)
    assert len(kept) + left_out == len(edges)
    assert ((kept[:, 3:] - kept[:, 1:3]) > 0).all()
    assert (kept[:, 1:] >= 0).all()
    assert (kept[:, 1:] <= [64, 48, 64, 48]).all()

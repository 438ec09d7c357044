"""COCO: a JSON file of images, categories and annotations for each split (Lin et al. 2014, arXiv:1405.0312)."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from sizewise.errors import DataError
from sizewise.tasks.detection.annotated import Annotated, Skipped
from sizewise.tasks.detection.files import Files

_SPLITS = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}
_KEYS = ("images", "annotations", "categories")


def read(files: Files, skipped: Skipped) -> tuple[dict[str, list[Annotated]], tuple[str, ...]]:
    """Images by split, and the names of the classes in the order of the categories' ids.

    Raises:
        DataError: no such file, several for one split, or one that contradicts itself.
    """
    documents = {name: content for name in files.names if (content := _document(files, name)) is not None}
    if not documents:
        raise DataError(
            f"{files.path} has neither Annotations/*.xml (Pascal VOC) nor a .json with images, annotations and "
            "categories (COCO)",
            hint="give a folder or .zip of one of these forms",
        )
    by_split = _by_split(files, documents)
    categories = _categories(files, documents)
    numbers = {key: place + 1 for place, key in enumerate(categories)}
    groups, before, owner = {}, 0, dict[str, str]()
    for split, name in by_split.items():
        images = _images(files, name, documents[name], numbers, before, skipped)
        before += len(documents[name]["images"])
        groups[split] = images
        for image in images:
            if owner.setdefault(image.file, split) != split:
                raise DataError(
                    f"{files.path} has {image.file} in both {owner[image.file]} and {split}",
                    hint="an image belongs to one split: remove it from the other file",
                )
    return groups, tuple(categories.values())


def _document(files: Files, name: str) -> dict[str, Any] | None:
    """The content of a file that looks like COCO's, None of any other."""
    if not name.lower().endswith(".json"):
        return None
    try:
        content = json.loads(files.read(name))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{files.path}: {name} is not valid JSON: {error}", hint="repair or remove it") from error
    return content if isinstance(content, dict) and all(isinstance(content.get(k), list) for k in _KEYS) else None


def _by_split(files: Files, documents: dict[str, Any]) -> dict[str, str]:
    """The file of each split; a single one is everything, and is split later."""
    if len(documents) == 1:
        return {"train": next(iter(documents))}
    found: dict[str, str] = {}
    for name in documents:
        stem = PurePosixPath(name).stem.lower()
        split = next((split for split, words in _SPLITS.items() if any(word in stem for word in words)), None)
        if split is None or split in found:
            other = f" as {found[split]} is" if split in found else ""
            raise DataError(
                f"{files.path}: {name} is not named after one split of its own{other}",
                hint="name one file after each of train, val and test",
            )
        found[split] = name
    if "train" not in found:
        raise DataError(f"{files.path} has {', '.join(found)}, without train", hint="add the file of the split train")
    return {split: found[split] for split in _SPLITS if split in found}


def _categories(files: Files, documents: dict[str, Any]) -> dict[int, str]:
    """Names by id; every file says the same."""
    found: dict[int, str] = {}
    for name, document in documents.items():
        for item in document["categories"]:
            try:
                key, title = int(item["id"]), str(item["name"])
            except (TypeError, KeyError, ValueError) as error:
                raise _damaged(files, name, "a category", item) from error
            if found.setdefault(key, title) != title:
                raise DataError(
                    f"{files.path}: category {key} is {found[key]!r} in one file and {title!r} in {name}",
                    hint="give all files the same categories",
                )
    return dict(sorted(found.items()))


def _images(
    files: Files, name: str, document: dict[str, Any], numbers: dict[int, int], before: int, skipped: Skipped
) -> list[Annotated]:
    boxes: dict[Any, list[tuple[float, ...]]] = {}
    crowds: dict[Any, int] = {}
    for item in document["annotations"]:
        try:
            key, row = item["image_id"], _row(item, numbers)
        except (TypeError, KeyError, ValueError) as error:
            raise _damaged(files, name, "an annotation", item) from error
        if item.get("iscrowd"):
            crowds[key] = crowds.get(key, 0) + 1
        else:
            boxes.setdefault(key, []).append(row)
    images = []
    for number, item in enumerate(document["images"], before + 1):
        try:
            key, file = item["id"], str(item["file_name"])
        except (TypeError, KeyError) as error:
            raise _damaged(files, name, "an image", item) from error
        image = _image(files, name, file, number, boxes.pop(key, []))
        if key in crowds:
            skipped.note("regions of crowds: left out", image, crowds.pop(key))
        if image.file not in files:
            skipped.note("images that are missing: left out", image)
        else:
            images.append(image)
    if boxes:
        raise DataError(
            f"{files.path}: {name} has boxes of image {next(iter(boxes))!r}, which it does not list",
            hint="list the image, or remove its boxes",
        )
    return images


def _row(item: dict[str, Any], numbers: dict[int, int]) -> tuple[float, ...]:
    """Class from 1 and edges of an annotation, whose box is left, top, width, height."""
    left, top, width, height = map(float, item["bbox"])
    row = (numbers[int(item["category_id"])], left, top, left + width, top + height)
    if not np.isfinite(row).all():
        raise ValueError(row)
    return row


def _image(files: Files, name: str, file: str, number: int, rows: list[tuple[float, ...]]) -> Annotated:
    """The image of this file name: beside the JSON, beside its folder, or anywhere if the name is unique."""
    folder = PurePosixPath(name).parent
    found = files.find(str(folder / file), str(folder.parent / "images" / file), str(folder.parent / file), file)
    return Annotated(found or file, number, np.array(rows, float).reshape(-1, 5))


def _damaged(files: Files, name: str, what: str, item: object) -> DataError:
    shown = repr(item)[:120]
    return DataError(
        f"{files.path}: {name} has {what} that is none: {shown}",
        hint="see the COCO format: images have id and file_name; annotations image_id, category_id and bbox",
    )

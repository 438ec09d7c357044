"""Pascal VOC: one XML file an image, and lists of the images of each split (Everingham et al. 2010)."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from sizewise.errors import DataError
from sizewise.tasks.detection.annotated import Annotated, Skipped
from sizewise.tasks.detection.files import Files

SPLITS = ("train", "val", "test")
EDGES = ("xmin", "ymin", "xmax", "ymax")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp", ".webp")

Objects = list[tuple[str, tuple[float, ...]]]


def found(files: Files) -> bool:
    """Whether there are annotations of this form."""
    return bool(_annotations(files))


def read(files: Files, skipped: Skipped) -> tuple[dict[str, list[Annotated]], tuple[str, ...]]:
    """Images by split, and the names of the classes in alphabetical order.

    Raises:
        DataError: an annotation that is no XML, has a document type, or a box that is no box.
    """
    annotations = _annotations(files)
    members = _members(files, annotations, skipped)
    parsed = {stem: _parse(files, annotations[stem]) for stems in members.values() for stem in stems}
    classes = tuple(sorted({name for objects, _ in parsed.values() for name, _ in objects}))
    numbers = {stem: number for number, stem in enumerate(annotations, 1)}
    groups: dict[str, list[Annotated]] = {}
    for split, stems in members.items():
        images = [_image(files, annotations[stem], *parsed[stem], classes, numbers[stem]) for stem in stems]
        for image in images:
            if image.file not in files:
                skipped.note("images that are missing: left out", image)
        groups[split] = [image for image in images if image.file in files]
    return groups, classes


def _annotations(files: Files) -> dict[str, str]:
    """The XML files in `Annotations`, by stem."""
    paths = [PurePosixPath(name) for name in files.names if name.lower().endswith(".xml")]
    return {path.stem: str(path) for path in paths if path.parent.name == "Annotations"}


def _members(files: Files, annotations: dict[str, str], skipped: Skipped) -> dict[str, list[str]]:
    """Stems of each split; without lists all are one that is split later."""
    lists = {split: files.find(*_list_names(annotations, split)) for split in SPLITS}
    if lists["train"] is None:
        if any(lists.values()):
            raise DataError(
                f"{files.path} has lists of images in ImageSets/Main, and none is train.txt",
                hint="add train.txt, or remove the lists and the images are divided",
            )
        return {"train": list(annotations)}
    members, owner = {}, dict[str, str]()
    for split, name in lists.items():
        if name is None:
            continue
        stems = list(dict.fromkeys(line.split()[0] for line in _lines(files, name) if line.split()))
        for stem in stems:
            if stem not in annotations:
                skipped.note("listed images without an annotation: left out", Annotated(stem, 0, np.empty((0, 5))))
            elif owner.setdefault(stem, split) != split:
                raise DataError(
                    f"{files.path} lists {stem!r} in both {owner[stem]} and {split}",
                    hint="an image belongs to one split: remove it from the other list",
                )
        members[split] = [stem for stem in stems if stem in annotations]
    for number, stem in enumerate(annotations, 1):
        if stem not in owner:
            skipped.note("annotated images that no split lists: left out", Annotated(stem, number, np.empty((0, 5))))
    return members


def _list_names(annotations: dict[str, str], split: str) -> list[str]:
    roots = dict.fromkeys(PurePosixPath(path).parent.parent for path in annotations.values())
    return [str(root / "ImageSets" / "Main" / f"{split}.txt") for root in roots]


def _lines(files: Files, name: str) -> Sequence[str]:
    return files.read(name).decode("utf-8", "replace").splitlines()


class _DocumentTypeError(Exception):
    """A document type declares entities, and those may be other files or endless."""


class _Builder(ET.TreeBuilder):
    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Called by the parser before anything is declared."""
        raise _DocumentTypeError(name)


def _parse(files: Files, name: str) -> tuple[Objects, str]:
    """The named boxes of one annotation, and the file name of its image."""
    content = files.read(name)
    where = f"{files.path}: {name}"
    try:
        root = ET.fromstring(content, ET.XMLParser(target=_Builder()))
    except _DocumentTypeError as error:
        raise DataError(
            f"{where} has a document type, which may refer to other files", hint="remove the declaration"
        ) from error
    except (ET.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{where} is not valid XML: {error}", hint="repair or remove the file") from error
    objects = [(_text(item, "name", where), _edges(item, where)) for item in root.iter("object")]
    return objects, (root.findtext("filename") or "").strip()


def _text(item: ET.Element, key: str, where: str) -> str:
    text = (item.findtext(key) or "").strip()
    if not text:
        raise DataError(f"{where} has an object without <{key}>", hint="add it, or remove the object")
    return text


def _edges(item: ET.Element, where: str) -> tuple[float, ...]:
    box = item.find("bndbox")
    if box is None:
        raise DataError(f"{where} has an object without <bndbox>", hint="add it, or remove the object")
    texts = [_text(box, edge, where) for edge in EDGES]
    try:
        values = tuple(map(float, texts))
    except ValueError as error:
        raise DataError(f"{where} has a box with the edges {texts}", hint="edges are numbers of pixels") from error
    if not np.isfinite(values).all():
        raise DataError(f"{where} has a box with the edges {texts}", hint="edges are numbers of pixels")
    return values


def _image(
    files: Files, annotation: str, objects: Objects, named: str, classes: tuple[str, ...], number: int
) -> Annotated:
    """The image beside an annotation: of the same stem, or else of the name that the annotation gives."""
    path = PurePosixPath(annotation)
    folder = path.parent.parent / "JPEGImages"
    names = [str(folder / f"{path.stem}{end}") for end in EXTENSIONS]
    file = files.find(*names, *([str(folder / PurePosixPath(named).name)] if named else []))
    rows = [(classes.index(name) + 1, *edges) for name, edges in objects]
    return Annotated(file or names[0], number, np.array(rows, float).reshape(-1, 5))

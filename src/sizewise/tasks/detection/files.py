"""The files of a folder or of a .zip, by name; members of an archive are read where they are."""

from __future__ import annotations

import zipfile
from collections import Counter
from io import BytesIO
from pathlib import Path, PurePosixPath
from types import TracebackType

from sizewise.errors import DataError

LARGEST = 1 << 30
"""Bytes of the largest member that is unpacked: an archive of a few bytes may claim to hold any number of them."""


class Files:
    """Read-only files under `path`, named as in it with forward slashes; hidden ones are left alone.

    Raises:
        DataError: it is no folder and no intact archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive = None if path.is_dir() else _archive(path)
        names = self._in_folder() if self._archive is None else self._in_archive(self._archive)
        self.names = sorted(name for name in names if not _hidden(name))
        self._known = set(self.names)
        self._stems = self._unique()

    def __enter__(self) -> Files:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._archive is not None:
            self._archive.close()

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def read(self, name: str) -> bytes:
        """The content of one of `names`.

        Raises:
            DataError: it is too large, or damaged.
        """
        try:
            if self._archive is None:
                return (self.path / name).read_bytes()
            if self._archive.getinfo(name).file_size > LARGEST:
                raise DataError(f"{self.path}: {name} is larger than {LARGEST:,} bytes", hint="remove the file")
            return self._archive.read(name)
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
            raise DataError(f"{self.path}: {name} cannot be read: {error}", hint="repair or remove the file") from error

    def find(self, *names: str) -> str | None:
        """The first of these that is there, by its full name, or else by its last part where that is unique."""
        for name in names:
            if name in self:
                return name
        for name in names:
            if found := self._stems.get(PurePosixPath(name).name):
                return found
        return None

    def picture_size(self, name: str) -> tuple[int, int] | None:
        """(width, height) of an image file; None when it is missing or none."""
        from PIL.Image import open as open_image

        if name not in self:
            return None
        try:
            with open_image(BytesIO(self.read(name))) as image:
                return image.size
        except Exception:  # decoders of damaged files raise whatever they stumble over
            return None

    def _in_folder(self) -> list[str]:
        return [p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file()]

    def _in_archive(self, archive: zipfile.ZipFile) -> list[str]:
        return [info.filename for info in archive.infolist() if not info.is_dir()]

    def _unique(self) -> dict[str, str]:
        counts = Counter(PurePosixPath(name).name for name in self.names)
        return {last: name for name in self.names if counts[last := PurePosixPath(name).name] == 1}


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is no folder and no .zip: {error}", hint="give the folder or the .zip with images and boxes"
        ) from error

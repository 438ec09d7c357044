"""Weights from a model hub, through huggingface_hub; the only file that knows it."""

from __future__ import annotations

from pathlib import Path

from sizewise.errors import DataError, UsageError, extra

FILE = "model.safetensors"


def download(name: str) -> Path:
    """The weights of a repository, in the library's own cache; one that is there already needs no network.

    Args:
        name: `owner/name`, or `owner/name@revision` for one commit, tag or branch.

    Raises:
        UsageError: that is no name of a repository.
        DataError: the hub cannot be reached, or has no such repository, revision or file.
        MissingExtraError: huggingface_hub is not installed.
    """
    with extra("hub", needed_for=f"weights from hf:{name}"):
        from huggingface_hub import errors, hf_hub_download
    repository, _, revision = name.partition("@")
    try:
        return Path(hf_hub_download(repository, FILE, revision=revision or None))
    except errors.HFValidationError as error:
        raise UsageError(
            f"{name!r} is no repository: {_first_line(error)}", hint="write hf:owner/name, or hf:owner/name@revision"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise DataError(
            f"hf:{name} cannot be downloaded: the hub cannot be reached, and the cache has no {FILE} of it",
            hint="run it once where there is a network, or give the .safetensors file itself",
        ) from error
    except (errors.EntryNotFoundError, errors.HfHubHTTPError, OSError) as error:
        raise DataError(
            f"hf:{name} cannot be downloaded: {_first_line(error)}",
            hint=f"the repository must be open to you and hold its weights in one {FILE}",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

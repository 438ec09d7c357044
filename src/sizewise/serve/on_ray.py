"""The same folders as a Ray Serve application: replicas of the server on the nodes of a cluster.

    serve run sizewise.serve.on_ray:build folders=/models/digits,/models/news replicas=2

Ray starts the replicas, routes requests to them and starts again those that end; each is the application of
`sizewise serve` with models, batches and limits of its own. Folders are read by the replicas, on their nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sizewise.errors import UsageError, extra
from sizewise.serve.run import app
from sizewise.serve.service import Options

with extra("ray", needed_for="serving on a Ray cluster"):
    from ray import serve
    from ray.serve import Application


def build(arguments: Mapping[str, str]) -> Application:
    """The application that `serve run` starts, from the arguments on its command line.

    Args:
        arguments: `folders`, by comma; `replicas` and `threads`, numbers that are 1 if not given.

    Raises:
        UsageError: another argument, no folder, or a number that is none.
    """
    unknown = set(arguments) - {"folders", "replicas", "threads"}
    folders = [Path(name) for name in arguments.get("folders", "").split(",") if name]
    numbers = {name: arguments.get(name, "1") for name in ("replicas", "threads")}
    if unknown or not folders or not all(number.isdecimal() and int(number) for number in numbers.values()):
        raise UsageError(
            f"the arguments are {dict(arguments)}",
            hint="give folders=FOLDER,FOLDER and, if need be, replicas=N threads=N",
        )
    return application(folders, Options(threads=int(numbers["threads"])), replicas=int(numbers["replicas"]))


def application(folders: Sequence[Path], options: Options = Options(), *, replicas: int = 1) -> Application:  # noqa: B008
    """A Ray Serve application of exported folders, or folders of their versions.

    Args:
        options: those of addresses and TLS are Ray's own affair, and not used.
    """

    @serve.deployment(name="sizewise", num_replicas=replicas, ray_actor_options={"num_cpus": options.threads})
    @serve.ingress(lambda: app(folders, options))
    class Server:
        """Each replica builds the application for itself: models do not travel."""

    return Server.bind()  # type: ignore[attr-defined]

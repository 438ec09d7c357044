"""Promises about the shape of the code: what is public, what is imported where, and that it speaks of itself alone."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sizewise

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "sizewise"

HOMES = {
    "openvino": "runtimes/openvino.py",
    "nncf": "compress/quantize.py",
    "executorch": "runtimes/executorch.py",
    "mlperf_loadgen": "runtimes/loadgen.py",
    "torch_pruning": (
        "compress/narrow.py",
        "compress/importance.py",
        "families/graph.py",
    ),  # cutting to a family's shape, what a unit counts, and the graph of both
    "optuna": "proposals.py",
    "starlette": "serve",
    "uvicorn": "serve/http.py",
    "uvloop": "serve/run.py",
    "grpc": "serve/rpc.py",
    "google": ("serve/messages.py", "serve/rpc.py"),
    "prometheus_client": "serve/metrics.py",
    # replicas of a server, trials, and the workers of one model
    "ray": ("serve/on_ray.py", "train/on_ray.py", "distributed/on_ray.py"),
    "fsspec": "shared.py",
    "orjson": "serve/wire.py",
    "tensorboard": "tracking.py",
    "rich": "console/progress.py",
    "jinja2": "report",
    "cattrs": "records/form.py",
    "tomli_w": "config.py",
    "filelock": "store.py",
    "pyarrow": "laws/intake/files.py",
    "soundfile": "tasks/audio.py",
    "kaldi_native_fbank": "tasks/audio.py",
    "jiwer": "tasks/problems/transcription.py",
    "kornia": "tasks/problems/augment.py",
}
"""The one place that may import a package only some users need, or that could be replaced."""


def imports(path: Path) -> set[str]:
    """Top-level names of everything a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize(("package", "home"), HOMES.items())
def test_a_dependency_has_one_home(package: str, home: str) -> None:
    users = {str(p.relative_to(SOURCE)) for p in SOURCE.rglob("*.py") if package in imports(p)}
    # A progress bar of a download is drawn where the download is.
    users -= {"tasks/download.py"} if package == "rich" else set()
    assert all(user.startswith(home) for user in users), users


def test_all_is_the_public_api() -> None:
    for name in sizewise.__all__:
        assert getattr(sizewise, name) is not None
    homes = {name: importlib.import_module(f"sizewise.{home}") for name, home in sizewise._HOMES.items()}
    assert set(homes) == set(sizewise.__all__)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from sizewise import cli; cli.parser().format_help(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "scipy", "sklearn", "onnxruntime", "rich", "cattrs"} & set(modules)


def test_nothing_is_pickled() -> None:
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        assert not {"pickle", "joblib", "dill"} & imports(path), path
        assert "torch.load(" not in text, path
        assert "torch.save(" not in text, path


def test_only_measure_reads_the_test_split() -> None:
    """`tasks` makes it, `check_task` looks for what it shares with the others, the report counts its examples and shows
    some; nobody else may touch it."""
    allowed = {"measure.py", "report/study_page.py", "report/pictures.py", "check.py"}
    for path in SOURCE.rglob("*.py"):
        name = str(path.relative_to(SOURCE))
        if name in allowed or name.startswith("tasks/"):
            continue
        assert not re.search(r"\btask\.test\b", path.read_text()), name


def test_public_functions_have_docstrings() -> None:
    for path in SOURCE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"

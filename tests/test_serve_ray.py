"""The server as a Ray Serve application, on a real cluster of two nodes on this machine."""

from __future__ import annotations

import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import tritonclient.http as triton
from ray import serve
from ray.cluster_utils import Cluster

from sizewise import runtimes
from sizewise.errors import UsageError
from sizewise.runtimes import Runtime
from sizewise.serve import on_ray
from tests.test_runtimes import images, write_folders
from tests.test_serve_operation import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(folders: dict[Runtime, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of versions."""
    place = tmp_path_factory.mktemp("served") / "digits"
    shutil.copytree(folders["onnxruntime"], place / "1")
    return place


def routed(url: str) -> bool:
    """Whether Ray's proxy has heard of the application: it is told some time after `serve.run` has returned."""
    try:
        return bool(urllib.request.urlopen(url).status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def address(ray_alone: None, root: Path) -> Iterator[str]:
    """Where Ray answers for two replicas, one on each node."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(on_ray.build({"folders": str(root), "replicas": "2"}))
        until(lambda: routed(f"http://127.0.0.1:{port}/-/healthz"))
        yield f"127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()


def test_a_client_of_the_protocol_is_answered(address: str, root: Path) -> None:
    client = triton.InferenceServerClient(address)
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    image = triton.InferInput("image", [3, *images(3).shape[1:]], "FP32")
    image.set_data_from_numpy(images(3))
    answer = client.infer("digits", [image]).as_numpy("logits")
    np.testing.assert_allclose(answer, runtimes.load(root / "1")(images(3)), rtol=1e-4, atol=1e-4)


def test_each_node_has_a_replica(address: str) -> None:
    from ray.util.state import list_actors

    actors = list_actors(filters=[("state", "=", "ALIVE")])
    replicas = [actor for actor in actors if "Replica" in actor.class_name]
    assert len({actor.node_id for actor in replicas}) == 2


def test_replicas_take_new_versions(address: str, root: Path, tmp_path: Path) -> None:
    wider = write_folders(tmp_path, width=12)["onnxruntime"]
    shutil.copytree(wider, root.parent / "coming")
    (root.parent / "coming").rename(root / "2")
    client = triton.InferenceServerClient(address)
    image = triton.InferInput("image", list(images(1).shape), "FP32")
    image.set_data_from_numpy(images(1))
    answers, end = [], time.monotonic() + 30
    while answers[-20:] != ["2"] * 20 and time.monotonic() < end:
        answers.append(client.infer("digits", [image]).get_response()["model_version"])
        time.sleep(0.05)
    assert answers[-20:] == ["2"] * 20, answers


def test_what_is_wrong_with_a_request_is_said_as_elsewhere(address: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://{address}/v2/models/nothing")
    assert caught.value.code == 404
    assert b"unknown model 'nothing'; served: digits" in caught.value.read()


@pytest.mark.parametrize(
    "arguments", [{}, {"folders": ""}, {"folders": "a", "replicas": "many"}, {"folders": "a", "replica": "2"}]
)
def test_arguments_that_are_wrong_are_refused(arguments: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"the arguments are .*\nhint: give folders=FOLDER"):
        on_ray.build(arguments)

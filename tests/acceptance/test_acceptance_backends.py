"""Devices that train with onnxruntime and devices that train with torch, in one round."""

import pytest

from schemas.envelope import decode_frame
from schemas.messages import Assignment
from tests.support.fleet import Shape, running_fleet
from tests.support.fleet_books import Books
from tests.support.fleet_watch import Tap

DEVICES = ("with-onnx", "with-torch")
#: Importing torch fails in every program that is started with this before the path.
NO_TORCH = "raise ImportError('torch is not to be imported here')\n"
TASK = {
    "model": "mlp",
    "data": "digits",
    "rounds": 3,
    "min_clients": 2,
    "codec": "raw-f32",
    "training": {"epochs": 1, "learning_rate": 0.1},
}


@pytest.fixture
def fleet(tmp_path):
    """Yield a fleet of one device of each kind; where torch cannot be imported there is none."""
    backends = {"with-onnx": "onnx", "with-torch": "torch"}
    shape = Shape(devices=DEVICES, regions=("north",), backends=backends)
    (tmp_path / "torchless" / "torch").mkdir(parents=True)
    (tmp_path / "torchless" / "torch" / "__init__.py").write_text(NO_TORCH)
    with running_fleet(
        tmp_path, shape, prepare=lambda fleet: without_torch(fleet, tmp_path / "torchless")
    ) as running:
        yield running


def without_torch(fleet, folder):
    fleet.program("with-onnx").environment["PYTHONPATH"] = str(folder)


@pytest.fixture
def tap(fleet):
    opened = Tap(fleet.broker.port, "fl/v1/#")
    yield opened
    opened.close()


def run(fleet, **fields):
    return fleet.complete(fleet.submit({**TASK, **fields}))


def test_one_round_holds_updates_of_both_backends(fleet):
    status = run(fleet, task="both")
    assert status["committed"] == 3
    books = Books(fleet.state_dir("central"), "both")
    books.check()
    assert books.recompute() == [record.model_sha256 for record in books.committed]
    assert {row.device for row in books.contributions()} == set(DEVICES)
    losses = {row.device: row.metrics["loss"] for row in books.contributions() if row.round == 1}
    assert losses["with-onnx"] == pytest.approx(losses["with-torch"], rel=0.5)
    assert "torch" not in fleet.program("with-onnx").maps()
    assert "onnxruntime" not in fleet.program("with-torch").maps()


def test_a_graph_is_pulled_once_by_who_trains_with_it_and_by_nobody_else(fleet, tap):
    run(fleet, task="once")
    tap.drain()
    assignments = [
        frame.body(Assignment)
        for message in tap.seen
        if message.topic.endswith("/dn/task")
        and (frame := decode_frame(message.payload)).header.type == Assignment.TYPE
    ]
    graphs = {assignment.graph.sha256 for assignment in assignments}
    assert len({assignment.round for assignment in assignments}) == 3
    assert len(graphs) == 1
    (sha256,) = graphs
    gets = [message.topic for message in tap.seen if message.topic.endswith("/up/get")]
    assert len([topic for topic in gets if "/gw/" in topic]) == 1
    assert not [topic for topic in gets if "with-torch" in topic]
    assert (fleet.state_dir("with-onnx") / "objects" / sha256).is_file()
    assert not (fleet.state_dir("with-torch") / "objects" / sha256).exists()
    for place in ("central", "gateway-north/models"):
        assert (fleet.folder / place / "objects" / sha256).is_file()


def test_a_task_may_demand_a_backend(fleet):
    run(fleet, task="only", min_clients=1, requires={"backend": "onnx"})
    books = Books(fleet.state_dir("central"), "only")
    assert {row.device for row in books.contributions()} == {"with-onnx"}

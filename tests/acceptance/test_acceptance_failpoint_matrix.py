"""Every failpoint of every program, killed at the first and at the third visit.

``make failpoints`` runs it whole and leaves a table; a normal run takes a few of them.
"""

import pytest

from tests.support.brokers import REPOSITORY, embedded_broker, mosquitto_broker
from tests.support.failpoint_matrix import KILLED, Cell, all_cells, running_matrix

#: Tables of the last whole runs.
TABLES = REPOSITORY / "runs" / "failpoints"
#: A broker that drops nothing: what the checker has not seen it cannot check.
UNLIMITED = "max_queued_messages 0\n"

#: One edge of each kind.
FEW = (
    Cell("central", "transport.commit.after"),
    Cell("central", "central.round.committed"),
    Cell("gateway", "gateway.custody.added"),
    Cell("gateway", "gateway.receipt.saved"),
    Cell("device", "device.update.stored"),
    Cell("device", "transport.ack.before"),
)
#: The edges that lean most on the broker: what it holds for a program that is away.
ON_THE_EMBEDDED_BROKER = (
    *FEW,
    Cell("central", "transport.publish.before"),
    Cell("central", "central.receipt.due"),
    Cell("gateway", "gateway.assignment.saved"),
    Cell("device", "device.receipt.applied"),
)


def tell(request, text):
    """Print past pytest's capture."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(text, flush=True)  # noqa: T201


def keep_report(request, matrix, name):
    report = matrix.report()
    TABLES.mkdir(parents=True, exist_ok=True)
    path = TABLES / f"{name}.txt"
    path.write_text(report + "\n", encoding="utf-8")
    tell(request, f"\n{report}\nwritten to {path}")


def play(request, matrix, cell):
    try:
        row = matrix.play(cell)
        assert row.hits[1] == KILLED
    finally:
        tell(request, "  ".join((*matrix.rows[-1].cells, matrix.rows[-1].fault)))


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    folder = tmp_path_factory.mktemp("few")
    with mosquitto_broker(extra=UNLIMITED) as broker, running_matrix(folder, broker) as running:
        yield running


@pytest.fixture(scope="module")
def whole(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    with mosquitto_broker(extra=UNLIMITED) as broker, running_matrix(folder, broker) as running:
        yield running
        programs = sorted({row.cell.program for row in running.rows})
        keep_report(request, running, "-".join(["mosquitto", *programs]))


@pytest.fixture(scope="module")
def embedded(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedded")
    with embedded_broker() as broker, running_matrix(folder, broker, "3.1.1") as running:
        yield running
        keep_report(request, running, "embedded")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("cell", FEW, ids=str)
def test_killed_at_one_edge_of_each_kind_nothing_is_lost_or_counted_twice(few, cell):
    row = few.play(cell)
    assert row.hits == dict.fromkeys(cell.hits, KILLED)


@pytest.mark.matrix
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("cell", all_cells(), ids=str)
def test_killed_at_any_edge_nothing_is_lost_or_counted_twice(request, whole, cell):
    play(request, whole, cell)


@pytest.mark.matrix
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("cell", ON_THE_EMBEDDED_BROKER, ids=str)
def test_on_the_embedded_broker_nothing_is_lost_or_counted_twice(request, embedded, cell):
    play(request, embedded, cell)


def test_the_chosen_ones_are_in_the_matrix():
    assert set(ON_THE_EMBEDDED_BROKER) <= set(all_cells())
    assert len(ON_THE_EMBEDDED_BROKER) == 10

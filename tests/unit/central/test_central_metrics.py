"""What Prometheus reads of central: what has happened, and how things stand."""

from dataclasses import replace
from typing import get_args

import pytest

from central.core.round_events import (
    AggregationFailed,
    AggregationInterrupted,
    BidsGranted,
    Cause,
    ClientFailed,
    ClientLost,
    ReplacementsSought,
    TaskEnded,
    TimePassed,
    cause_of,
)
from central.service.standing import take_standing
from tests.support.central_fixture import CentralRig, TinyModeler, begin
from tests.support.scraping import scraped_central
from transport.database import transaction
from transport.events import Connected, MessageArrived

P = "fedfleet_central_"


class Measured(TinyModeler):
    accuracies = (0.5, 0.75, 0.875)


@pytest.fixture
def rig(tmp_path):
    made = CentralRig(tmp_path, Measured())
    yield made
    made.connection.close()


@pytest.fixture
def scraped(rig):
    made = scraped_central(rig)
    yield made
    made.metrics.close()


def test_a_round_is_counted_with_its_updates_and_their_bytes(rig, scraped):
    job = begin(rig)
    rig.now_s += 3.0
    rig.update("a", job)
    rig.update("a", job)
    rig.update("b", job)
    rig.work()
    rig.update("c", job)
    page = scraped.scrape()
    assert page.value(f"{P}rounds_total", outcome="committed", cause="none") == 1
    assert page.value(f"{P}round_duration_seconds_sum", outcome="committed") == 3.0
    assert page.value(f"{P}receipts_total", status="accepted", code="none") == 2
    assert page.value(f"{P}receipts_total", status="duplicate", code="none") == 1
    assert page.value(f"{P}receipts_total", status="late", code="E_LATE") == 1
    assert page.value(f"{P}contributions_total", outcome="counted") == 2
    assert page.value(f"{P}contributions_total", outcome="discarded") == 0
    assert page.value(f"{P}clients_selected_total") == 3
    sizes = [row.size for row in rig.store.contributions("t", 1)]
    assert page.value(f"{P}update_payload_bytes_total", codec="raw-f32") == sum(sizes)
    assert page.value(f"{P}update_uncompressed_bytes_total", codec="raw-f32") == 2 * 8 * 4
    wire = sum(row.uplink_wire_bytes for row in rig.store.contributions("t", 1))
    assert page.value(f"{P}uplink_wire_bytes_total") == wire > sum(sizes)
    assert page.value(f"{P}downlink_payload_bytes_total") == 3 * job.model.size


def test_heavy_steps_are_timed_by_kind_and_outcome(rig, scraped):
    job = begin(rig, model_params={})
    rig.update("a", job)
    rig.update("b", job)
    rig.work()
    rig.submit(task="broken", model_params={"broken": True})
    rig.control("t", "cancel")
    rig.work()
    page = scraped.scrape()
    count = f"{P}job_duration_seconds_count"
    assert page.value(count, job="preparation", outcome="done") == 1
    assert page.value(count, job="preparation", outcome="failed") == 1
    assert page.value(count, job="aggregation", outcome="done") == 1
    assert page.value(count, job="evaluation", outcome="done") == 1
    assert page.value(count, job="export", outcome="done") == 1
    assert page.value(f"{P}tasks_ended_total", state="cancelled") == 1
    assert page.value(f"{P}tasks_ended_total", state="failed") == 1


def test_what_stands_is_told_with_zeros(rig, scraped):
    job = begin(rig, rounds=3)
    rig.gateway("us", "online")
    rig.device("x", "us")
    rig.gateway("us", "offline")
    rig.device("c", status="offline")
    rig.gateway("eu", silent=("b",))
    page = scraped.scrape()
    assert page.value(f"{P}tasks", state="running") == 1
    assert page.value(f"{P}tasks", state="waiting") == 0
    assert page.value(f"{P}open_rounds", phase="reporting") == 1
    devices = {
        state: page.value(f"{P}devices", region="eu", state=state)
        for state in ("online", "silent", "offline", "unreachable")
    }
    assert devices == {"online": 1, "silent": 1, "offline": 1, "unreachable": 0}
    assert page.value(f"{P}devices", region="us", state="unreachable") == 1
    assert page.value(f"{P}gateways", state="online") == 1
    assert page.value(f"{P}gateways", state="offline") == 1
    assert page.value(f"{P}task_committed_rounds", task="t") == 0
    assert page.value(f"{P}snapshot_age_seconds") == 0
    assert job.round == 1


def test_a_task_is_told_with_its_last_metric_for_a_while_after_its_end(rig, scraped):
    job = begin(rig, rounds=1)
    rig.update("a", job)
    rig.update("b", job)
    rig.work()
    told = {"task": "t", "metric": "accuracy"}
    assert rig.status("t").state == "completed"
    assert scraped.scrape().value(f"{P}task_metric", **told) == 0.5
    rig.now_s += 601
    assert scraped.scrape().value(f"{P}task_metric", **told) is None


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        (TimePassed(1.0), "deadline"),
        (BidsGranted(frozenset(), 3), "budget"),
        (AggregationFailed("raised"), "aggregation"),
        (AggregationInterrupted(was_clean=False), "aggregation"),
        (TaskEnded("cancelled"), "task"),
        (ClientFailed("a"), "clients"),
        (ClientLost("a"), "clients"),
        (ReplacementsSought(frozenset()), "clients"),
    ],
)
def test_the_event_that_ends_a_round_is_its_cause(event, cause):
    assert cause_of(event) == cause
    assert cause in get_args(Cause)


def test_abandoned_rounds_are_counted_by_cause(rig, scraped):
    begin(rig, on_shortfall="abandon", deadline_s=50)
    rig.tick(51)  # the deadline
    job = rig.newest()
    rig.job("a", job, "failed", code="error")
    rig.job("b", job, "failed", code="error")  # too few clients
    rig.tick()
    rig.control("t", "cancel")
    page = scraped.scrape()
    found = {
        c: page.value(f"{P}rounds_total", outcome="abandoned", cause=c) for c in get_args(Cause)
    }
    assert found == {"deadline": 1, "clients": 1, "task": 1, "budget": 0, "aggregation": 0}


def test_no_label_is_a_device_unless_that_is_asked_for(rig, tmp_path):
    plain, full = scraped_central(rig), scraped_central(rig, metrics_device_labels=True)
    job = begin(rig)
    rig.update("a", job)
    page = full.scrape()
    assert page.value(f"{P}device_online", region="eu", device="a") == 1
    assert page.value(f"{P}device_updates_total", region="eu", device="a") == 1
    rig.handler = plain.loop._handler
    labels = set().union(*plain.scrape().labels.values())
    assert "device" not in labels
    for made in (plain, full):
        made.metrics.close()


def test_counts_of_the_loop_and_its_session_are_read_as_they_are(rig, scraped):
    rig.events.put(Connected("main"))
    rig.events.put(MessageArrived("main", "fl/v1/gw/eu/up/state", b"?", False, lambda: None))
    scraped.loop.turn()
    page = scraped.scrape()
    (refused,) = [
        (dict(labels)["code"], value)
        for (name, labels), value in page.values.items()
        if name == f"{P}messages_refused_total"
    ]
    assert refused[0].startswith("E_")
    assert refused[1] == 1
    assert page.value(f"{P}events_handled_total") == 2
    assert page.value(f"{P}mqtt_connections_total", session="main") == 1
    assert page.value(f"{P}mqtt_connected", session="main") == 1
    assert page.value(f"{P}mqtt_sent_bytes_total", session="main") == 1000
    assert page.value(f"{P}mqtt_received_bytes_total", session="main") == 2000
    assert page.value(f"{P}commit_duration_seconds_count") >= 1
    assert page.value(f"{P}database_bytes") > 4096
    assert page.value(f"{P}state_free_bytes") > 0


def test_a_look_at_ten_thousand_devices_asks_the_database_no_more_than_one_at_a_few(rig):
    rig.device("d0")
    known = rig.store.device("d0")

    def asked():
        statements = []
        rig.connection.set_trace_callback(statements.append)
        standing = take_standing(rig.desk, rig.now_s)
        rig.connection.set_trace_callback(None)
        return len(statements), len(standing.devices)

    few = asked()
    with transaction(rig.connection):
        for number in range(10_000):
            rig.store.save_device(replace(known, device=f"d{number}"))
    assert few[0] > 0
    assert asked() == (few[0], 10_000)

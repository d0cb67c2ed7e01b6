"""Nothing grows for ever: receipts and assignments go after 7 days, devices after 30."""

from contextlib import closing

import pytest

from regional_gateway.adapters.store import (
    ASSIGNMENTS_KEPT_S,
    DEVICES_KEPT_S,
    RECEIPTS_KEPT_S,
    SCHEMA,
    SCHEMA_VERSION,
    SqliteStore,
)
from regional_gateway.core.roster import Presence
from regional_gateway.service.ports import AssignmentRow, FinalReceipt, StatusRow
from schemas.messages import ObjectManifest
from transport.database import open_database

DAY_S = 86_400.0
NOW_S = 1_760_000_000.0
MODEL = ObjectManifest(sha256="ab" * 32, size=1)


@pytest.fixture
def store(tmp_path):
    with closing(open_database(tmp_path / "g.db", SCHEMA, SCHEMA_VERSION)) as connection:
        yield SqliteStore(connection)


def test_the_times_are_those_that_are_promised():
    assert (RECEIPTS_KEPT_S, ASSIGNMENTS_KEPT_S) == (7 * DAY_S, 7 * DAY_S)
    assert DEVICES_KEPT_S == 30 * DAY_S


@pytest.mark.parametrize(("age_s", "is_kept"), [(7 * DAY_S - 1, True), (7 * DAY_S + 1, False)])
def test_a_final_receipt_is_repeated_for_seven_days(store, age_s, is_kept):
    store.save_receipt(FinalReceipt("x", "a", b"frame"), NOW_S - age_s)
    store.purge(NOW_S)
    assert (store.final_receipt("x") is not None) == is_kept


@pytest.mark.parametrize(("age_s", "is_kept"), [(7 * DAY_S - 1, True), (7 * DAY_S + 1, False)])
def test_an_assignment_goes_with_its_statuses_after_seven_days(store, age_s, is_kept):
    row = AssignmentRow("t", 1, ("a",), NOW_S, MODEL, NOW_S - age_s)
    store.save_assignment(row, b"frame")
    store.save_status(StatusRow("a", ("t", 1), (1, 1), "training", b"frame"))
    store.purge(NOW_S)
    assert bool(store.assignments()) == is_kept
    assert bool(store.statuses()) == is_kept


@pytest.mark.parametrize(
    ("is_online", "age_s", "is_kept"),
    [
        (False, 30 * DAY_S - 1, True),
        (False, 30 * DAY_S + 1, False),
        (True, 90 * DAY_S, True),
    ],
)
def test_only_a_device_that_is_long_gone_is_forgotten(store, is_online, age_s, is_kept):
    store.save_device(Presence("a", 1, 1, is_online, NOW_S - age_s), b"frame")
    store.purge(NOW_S)
    assert (store.presence("a") is not None) == is_kept


def test_signs_of_life_of_devices_that_are_not_known_do_not_pile_up(rig):
    rig.born("a")
    devices = rig.parts.devices
    for number in range(50):
        devices.on_sign_of_life(f"stranger-{number}", 1, rig.now_s)
    assert len(devices._seen_s) == 51
    rig.pass_time(301.0, step_s=100.0)
    assert set(devices._seen_s) == {"a"}
    assert devices._asked_s == {}


def test_the_region_counts_what_its_gateway_has_parked(make_rig):
    from transport.parking import Parking  # noqa: PLC0415

    rig = make_rig().connect()
    Parking(rig.connection).park(object(), "KeyError: 'x'", 3, rig.now_s)
    rig.pass_time(2.0)
    assert rig.parts.devices._published.parked == 1

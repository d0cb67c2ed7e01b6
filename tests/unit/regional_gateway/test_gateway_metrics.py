"""What Prometheus reads of a gateway: custody, receipts, devices."""

import pytest
from gateway_rig import large

from schemas.limits import MIB
from schemas.topics import Kind
from tests.support.scraping import scraped_gateway

P = "fedfleet_gateway_"


@pytest.fixture
def scraped(rig):
    made = scraped_gateway(rig)
    rig.connect()
    yield made
    made.metrics.close()


def test_custody_is_told_from_the_taking_to_the_end(rig, scraped):
    (device,) = rig.born("a")
    rig.offer(device, b"update")
    rig.pass_time(2.0)
    page = scraped.scrape()
    assert page.value(f"{P}outbox_updates") == 1
    assert page.value(f"{P}outbox_oldest_seconds") == pytest.approx(2.0)
    assert page.value(f"{P}custody_bytes") == len(b"update")
    assert page.value(f"{P}custody_quota_bytes") == 1024 * MIB
    assert page.value(f"{P}custody_taken_total") == 1
    assert page.value(f"{P}custody_taken_bytes_total") == len(b"update")
    assert page.value(f"{P}receipts_total", origin="gateway", status="held", code="none") == 1
    rig.receipt(device, b"update")
    page = scraped.scrape()
    assert page.value(f"{P}outbox_updates") == 0
    assert page.value(f"{P}outbox_oldest_seconds") == 0
    assert page.value(f"{P}receipts_total", origin="central", status="accepted", code="none") == 1
    assert page.value(f"{P}custody_duration_seconds_count") == 1
    assert page.value(f"{P}custody_duration_seconds_sum") == pytest.approx(2.0)


def test_an_update_that_is_offered_twice_is_taken_once(rig, scraped):
    (device,) = rig.born("a")
    rig.offer(device, b"update")
    rig.offer(device, b"update")
    assert scraped.scrape().value(f"{P}custody_taken_total") == 1


def test_a_large_update_is_a_transfer_then_in_custody(rig, scraped):
    (device,) = rig.born("a")
    data = large()
    rig.offer(device, data, inline=False)
    page = scraped.scrape()
    assert page.value(f"{P}transfers") == 1
    assert page.value(f"{P}custody_promised_bytes") == len(data)
    rig.pass_time(3.0)
    rig.give_chunks(device, data)
    page = scraped.scrape()
    assert page.value(f"{P}transfers") == 0
    assert page.value(f"{P}custody_promised_bytes") == 0
    assert page.value(f"{P}custody_bytes") == len(data)
    assert page.value(f"{P}custody_taken_bytes_total") == len(data)


def test_a_refusal_is_counted_with_its_code(rig, make_rig):
    rig.close()
    small = make_rig(custody_quota_bytes=MIB)
    scraped = scraped_gateway(small)
    small.connect()
    (device,) = small.born("a")
    small.offer(device, large(MIB), inline=False)
    small.offer(device, large(MIB, seed=1), inline=False)
    page = scraped.scrape()
    assert (
        page.value(f"{P}receipts_total", origin="gateway", status="rejected", code="E_QUOTA") == 1
    )
    scraped.metrics.close()


def test_devices_are_told_by_state(rig, scraped):
    _, second, _ = rig.born("a", "b", "c")
    rig.from_device(second, Kind.STATE, second.state("offline"))
    rig.pass_time(60.0, step_s=30.0)
    (third,) = rig.born("d")
    rig.pass_time(60.0, step_s=30.0)
    page = scraped.scrape()
    found = {s: page.value(f"{P}devices", state=s) for s in ("online", "silent", "offline")}
    assert found == {"online": 1, "silent": 2, "offline": 1}
    assert third.name == "d"
    assert "device" not in set().union(*page.labels.values())


def test_a_device_is_a_label_if_that_is_asked_for(rig):
    scraped = scraped_gateway(rig, metrics_device_labels=True)
    rig.connect()
    (device,) = rig.born("a")
    rig.offer(device, b"update")
    page = scraped.scrape()
    assert page.value(f"{P}device_online", device="a") == 1
    assert page.value(f"{P}device_updates_total", device="a") == 1
    scraped.metrics.close()


def test_both_sessions_are_told(rig, scraped):
    rig.disconnect("uplink")
    page = scraped.scrape()
    assert page.value(f"{P}mqtt_connected", session="uplink") == 0
    assert page.value(f"{P}mqtt_connected", session="downlink") == 1
    rig.connect("uplink")
    page = scraped.scrape()
    assert page.value(f"{P}mqtt_connections_total", session="uplink") == 2
    assert page.value(f"{P}mqtt_connections_total", session="downlink") == 1
    assert page.value(f"{P}mqtt_sent_bytes_total", session="downlink") == 1000


def test_a_full_disk_is_counted_and_leaves_the_old_gauges_with_their_age(rig, scraped):
    rig.born("a")
    assert scraped.scrape().value(f"{P}storage_failures_total") == 0
    rig.fail_next_commit()
    rig.loop.turn()
    rig.now_s += 40.0
    page = scraped.scrape(is_stuck=True)
    assert page.value(f"{P}storage_failures_total") == 1
    assert page.value(f"{P}snapshot_age_seconds") == 40.0
    assert page.value(f"{P}devices", state="online") == 1
    assert scraped.scrape().value(f"{P}snapshot_age_seconds") == 0

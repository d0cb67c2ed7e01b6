"""Updates that a gateway pulls in chunks from its devices and serves to central in chunks."""

from gateway_rig import Device, body, large, receipts, sha, take

from schemas.envelope import decode_frame
from schemas.limits import MIB, MIN_CHUNK_BYTES
from schemas.messages import Need
from schemas.topics import Kind

# Large updates.


def test_a_large_update_is_offered_at_once_and_pulled_after_two_seconds(rig):
    (device,) = rig.born("a")
    data = large()
    payload = rig.offer(device, data, inline=False)
    assert [m.payload for m in take(rig.up, Kind.MANIFEST)] == [payload]
    assert take(rig.down, Kind.NEED) == []
    assert rig.rows() == []
    rig.pass_time(2)
    rig.give_chunks(device, data)
    assert rig.rows() == [(device.xfer(data), sha(data))]
    assert rig.custody_files() == [sha(data)]
    assert [r.status for r in receipts(rig, device)] == ["held"]


def chunks_up(rig):
    return {m.topic.k: m.payload for m in take(rig.up, Kind.CHUNK)}


def test_central_is_served_from_custody_and_its_need_begins_the_pull(rig):
    (device,) = rig.born("a")
    data = large()
    rig.offer(device, data, inline=False)
    rig.from_central(
        Kind.NEED, rig.central.need(device.xfer(data), (0, 1)), xfer=device.xfer(data)
    )
    rig.give_chunks(device, data)
    first = chunks_up(rig)  # what it asked for before the gateway had it
    assert set(first) == {0, 1}
    rig.from_central(
        Kind.NEED, rig.central.need(device.xfer(data), (2, 3)), xfer=device.xfer(data)
    )
    whole = {**first, **chunks_up(rig)}
    assert b"".join(whole[k] for k in range(4)) == data
    rig.receipt(device, data)
    assert rig.custody_files() == []
    assert rig.rows() == []


def test_without_an_uplink_a_large_update_is_pulled_at_once(rig):
    (device,) = rig.born("a")
    rig.disconnect("uplink")
    data = large()
    rig.offer(device, data, inline=False)
    rig.give_chunks(device, data)
    assert [r.status for r in receipts(rig, device)] == ["held"]
    rig.connect("uplink")
    assert [m.topic.xfer for m in take(rig.up, Kind.MANIFEST)] == [device.xfer(data)]


def test_what_central_does_not_want_is_not_pulled(rig):
    (device,) = rig.born("a")
    data = large()
    rig.offer(device, data, inline=False)
    payload = rig.receipt(device, data, status="late")
    assert [m.payload for m in take(rig.down, Kind.RECEIPT)] == [payload]
    rig.pass_time(30)
    assert take(rig.down, Kind.NEED) == []
    rig.offer(device, data, inline=False)
    assert [r.status for r in receipts(rig, device)] == ["late"]


def test_a_final_receipt_in_the_middle_of_a_pull_ends_it(rig):
    (device,) = rig.born("a")
    data = large(8 * MIN_CHUNK_BYTES)
    rig.offer(device, data, inline=False)
    rig.pass_time(2)
    assert take(rig.down, Kind.NEED)
    rig.receipt(device, data, status="late")
    rig.pass_time(60)
    assert take(rig.down, Kind.NEED) == []
    assert list((rig.settings.state_dir / "custody" / "parts").iterdir()) == []


def test_a_pull_goes_on_after_a_crash_where_it_was(rig):
    (device,) = rig.born("a")
    data = large(6 * MIN_CHUNK_BYTES)
    rig.offer(device, data, inline=False)
    rig.pass_time(2)
    (need,) = take(rig.down, Kind.NEED)
    first = body(need, Need).want
    for k in first:
        chunk = data[k * MIN_CHUNK_BYTES : (k + 1) * MIN_CHUNK_BYTES]
        rig.from_device(device, Kind.CHUNK, chunk, xfer=device.xfer(data), k=k)
    rig.restart()
    rig.offer(device, data, inline=False)
    rig.pass_time(2)
    asked = {k for m in rig.down.sent if m.topic.kind is Kind.NEED for k in body(m, Need).want}
    assert asked == set(range(6)) - set(first)
    rig.give_chunks(device, data)
    assert rig.rows() == [(device.xfer(data), sha(data))]


def test_a_crash_with_a_large_update_in_custody_forgets_nothing(rig):
    (device,) = rig.born("a")
    data = large()
    rig.offer(device, data, inline=False)
    rig.pass_time(2)
    rig.give_chunks(device, data)
    rig.restart()
    rig.pass_time(1)
    xfer = device.xfer(data)
    assert {m.topic.xfer for m in take(rig.up, Kind.MANIFEST)} == {xfer}
    rig.from_central(Kind.NEED, rig.central.need(xfer, (0, 1, 2, 3)), xfer=xfer)
    found = chunks_up(rig)
    assert b"".join(found[k] for k in range(4)) == data


def test_a_file_without_a_row_is_removed_after_a_crash(rig):
    stray = rig.settings.state_dir / "custody" / "objects" / sha(b"stray")
    stray.write_bytes(b"stray")
    rig.restart()
    assert rig.custody_files() == []


def test_two_devices_with_identical_updates_are_two_transfers_of_one_file(rig):
    a, b = rig.born("a", "b")
    data = large()
    for device in (a, b):
        rig.offer(device, data, inline=False)
    rig.pass_time(2)
    rig.give_chunks(a, data)
    rig.give_chunks(b, data)
    assert rig.rows() == sorted((d.xfer(data), sha(data)) for d in (a, b))
    rig.receipt(a, data)
    assert rig.custody_files() == [sha(data)]
    xfer = b.xfer(data)
    rig.from_central(Kind.NEED, rig.central.need(xfer, (3,)), xfer=xfer)
    assert chunks_up(rig) == {3: data[3 * MIN_CHUNK_BYTES :]}
    rig.receipt(b, data)
    assert rig.custody_files() == []


def test_large_updates_count_against_the_quota_from_their_offer_on(make_rig):
    rig = make_rig(custody_quota_bytes=MIB).connect()
    a, b = rig.born("a", "b")
    big = large(900_000)
    rig.offer(a, big, inline=False)
    rig.offer(b, bytes(200_000))
    assert [r.code for r in receipts(rig, b)] == ["E_QUOTA"]
    rig.receipt(a, big, status="late")
    rig.offer(b, bytes(200_000))
    rig.pass_time(0.3)
    assert [r.status for r in receipts(rig, b)] == ["held"]


def test_a_chunk_of_another_device_is_refused(rig):
    a, b = rig.born("a", "b")
    data = large()
    rig.offer(a, data, inline=False)
    rig.pass_time(2)
    rig.from_device(b, Kind.CHUNK, data[:MIN_CHUNK_BYTES], xfer=a.xfer(data), k=0)
    assert rig.loop.counts["refused:E_IDENTITY"] == 1
    rig.from_device(a, Kind.CHUNK, b"not the chunk", xfer=a.xfer(data), k=0)
    assert rig.loop.counts["refused:E_PAYLOAD"] == 1
    rig.from_device(a, Kind.CHUNK, b"nobody asked", xfer="0" * 32, k=0)
    rig.give_chunks(a, data)
    assert rig.rows() == [(a.xfer(data), sha(data))]


def test_an_object_whose_chunks_do_not_add_up_to_its_digest_is_refused(rig):
    (device,) = rig.born("a")
    data, other = large(seed=1), large(seed=2)
    lie = Device("a")
    described = decode_frame(lie.manifest(data, inline=False))
    tail = decode_frame(lie.manifest(other, inline=False)).tail
    assert len(tail) == len(described.tail)
    rig.offer(device, data, inline=False, tail=tail)
    rig.pass_time(2)
    rig.give_chunks(device, other, xfer=device.xfer(data))
    (refusal,) = receipts(rig, device)
    assert (refusal.status, refusal.code) == ("rejected", "E_DIGEST")
    assert rig.rows() == []
    assert rig.custody_files() == []


def test_a_device_that_went_away_is_asked_again_when_the_downlink_is_back(rig):
    (device,) = rig.born("a")
    data = large()
    rig.offer(device, data, inline=False)
    rig.pass_time(2)
    rig.disconnect("downlink")
    rig.pass_time(100)
    rig.connect("downlink")
    rig.give_chunks(device, data)
    assert rig.rows() == [(device.xfer(data), sha(data))]


def test_a_pull_of_a_device_that_is_gone_is_given_up_and_frees_its_room(make_rig):
    rig = make_rig(custody_quota_bytes=MIB).connect()
    a, b = rig.born("a", "b")
    rig.offer(a, large(900_000), inline=False)
    rig.pass_time(1000, step_s=10)
    rig.offer(b, bytes(200_000))
    rig.pass_time(0.3)
    assert [r.status for r in receipts(rig, b)] == ["held"]


def test_a_lost_custody_file_is_pulled_from_its_device_once_more(rig):
    (device,) = rig.born("a")
    data = large()
    xfer = device.xfer(data)
    rig.offer(device, data, inline=False)
    rig.pass_time(2)
    rig.give_chunks(device, data)
    (rig.settings.state_dir / "custody" / "objects" / sha(data)).unlink()
    rig.restart()
    rig.from_central(Kind.NEED, rig.central.need(xfer, (0,)), xfer=xfer)
    assert chunks_up(rig) == {}
    rig.offer(device, data, inline=False)
    rig.from_central(Kind.NEED, rig.central.need(xfer, (0,)), xfer=xfer)
    rig.give_chunks(device, data)
    assert chunks_up(rig) == {0: data[:MIN_CHUNK_BYTES]}
    rig.receipt(device, data)
    assert rig.rows() == []
    assert rig.custody_files() == []


def test_a_damaged_file_of_an_update_in_custody_is_fetched_again_from_its_device(rig):
    (device,) = rig.born("a")
    data = large()
    xfer = device.xfer(data)
    rig.offer(device, data, inline=False)
    rig.pass_time(2)
    rig.give_chunks(device, data)
    assert rig.custody_files() == [sha(data)]
    path = rig.settings.state_dir / "custody" / "objects" / sha(data)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    rig.restart()
    rig.offer(device, data, inline=False)
    rig.from_central(Kind.NEED, rig.central.need(xfer, (0,)), xfer=xfer)
    rig.give_chunks(device, data)
    assert path.read_bytes() == data
    rig.receipt(device, data)
    assert rig.rows() == []


def test_too_many_pulls_at_once_are_put_off(rig):
    a, b = rig.born("a", "b")
    rig.parts.pulls._puller._max_pulls = 1
    for device in (a, b):
        rig.offer(device, large(seed=ord(device.name)), inline=False)
    rig.pass_time(2)
    (busy,) = receipts(rig, b)
    assert (busy.status, busy.code) == ("rejected", "E_BUSY")
    assert busy.retry_after_s > 0
    rig.give_chunks(a, large(seed=ord("a")))
    rig.offer(b, large(seed=ord("b")), inline=False)
    rig.pass_time(2)
    rig.give_chunks(b, large(seed=ord("b")))
    assert len(rig.rows()) == 2

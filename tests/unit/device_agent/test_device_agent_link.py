"""How fast a device's link is, by its last uploads, and what ``auto`` makes of it."""

from dataclasses import replace

import numpy as np
from device_agent_bench import SMALL, body_of, model_file, of_kind, offered, plan_for, statuses

from device_agent.adapters.upload_times import SqliteUploadTimes
from device_agent.core.link import REMEMBERED, Upload, rate_bytes_s
from schemas.messages import Receipt
from schemas.topics import Kind
from updates.codecs import create


def test_nothing_is_known_of_a_link_without_telling_uploads():
    assert rate_bytes_s([]) is None
    assert rate_bytes_s([Upload(900, 0.05), Upload(16_000, 0.9)]) is None


def test_the_largest_lower_bound_counts():
    uploads = [Upload(100_000, 50.0), Upload(100_000, 2.0), Upload(900, 0.01), Upload(20_000, 1.0)]
    assert rate_bytes_s(uploads) == 50_000


def test_a_short_upload_that_took_long_tells_of_a_slow_link():
    assert rate_bytes_s([Upload(1000, 4.0)]) == 250


def auto(bench, accuracy="balanced", number=1):
    plan = plan_for(SMALL, codec="auto").model_copy(
        update={"codec_params": {"accuracy": accuracy}}
    )
    body, tail = bench.assignment(model_file(SMALL), plan, round=number)
    bench.send(Kind.TASK, body, writer=bench.central, tail=tail)
    sent = bench.train()
    manifest, payload = offered(sent)
    return manifest, payload, statuses(sent)


def receipt(bench, manifest, status):
    body = Receipt(xfer=manifest.xfer, status=status, sha256=manifest.object.sha256)
    return bench.send(Kind.RECEIPT, body, xfer=manifest.xfer)


def test_a_device_picks_a_codec_names_it_in_the_manifest_and_tells_why_once(bench):
    manifest, payload, told = auto(bench, "exact")
    assert (manifest.codec, manifest.codec_params) == ("raw-f32", {})
    assert create(manifest.codec, manifest.codec_params).decode(payload, SMALL).size == SMALL.size
    assert told[-1].reason.startswith("raw-f32: 0.1 kB in 0.0 s at 32.0 kB/s (assumed)")
    receipt(bench, manifest, "accepted")
    manifest, _, told = auto(bench, "exact", number=2)
    assert told[-1].reason is None


def test_settings_of_the_codec_go_with_it(bench):
    manifest, payload, _ = auto(bench, "balanced")
    assert manifest.codec == "symmetric"
    assert manifest.codec_params == {"bits": 8, "stochastic": False}
    decoded = create(manifest.codec, manifest.codec_params).decode(payload, SMALL)
    assert np.isfinite(decoded).all()


def test_uploads_are_measured_to_the_first_word_that_says_they_arrived(bench):
    manifest, _, _ = auto(bench, "exact")
    times = SqliteUploadTimes(bench.connection)
    bench.now_s += 3.0
    receipt(bench, manifest, "rejected")
    assert times.recent() == []
    manifest, _, _ = auto(bench, "exact", number=2)
    bench.now_s += 3.0
    receipt(bench, manifest, "held")
    (upload,) = times.recent()
    assert 3.0 <= upload.seconds < 4.0
    assert upload.size_bytes > manifest.object.size
    bench.now_s += 100.0
    receipt(bench, manifest, "accepted")
    assert times.recent() == [upload]


def test_only_the_last_uploads_are_remembered(bench):
    times = SqliteUploadTimes(bench.connection)
    for size in range(1, 2 * REMEMBERED):
        times.add(Upload(size, 1.0))
    assert [one.size_bytes for one in times.recent()] == list(range(REMEMBERED, 2 * REMEMBERED))


def test_a_measured_link_decides(bench):
    bench.agent._parts.uploads._times.add(Upload(20, 5.0))
    manifest, _, told = auto(bench, "exact")
    assert manifest.codec == "fp16"
    assert "(measured)" in told[-1].reason


def test_an_update_that_is_longer_than_its_owner_allows_fails_the_job(bench):
    bench.worker.run = replace(bench.worker.run, max_update_bytes=10)
    bench.assign()
    (told,) = statuses(bench.train())
    assert (told.state, told.code) == ("failed", "policy")
    assert "at most 10 are allowed" in told.reason
    assert bench.outbox.count() == 0


def test_nothing_is_told_of_codecs_by_a_task_that_names_one(bench):
    bench.assign()
    sent = bench.train()
    manifest, _ = offered(sent)
    assert manifest.codec_params == {}
    assert statuses(sent)[-1].reason is None
    assert body_of(of_kind(sent, Kind.MANIFEST)[0], type(manifest)) == manifest

"""A compressed downlink at central: what is committed is what devices hold, and a residual."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from central.adapters.audit import open_books
from central.adapters.restores import NAMED_OBJECTS
from central.adapters.store import MIGRATIONS, SCHEMA, SCHEMA_VERSION, SqliteStore
from central.adapters.stored_rounds import _load_state, read_model
from central.core import downlink
from central.core.downlink import Move, chain_to, compress, whole
from schemas.envelope import decode_frame
from schemas.limits import MAX_DELTAS
from schemas.messages import Assignment, Get
from schemas.topics import Address, Kind, Topic
from tests.support.central_fixture import LAYOUT, CentralRig, TinyModeler, begin
from transport.database import open_database
from updates.codecs import create, names
from updates.layout import Layout
from updates.model_delta import apply_delta

TOPK = {"codec": "topk", "codec_params": {"fraction": 0.25}}
HALF = create("topk", {"fraction": 0.5})
#: Differences of these stay exact in float32, so that laws can be stated with ``==``.
grid = st.integers(-1000, 1000).map(lambda value: np.float32(value / 8))


@pytest.fixture
def rig(tmp_path):
    made = CentralRig(tmp_path)
    yield made
    made.connection.close()


def send(rig):
    """Return the newest assignment and its frame's tail."""
    frames = [decode_frame(out.payload) for out in rig.published if out.topic.kind is Kind.TASK]
    frame = [one for one in frames if one.header.type == Assignment.TYPE][-1]
    return frame.body(Assignment), frame.tail


def play(rig, rounds, *, value=1.0):
    """Complete so many rounds, each with an update that grows along the vector."""
    for number in range(rounds):
        job = rig.newest()
        vector = np.arange(LAYOUT.size, dtype=np.float32) * value + number
        payload = create("raw-f32").encode(vector, LAYOUT, np.random.default_rng(0))
        for device in ("a", "b"):
            assert rig.update(device, job, payload=payload).status == "accepted"
        rig.work()


def model(rig, sha256):
    return np.array(read_model(rig.objects.path(sha256))[1])


# -- the core ------------------------------------------------------------------------------


@given(st.lists(hnp.arrays(np.float32, LAYOUT.size, elements=grid), min_size=1, max_size=6))
def test_over_any_rounds_the_servers_own_model_is_what_devices_hold_and_the_residual(steps):
    own = held = np.zeros(LAYOUT.size, np.float32)
    device, residual = held, None
    for number, step in enumerate(steps):
        own = own + step
        rng = downlink.rng_of("t", number)
        sent = compress(Move(held, held + step, residual), HALF, LAYOUT, rng)
        device = apply_delta(device, sent.payload, LAYOUT, HALF)
        assert device.tobytes() == sent.model.tobytes()
        held, residual = sent.model, sent.residual
        assert np.allclose(held.astype(np.float64) + residual, own, rtol=0, atol=1.0)
        assert (np.abs(held.astype(np.float64) + residual - own) <= 2**-20 * np.abs(own)).all()
    assert np.allclose(whole(Move(held, held, residual)).model, own, rtol=1e-6, atol=1e-6)


def test_what_is_left_out_comes_in_a_later_round():
    base = np.zeros(LAYOUT.size, np.float32)
    new = np.arange(1, LAYOUT.size + 1, dtype=np.float32)
    held, residual = base, None
    for number in range(2):
        move = Move(held, new if number == 0 else held, residual)
        sent = compress(move, HALF, LAYOUT, downlink.rng_of("t", number))
        held, residual = sent.model, sent.residual
    assert (held == new).all()
    assert (residual == 0).all()


def test_what_cannot_be_coded_is_sent_whole():
    largest = np.float32(np.finfo(np.float32).max)
    base = np.full(LAYOUT.size, -largest, np.float32)
    sent = compress(Move(base, -base), HALF, LAYOUT, downlink.rng_of("t", 1))
    assert sent.payload is None
    assert sent.residual is None
    assert (sent.model == largest).all()


def test_a_residual_that_no_float32_holds_is_never_kept():
    large = np.full(LAYOUT.size, 3e38, np.float32)

    class Opposite:
        """A codec whose error is as large as float32 allows."""

        def encode(self, vector, layout, rng):
            return create("raw-f32").encode(-large, layout, rng)

        def decode(self, payload, layout):
            return create("raw-f32").decode(payload, layout)

    base = np.zeros(LAYOUT.size, np.float32)
    sent = compress(Move(base, large), Opposite(), LAYOUT, np.random.default_rng(0))
    assert (sent.payload, sent.residual) == (None, None)
    assert sent.model.tobytes() == large.tobytes()


def test_a_chain_ends_at_the_first_gap():
    pairs = [("c", "d"), ("b", "c"), ("x", "y"), ("a", "b")]
    assert list(chain_to("d", pairs)) == [0, 1]
    assert list(chain_to("c", pairs)) == []
    assert list(chain_to("a", [("a", "a"), ("a", "a")])) == [0, 1]


def test_codecs_that_forbid_feedback_are_refused_by_name_and_the_others_listed():
    with pytest.raises(ValueError, match=r"^downlink\.codec: 'int8' .*use one of .*topk"):
        downlink.check("int8", {})
    with pytest.raises(ValueError, match=r"^downlink\.codec: 'nope': must be one of"):
        downlink.check("nope", {})
    with pytest.raises(ValueError, match=r"^downlink\.fraction: 7"):
        downlink.check("topk", {"fraction": 7})
    for name in names():
        if create(name).feedback != "forbidden":
            downlink.check(name, {})


# -- rounds --------------------------------------------------------------------------------


def test_a_task_with_a_codec_that_forbids_feedback_is_rejected(rig):
    rig.fleet("a", "b")
    rig.submit(task="t", downlink={"codec": "int8"})
    (status,) = rig.rejections()
    assert status.reason.startswith("downlink.codec: 'int8' does not go with error feedback")


def test_the_first_round_sends_the_model_and_the_next_ones_a_chain_of_deltas(rig):
    begin(rig, "a", "b", rounds=5, downlink=TOPK)
    job, tail = send(rig)
    assert job.model.inline
    assert job.deltas == ()
    assert job.plan.downlink.codec == "topk"
    play(rig, 3)
    job, tail = send(rig)
    assert job.round == 4
    assert job.fault(len(tail)) is None
    assert not job.model.inline
    assert [one.object.inline for one in job.deltas] == [False, False, True]
    first = rig.store.round("t", 1).base_model_sha256
    assert job.deltas[0].base == first
    codec, vector = create("topk", TOPK["codec_params"]), model(rig, first)
    for delta in job.deltas:
        payload = rig.objects.path(delta.object.sha256).read_bytes()
        vector = apply_delta(vector, payload, LAYOUT, codec)
        assert vector.tobytes() == model(rig, delta.result).tobytes()
    assert job.delta_tails(tail)[-1] == payload


def test_a_task_ends_with_the_servers_own_model_and_keeps_no_residual(rig):
    begin(rig, "a", "b", rounds=3, downlink=TOPK)
    play(rig, 2)
    kept = _load_state(rig.store.strategy_state("t"))
    assert np.abs(kept[downlink.RESIDUAL]).max() > 0
    play(rig, 1)
    assert rig.status("t").state == "completed"
    final = model(rig, rig.store.task("t").model_sha256)
    assert final.tolist() == [3 * k + 1 for k in range(LAYOUT.size)]
    assert rig.store.round("t", 3).delta_sha256 is None
    assert _load_state(rig.store.strategy_state("t")) == {}


def test_a_task_that_reaches_its_target_ends_with_what_devices_hold(tmp_path):
    modeler = TinyModeler()
    modeler.accuracies = (0.5, 0.95)
    rig = CentralRig(tmp_path, modeler)
    target = {"metric": "accuracy", "value": 0.9}
    begin(rig, "a", "b", rounds=9, downlink=TOPK, target=target)
    play(rig, 2)
    assert rig.status("t").state == "completed"
    last = rig.store.round("t", 2)
    assert last.delta_sha256 is not None
    assert rig.store.task("t").model_sha256 == last.model_sha256
    rig.connection.close()


def test_a_strategy_never_sees_the_residual(rig, monkeypatch):
    seen = []

    class Nosy:
        def init(self, model):
            return {"own": np.zeros(2, np.float32)}

        def apply(self, state, contributions):
            seen.append(set(state))
            return state, contributions.model + np.float32(1.5)

    monkeypatch.setitem(rig.worker.jobs._strategies, "mine", Nosy)
    begin(rig, "a", "b", rounds=4, downlink=TOPK, strategy="mine")
    play(rig, 3)
    assert seen == [{"own"}] * 3
    assert set(_load_state(rig.store.strategy_state("t"))) == {"own", downlink.RESIDUAL}


def test_the_audit_computes_the_same_models_and_deltas(rig):
    begin(rig, "a", "b", rounds=4, downlink=TOPK)
    play(rig, 4)
    with open_books(rig.root, {}) as books:
        found = books.audit("t")
    assert found.findings == []
    assert len(found.recomputed) == 4
    rig.connection.execute("UPDATE rounds SET delta_sha256 = ? WHERE round = 2", ("ab" * 32,))
    with open_books(rig.root, {}) as books:
        (finding,) = books.audit("t").findings
    assert finding.startswith("round 2: its delta is ")


def test_an_aggregation_that_is_done_again_gives_the_same_bytes(rig):
    begin(rig, "a", "b", rounds=4, downlink=TOPK)
    play(rig, 1)
    for device in ("a", "b"):
        rig.update(device, rig.newest())
    (job,) = rig.worker.waiting
    first, again = (rig.worker.jobs.work(job) for _ in range(2))
    assert first == again
    assert first.delta_sha256 is not None


def test_bytes_announced_are_those_of_the_newest_delta(rig):
    begin(rig, "a", "b", rounds=3, downlink=TOPK)
    play(rig, 2)
    one, two = rig.store.round("t", 1), rig.store.round("t", 2)
    assert one.summary.downlink_bytes == 2 * one.base_model_bytes
    assert two.summary.downlink_bytes == 2 * one.delta_bytes
    third = 2 * two.delta_bytes
    totals = rig.store.task("t").totals
    assert totals.downlink_bytes == 2 * one.base_model_bytes + 2 * one.delta_bytes + third


def test_a_chain_is_no_longer_than_eight_deltas_and_passes_over_abandoned_rounds(rig):
    begin(rig, "a", "b", rounds=20, downlink=TOPK, deadline_s=5, on_shortfall="abandon")
    play(rig, 4)
    rig.tick(6)
    assert rig.store.round("t", 5).model_sha256 is None
    rig.tick()
    play(rig, 6)
    job, tail = send(rig)
    assert len(job.deltas) == MAX_DELTAS
    assert job.fault(len(tail)) is None
    assert [one.base for one in job.deltas] == [
        rig.store.round("t", number).base_model_sha256 for number in (3, 4, 6, 7, 8, 9, 10, 11)
    ]


def test_a_damaged_delta_is_left_out_with_all_before_it(rig):
    begin(rig, "a", "b", rounds=9, downlink=TOPK)
    play(rig, 3)
    middle = rig.store.round("t", 2).delta_sha256
    rig.objects.path(middle).write_bytes(b"torn")
    rig.restart()
    play(rig, 1)
    job, tail = send(rig)
    assert job.fault(len(tail)) is None
    assert [one.base for one in job.deltas] == [
        rig.store.round("t", number).base_model_sha256 for number in (3, 4)
    ]


def test_gateways_pull_deltas_and_key_frames_and_a_purge_removes_both(tmp_path):
    rig = CentralRig(tmp_path, keep_task_s=100.0)
    begin(rig, "a", "b", rounds=3, downlink=TOPK)
    play(rig, 2)
    job, _ = send(rig)
    for wanted in (job.model, *(one.object for one in job.deltas)):
        frame = rig._writer("gw/eu", 1, rig.gateway_seq).frame(
            Get(sha256=wanted.sha256, want=(0,))
        )
        blocks = rig.arrive(Topic(Kind.GET, Address.of_gateway("eu")), frame)
        assert b"".join(out.payload for out in blocks if out.topic.kind is Kind.BLOCK) == (
            rig.objects.path(wanted.sha256).read_bytes()
        )
    deltas = {one.object.sha256 for one in job.deltas}
    assert deltas <= {sha256 for (sha256,) in rig.connection.execute(NAMED_OBJECTS)}
    rig.control("t", "cancel")
    rig.tick(4000)
    assert rig.store.task("t") is None
    assert not [sha256 for sha256 in deltas if rig.objects.has(sha256)]
    rig.connection.close()


def test_a_backup_of_a_database_without_deltas_names_its_other_objects(tmp_path):
    path = tmp_path / "central.db"
    older = "".join(line for line in SCHEMA.splitlines(keepends=True) if "delta" not in line)
    old = open_database(path, older, SCHEMA_VERSION - 1)
    old.execute(
        "INSERT INTO tasks (task, submission, min_clients, created_s, progress, metrics, totals)"
        " VALUES ('t', '{}', 1, 0.0, '{}', '{}', '{}')"
    )
    old.execute(
        "INSERT INTO rounds (task, round, state, base_model_sha256, base_model_bytes, opened_s)"
        " VALUES ('t', 1, '{}', 'base', 1, 0.0)"
    )
    assert old.execute(NAMED_OBJECTS).fetchall() == [("base",)]
    old.close()
    new = open_database(path, SCHEMA, SCHEMA_VERSION, MIGRATIONS)
    assert new.execute(NAMED_OBJECTS).fetchall() == [("base",)]
    assert SqliteStore(new).newest_deltas("t", 9, 8) == []
    new.close()


def test_a_large_delta_is_not_inline(tmp_path):
    class Large(TinyModeler):
        layout = Layout.of({"w": (40_000,)})

    rig = CentralRig(tmp_path, Large())
    begin(rig, "a", "b", rounds=3, downlink={"codec": "fp16"})
    for device in ("a", "b"):
        rig.update(device, rig.newest())
    rig.work()
    job, tail = send(rig)
    assert job.fault(len(tail)) is None
    assert (len(job.deltas), job.deltas[0].object.inline) == (1, False)
    assert json.loads(rig.store.round("t", 1).summary.model_dump_json())["outcome"] == "committed"
    rig.connection.close()


@pytest.mark.parametrize(("limit", "state"), [(31, "failed"), (32, "running")])
def test_a_model_whose_residual_no_row_holds_fails_its_task_at_the_beginning(
    rig, monkeypatch, limit, state
):
    monkeypatch.setattr(downlink, "MAX_BYTES", limit)
    rig.fleet("a", "b", "c")
    rig.submit(task="t", codec="raw-f32", downlink={"codec": "topk"}, cohort=3)
    rig.submit(task="whole", codec="raw-f32", cohort=3)
    rig.work()
    assert rig.status("t").state == state
    assert rig.status("whole").state != "failed"
    reason = "downlink: it keeps 8 parameters x 4 bytes = 32 bytes, at most 31 are allowed"
    assert ((rig.status("t").reason or "").startswith(reason)) is (state == "failed")

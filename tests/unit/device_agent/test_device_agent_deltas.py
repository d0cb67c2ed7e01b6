"""A device's way to a new model: the shortest chain of deltas that it can follow, or the whole."""

import hashlib
import os
from dataclasses import replace

import numpy as np
import pytest
from device_agent_bench import (
    LARGE,
    SMALL,
    TASK,
    Bench,
    body_of,
    of_kind,
    offered,
    plan_for,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.adapters.model_rebuild import RebuildError, rebuild
from device_agent.core.chains import newest_here, shortest
from device_agent.core.job import JobKey
from device_agent.service.ports import RebuildFailed, TrainingFailed, Work
from schemas.messages import ControlNote, Get, ModelDelta, ObjectManifest
from schemas.tasks import Downlink
from schemas.topics import Kind
from transport.objects import ObjectStore, describe
from updates.codecs import create
from updates.model_delta import apply_delta
from updates.model_file import encode_model

DOWNLINK = Downlink(codec="topk", codec_params={"fraction": 0.2})
CODEC = create(DOWNLINK.codec, DOWNLINK.codec_params)


def sha(data):
    return hashlib.sha256(data).hexdigest()


class History:
    """The models of a task and the deltas between them, as central makes them."""

    def __init__(self, layout=SMALL, rounds=6):
        self.layout = layout
        self.plan = plan_for(layout).model_copy(update={"downlink": DOWNLINK})
        rng = np.random.default_rng(5)
        vector = rng.standard_normal(layout.size, dtype=np.float32)
        self.models, self.deltas = [encode_model(layout, vector)], []
        for _ in range(rounds):
            step = rng.standard_normal(layout.size, dtype=np.float32)
            self.deltas.append(CODEC.encode(step, layout, rng))
            vector = apply_delta(vector, self.deltas[-1], layout, CODEC)
            self.models.append(encode_model(layout, vector))

    def assign(self, bench, number, *, oldest=0, task=TASK, lie=False):
        """Send the round that begins with model ``number``, with deltas from model ``oldest`` on."""
        model, tail = describe(self.models[number])
        steps = []
        for index in range(oldest, number):
            is_newest = index == number - 1
            manifest, part = describe(self.deltas[index], inline=is_newest)
            base, result = sha(self.models[index]), sha(self.models[index + 1])
            steps.append(ModelDelta(base=base, result=result, object=manifest))
            tail += part
        if lie:
            steps[-1] = steps[-1].model_copy(update={"base": sha(self.models[0])})
        body, _ = bench.assignment(self.models[number], self.plan, number + 1, task)
        body = body.model_copy(update={"model": model, "deltas": tuple(steps)})
        return bench.send(Kind.TASK, body, writer=bench.central, tail=tail)


HISTORY = History()


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def asked(sent):
    return {body_of(message, Get).sha256 for message in of_kind(sent, Kind.GET)}


def give(bench, data):
    manifest, _ = describe(data)
    for k in range(manifest.chunks):
        bench.block(data, k)


def hold(bench, data):
    bench.objects.put(data, durable=True)


def finish(bench):
    """Train, upload and have it accepted."""
    manifest, _ = offered(bench.train())
    bench.receipt(manifest, "accepted")
    return manifest


def first(bench, history=HISTORY):
    """Do the first round, whose model is pulled whole."""
    history.assign(bench, 0)
    bench.wait(2)
    give(bench, history.models[0])
    return finish(bench)


def test_the_next_round_makes_its_model_of_the_last_one_and_asks_for_nothing(bench):
    first(bench)
    sent = HISTORY.assign(bench, 1)
    assert asked([*sent, *bench.wait(5)]) == set()
    assert bench.state(2) == "training"
    assert not bench.objects.has(sha(HISTORY.models[1]))
    manifest = finish(bench)
    assert manifest.base_model_sha256 == sha(HISTORY.models[1])
    assert bench.objects.read(sha(HISTORY.models[1])) == HISTORY.models[1]


def test_only_the_newest_model_of_a_task_stays(bench):
    first(bench)
    HISTORY.assign(bench, 1)
    finish(bench)
    assert {path.name for path in (bench.path / "objects").iterdir()} == {sha(HISTORY.models[1])}


def test_a_device_that_was_away_takes_the_deltas_that_it_lacks(bench):
    first(bench)
    HISTORY.assign(bench, 4)
    assert asked(bench.wait(2)) == {sha(HISTORY.deltas[k]) for k in range(3)}
    for k in (2, 0, 1):
        assert bench.state(5) == "downloading"
        give(bench, HISTORY.deltas[k])
    assert bench.worker.work.deltas == tuple(sha(one) for one in HISTORY.deltas[:4])
    assert finish(bench).base_model_sha256 == sha(HISTORY.models[4])


def test_a_device_that_joins_late_pulls_the_key_frame(bench):
    HISTORY.assign(bench, 3)
    assert asked(bench.wait(2)) == {sha(HISTORY.models[3])}
    give(bench, HISTORY.models[3])
    assert bench.worker.work.base_sha256 is None
    assert finish(bench).base_model_sha256 == sha(HISTORY.models[3])


def test_a_chain_that_begins_after_this_devices_model_is_a_gap(bench):
    first(bench)
    HISTORY.assign(bench, 4, oldest=2)
    assert asked(bench.wait(2)) == {sha(HISTORY.models[4])}


def test_a_device_that_lost_its_store_pulls_the_key_frame(bench):
    first(bench)
    bench.objects.remove(sha(HISTORY.models[0]))
    HISTORY.assign(bench, 1)
    assert asked(bench.wait(2)) == {sha(HISTORY.models[1])}


@pytest.mark.parametrize("left", [len(HISTORY.models[0]) - 1, 7, 0])
def test_a_torn_base_is_noticed_and_removed_and_the_key_frame_pulled(bench, left):
    first(bench)
    bench.objects.path(sha(HISTORY.models[0])).write_bytes(HISTORY.models[0][:left])
    bench = bench.reborn()
    HISTORY.assign(bench, 1)
    bench.give(bench.worker.result())
    assert asked(bench.wait(2)) == {sha(HISTORY.models[1])}
    assert not bench.objects.has(sha(HISTORY.models[0]))


def test_deltas_that_give_another_model_are_left_out_and_the_key_frame_pulled(bench):
    first(bench)
    HISTORY.assign(bench, 2, oldest=1, lie=True)
    assert bench.state(3) == "training"
    event = bench.worker.result()
    assert isinstance(event, RebuildFailed)
    assert event.reason.startswith("the deltas give ")
    sent = bench.give(event)
    assert bench.state(3) == "downloading"
    assert asked([*sent, *bench.wait(2)]) == {sha(HISTORY.models[2])}
    give(bench, HISTORY.models[2])
    assert bench.worker.begun[-2:] == [JobKey(TASK, 3)] * 2
    assert finish(bench).base_model_sha256 == sha(HISTORY.models[2])
    assert not list((bench.path / "parts").iterdir())


def test_the_whole_model_is_pulled_after_a_failed_rebuild_and_a_restart_too(bench):
    first(bench)
    HISTORY.assign(bench, 2, oldest=1, lie=True)
    bench.give(bench.worker.result())
    bench = bench.reborn()
    assert bench.store.get(JobKey(TASK, 3)).deltas == ()
    assert asked(bench.wait(2)) == {sha(HISTORY.models[2])}


def test_a_delta_that_is_not_what_its_manifest_says_is_no_fault_of_the_job(bench):
    first(bench)
    other = History(rounds=2)
    other.deltas = [b"not a payload of this codec", *HISTORY.deltas[1:2]]
    other.models = HISTORY.models
    other.assign(bench, 2)
    give(bench, other.deltas[0])
    bench.give(bench.worker.result())
    assert asked(bench.wait(2)) == {sha(HISTORY.models[2])}


def test_a_codec_that_this_device_does_not_have_means_the_key_frame(bench):
    first(bench)
    other = History(rounds=1)
    other.plan = other.plan.model_copy(update={"downlink": Downlink(codec="of-tomorrow")})
    other.assign(bench, 1)
    bench.give(bench.worker.result())
    assert asked(bench.wait(2)) == {sha(other.models[1])}


@pytest.mark.parametrize("trained", [False, True], ids=["before", "after the rebuild"])
def test_a_killed_device_makes_its_model_again_or_finds_it(bench, trained):
    first(bench)
    HISTORY.assign(bench, 1)
    if trained:
        bench.worker.result()
    bench = bench.reborn()
    assert bench.objects.has(sha(HISTORY.models[1])) == trained
    assert (bench.worker.work.base_sha256 is None) == trained
    assert finish(bench).base_model_sha256 == sha(HISTORY.models[1])


def test_a_model_that_was_half_written_goes_with_the_next_start(bench):
    first(bench)
    HISTORY.assign(bench, 1)
    part = bench.path / "parts" / f"{sha(HISTORY.models[1])}.model.tmp"
    part.write_bytes(b"half")
    bench = bench.reborn()
    assert not part.exists()
    finish(bench)


def test_a_killed_device_goes_on_with_the_delta_that_it_began_to_pull(tmp_path):
    history = History(LARGE, rounds=2)
    history.deltas[0] = create("raw-f32").encode(
        np.zeros(LARGE.size, np.float32), LARGE, np.random.default_rng(0)
    )
    bench = Bench(tmp_path)
    first(bench, history)
    history.assign(bench, 2)
    bench.wait(2)
    bench.block(history.deltas[0], 0)
    bench = bench.reborn()
    wanted = {
        k for message in of_kind(bench.wait(2), Kind.GET) for k in body_of(message, Get).want
    }
    assert wanted == {1}


def test_a_rejected_round_does_not_cost_the_model_that_is_here(bench):
    first(bench)
    bench.machine.free_bytes = 0
    HISTORY.assign(bench, 1)
    assert bench.state(2) == "rejected"
    bench.machine.free_bytes = 1 << 30
    HISTORY.assign(bench, 2)
    assert asked(bench.wait(2)) == {sha(HISTORY.deltas[0])}


def test_a_tasks_model_goes_with_its_cancelled_job(bench):
    HISTORY.assign(bench, 0)
    bench.wait(2)
    give(bench, HISTORY.models[0])
    bench.send(Kind.CONTROL, ControlNote(action="cancel", task=TASK))
    assert not bench.objects.has(sha(HISTORY.models[0]))


def test_a_full_disk_while_the_model_is_written_fails_the_job_and_leaves_no_part(
    bench, monkeypatch
):
    first(bench)
    HISTORY.assign(bench, 1)

    def full(*_, **__):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(bench.objects, "adopt", full)
    event = bench.worker.result()
    assert isinstance(event, TrainingFailed)
    assert event.cause.code == "storage"


# -- laws ----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    held=st.sets(st.integers(0, 6)),
    number=st.integers(1, 6),
    length=st.integers(0, 6),
    lost=st.sets(st.integers(0, 5), max_size=2),
)
def test_any_chain_and_any_gap_lead_to_the_right_model_or_to_its_key_frame(
    tmp_path_factory, held, number, length, lost
):
    """Whatever is held and whatever is damaged on the way, what is trained on is the model."""
    bench = Bench(tmp_path_factory.mktemp("law"))
    for index in held:
        hold(bench, HISTORY.models[index])
    oldest = max(0, number - length)
    HISTORY.assign(bench, number, oldest=oldest)
    chain = [index for index in range(oldest, number) if index in held]
    expected = [] if number in held or not chain else range(max(chain), number)
    if bench.state(number + 1) == "downloading":
        wanted = asked(bench.wait(2))
        whole = {sha(HISTORY.models[number])}
        older = {sha(HISTORY.deltas[index]) for index in expected[:-1]} if expected else set()
        assert wanted == (older or whole)
        for data in (*HISTORY.deltas, HISTORY.models[number]):
            if sha(data) in wanted:
                give(bench, data)
    work = bench.worker.work
    assert work.deltas == tuple(sha(HISTORY.deltas[index]) for index in expected)
    for index in lost & set(expected):
        bench.objects.path(sha(HISTORY.deltas[index])).write_bytes(b"damaged")
    event = bench.worker.result()
    assert isinstance(event, RebuildFailed) == bool(lost & set(expected))
    if isinstance(event, RebuildFailed):
        bench.give(event)
        assert asked(bench.wait(2)) == {sha(HISTORY.models[number])}
        give(bench, HISTORY.models[number])
        event = bench.worker.result()
    manifest, _ = offered(bench.give(event))
    assert manifest.base_model_sha256 == sha(HISTORY.models[number])
    assert bench.objects.read(sha(HISTORY.models[number])) == HISTORY.models[number]
    bench.connection.close()


@given(st.sets(st.integers(0, 9)), st.integers(0, 9))
def test_no_shorter_chain_begins_with_a_model_that_is_here(held, count):
    manifest = ObjectManifest(sha256="0" * 64, size=1)
    deltas = [
        ModelDelta(base=f"{n:064x}", result=f"{n + 1:064x}", object=manifest) for n in range(count)
    ]
    found = shortest(deltas, lambda sha256: int(sha256, 16) in held)
    starts = [n for n in range(count) if n in held]
    assert len(found) == (count - max(starts) if starts else 0)


def test_of_each_task_the_newest_model_that_is_here_is_named():
    a, b, c = (ObjectManifest(sha256=letter * 64, size=1) for letter in "abc")
    jobs = [("t", a), ("u", b), ("t", b), ("t", c)]
    assert newest_here(jobs, lambda sha256: sha256 != a.sha256) == [b, b]
    assert newest_here(jobs, lambda _: False) == []


def test_a_rebuild_without_a_base_or_with_a_damaged_one_says_so(tmp_path):
    objects = ObjectStore(tmp_path)
    work = Work(JobKey(TASK, 1), HISTORY.plan, sha(HISTORY.models[1]), "noise")
    with pytest.raises(RebuildError, match="no model to begin from"):
        rebuild(objects, work, tmp_path, lambda: False)
    based = replace(work, base_sha256="ab" * 32, deltas=("cd" * 32,))
    with pytest.raises(RebuildError, match="No such file"):
        rebuild(objects, based, tmp_path, lambda: False)

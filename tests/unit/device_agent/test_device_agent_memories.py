"""What a device keeps from round to round: the right thing, whatever happens in between."""

import numpy as np
import pytest
from device_agent_bench import (
    DEVICE,
    LARGE,
    SMALL,
    TASK,
    Bench,
    dataset,
    model_file,
    of_kind,
    offered,
    plan_for,
)

from device_agent.adapters.memory_store import SqliteMemoryStore
from device_agent.core.job import JobKey
from device_agent.core.seeding import round_seed
from device_agent.service.ports import TrainingRequest
from schemas.envelope import decode_frame
from schemas.errors import PayloadError
from schemas.messages import ControlNote, LazyTerms, UpdateManifest
from schemas.topics import Kind
from transport.database import transaction
from updates import lazy
from updates.codecs import create
from updates.feedback import take_step
from updates.model_file import decode_model

CODECS = {"feedback": ("topk", {"fraction": 0.2}), "lazy": ("laq", {"bits": 4})}
both_modes = pytest.mark.parametrize("mode", list(CODECS))
both_sizes = pytest.mark.parametrize("layout", [SMALL, LARGE], ids=["small", "large"])


def plan(mode, layout=SMALL):
    codec, params = CODECS[mode]
    changes = {"codec_params": params, "memory": mode}
    return plan_for(layout, codec).model_copy(update=changes)


def assign(bench, mode, number, told, layout=SMALL, **changes):
    """Send an assignment of a round that tells the device's last counted one."""
    model = model_file(layout)
    body, tail = bench.assignment(
        model, plan(mode, layout), number, references=(told, 0), **changes
    )
    sent = bench.send(Kind.TASK, body, writer=bench.central, tail=tail)
    if not body.model.inline:
        for k in range(body.model.chunks):
            sent += bench.block(model, k)
    return sent


def trained(bench, number):
    """Let the device train; return the manifest of that round, and its tail."""
    frames = [decode_frame(one.payload) for one in of_kind(bench.train(), Kind.MANIFEST)]
    (frame,) = [one for one in frames if one.body(UpdateManifest).round == number]
    return frame.body(UpdateManifest), frame.tail


def play(bench, mode, number, told, layout=SMALL, **changes):
    """Let the device do one round; return its manifest and its payload."""
    assign(bench, mode, number, told, layout, **changes)
    manifest, tail = trained(bench, number)
    object_ = manifest.object
    return manifest, tail if object_.inline else bench.objects.read(object_.sha256)


def delta(bench, number, layout=SMALL):
    """Return the update that the bench's trainer gives for a round."""
    _, parameters = decode_model(model_file(layout))
    request = TrainingRequest(
        plan_for(layout), layout, parameters, dataset(), round_seed(TASK, number, DEVICE, 0)
    )
    return bench.trainer.train(request, None, None).delta


def vector(bench, number, layout=SMALL):
    """Return the vector that the device holds of a round, as float32."""
    memory = SqliteMemoryStore(bench.connection).get(JobKey(TASK, number))
    data = memory.payload or bench.objects.read(memory.sha256)
    held = np.frombuffer(data, dtype="<f4")
    assert held.size == layout.size
    return held


def rounds(bench):
    found = bench.connection.execute("SELECT round FROM memories WHERE task = ?", (TASK,))
    return sorted(number for (number,) in found)


def codec_of(mode):
    return create(*CODECS[mode])


@both_sizes
def test_what_is_left_out_of_a_counted_update_is_in_the_next_one(tmp_path, layout):
    bench, codec = Bench(tmp_path), codec_of("feedback")
    left_out = np.zeros(layout.size, np.float32)
    for number in (1, 2, 3):
        manifest, payload = play(bench, "feedback", number, number - 1, layout)
        assert manifest.reference == number - 1
        seed = round_seed(TASK, number, DEVICE, 0)
        step = take_step(
            delta(bench, number, layout), left_out, codec, layout, np.random.default_rng((seed, 1))
        )
        assert payload == step.payload
        left_out = step.left_out
        assert vector(bench, number, layout).tobytes() == left_out.tobytes()
        bench.receipt(manifest, "accepted")
    assert left_out.any()


@both_sizes
def test_both_ends_of_a_lazy_task_hold_the_same_vector(tmp_path, layout):
    bench, codec = Bench(tmp_path), codec_of("lazy")
    central = np.zeros(layout.size, np.float32)
    for number in (1, 2, 3):
        manifest, payload = play(bench, "lazy", number, number - 1, layout)
        assert manifest.reference == number - 1
        central = lazy.advance(central, codec.decode(payload, layout))
        assert vector(bench, number, layout).tobytes() == central.tobytes()
        bench.receipt(manifest, "accepted")


@both_modes
def test_an_update_that_was_not_counted_does_not_move_the_memory(tmp_path, mode):
    bench = Bench(tmp_path)
    play(bench, mode, 1, 0)
    before = vector(bench, 1).tobytes()
    manifest, _ = play(bench, mode, 2, 1)
    bench.receipt(manifest, "late")
    assert rounds(bench) == [1, 2]
    manifest, _ = play(bench, mode, 3, 1)
    assert manifest.reference == 1
    assert rounds(bench) == [1, 3]
    assert vector(bench, 1).tobytes() == before


@both_modes
def test_a_receipt_alone_does_not_make_a_memory_count(tmp_path, mode):
    """Accepted updates may be discarded with their round: only the next assignment tells."""
    bench = Bench(tmp_path)
    manifest, _ = play(bench, mode, 1, 0)
    bench.receipt(manifest, "accepted")
    manifest, _ = play(bench, mode, 2, 0)
    assert manifest.reference == 0
    assert rounds(bench) == [2]


@both_modes
def test_told_a_round_of_which_nothing_is_left_it_begins_anew(tmp_path, mode):
    bench = Bench(tmp_path)
    first, _ = play(bench, mode, 1, 0)
    assert first.reference == 0
    manifest, payload = play(bench, mode, 1_000_001, 7)
    assert manifest.reference == 0
    assert rounds(bench) == [1_000_001]
    if mode == "lazy":
        assert (
            vector(bench, 1_000_001).tobytes() == codec_of(mode).decode(payload, SMALL).tobytes()
        )


@both_modes
@both_sizes
def test_a_job_done_again_after_a_crash_gives_the_same_bytes_and_memory(tmp_path, mode, layout):
    bench = Bench(tmp_path)
    play(bench, mode, 1, 0, layout)
    assign(bench, mode, 2, 1, layout)
    bench.worker.result()  # trained, and then killed before the loop knew of it
    bench = bench.reborn()
    manifest, tail = trained(bench, 2)
    held = vector(bench, 2, layout).tobytes()

    other = Bench(tmp_path / "never killed")
    play(other, mode, 1, 0, layout)
    expected, payload = play(other, mode, 2, 1, layout)
    assert (manifest.object.sha256, manifest.reference) == (expected.object.sha256, 1)
    assert held == vector(other, 2, layout).tobytes()
    if expected.object.inline:
        assert tail == payload


@both_modes
@both_sizes
def test_a_turn_that_was_undone_stores_update_and_memory_when_it_comes_again(
    tmp_path, mode, layout
):
    bench = Bench(tmp_path)
    play(bench, mode, 1, 0, layout)
    assign(bench, mode, 2, 1, layout)
    result = bench.worker.result()
    bench.undone(result)
    assert rounds(bench) == [1]
    bench.give(result)
    assert rounds(bench) == [1, 2]
    assert vector(bench, 2, layout).any()


@both_modes
def test_a_memory_comes_only_with_its_update(tmp_path, mode):
    bench = Bench(tmp_path)
    play(bench, mode, 1, 0)
    assign(bench, mode, 2, 1)
    result = bench.worker.result()
    assign(bench, mode, 3, 1)  # overtakes the second round, whose result is still on its way
    bench.give(result)
    assert rounds(bench) == [1]
    assert bench.state(2) == "superseded"


def test_the_file_of_a_memory_that_nobody_wants_goes(tmp_path):
    bench = Bench(tmp_path)
    assign(bench, "feedback", 1, 0, LARGE)
    result = bench.worker.result()
    assert result.update.memory.file.exists()
    bench.send(Kind.CONTROL, ControlNote(action="cancel", task=TASK))
    bench.give(result)
    assert not result.update.memory.file.exists()
    assert rounds(bench) == []


def test_a_memory_whose_file_is_gone_before_it_is_stored_fails_the_job(tmp_path):
    bench = Bench(tmp_path)
    assign(bench, "feedback", 1, 0, LARGE)
    result = bench.worker.result()
    result.update.memory.file.unlink()
    bench.give(result)
    assert bench.state(1) == "failed"
    assert bench.store.get(JobKey(TASK, 1)).job.cause.code == "storage"
    assert bench.store.owed() == []


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_memory_is_not_built_on_and_the_manifest_says_so(tmp_path, damage):
    bench = Bench(tmp_path)
    play(bench, "lazy", 1, 0, LARGE)
    memory = SqliteMemoryStore(bench.connection).get(JobKey(TASK, 1))
    assign(bench, "lazy", 2, 1, LARGE)
    path = bench.objects.path(memory.sha256)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.unlink()
    if damage != "gone":
        path.write_bytes(data if damage == "flip" else data[:-4])
    manifest, payload = trained(bench, 2)
    assert manifest.reference == 0
    decoded = codec_of("lazy").decode(payload, LARGE)
    assert vector(bench, 2, LARGE).tobytes() == decoded.tobytes()


def test_a_large_memory_is_kept_as_long_as_a_row_names_it_and_no_longer(tmp_path):
    bench = Bench(tmp_path)
    store = SqliteMemoryStore(bench.connection)
    names = []
    for number, told in ((1, 0), (2, 1), (3, 2)):
        manifest, _ = play(bench, "feedback", number, told, LARGE)
        bench.receipt(manifest, "accepted")
        names.append(store.get(JobKey(TASK, number)).sha256)
    assert not bench.objects.has(names[0])
    assert bench.objects.has(names[1])
    assert bench.objects.has(names[2])
    bench = bench.reborn()
    bench.send(Kind.CONTROL, ControlNote(action="cancel", task=TASK))
    assert rounds(bench) == []
    assert not any(map(bench.objects.has, names))


def test_a_clock_that_jumps_by_years_takes_no_memory(tmp_path):
    bench = Bench(tmp_path)
    manifest, _ = play(bench, "feedback", 1, 0)
    bench.receipt(manifest, "accepted")
    late = bench.reborn(now_s=bench.now_s + 10 * 365 * 86_400)
    assert rounds(late) == [1]
    manifest, _ = play(late, "feedback", 2, 1)
    assert manifest.reference == 1


def test_of_tasks_whose_end_was_missed_the_newest_eight_keep_their_memories(tmp_path):
    bench = Bench(tmp_path)
    for number in range(9):
        manifest, _ = play(bench, "feedback", 1, 0, task=f"t-{number}")
        bench.receipt(manifest, "accepted")
    query = "SELECT task FROM memories ORDER BY task"
    found = bench.reborn().connection.execute(query).fetchall()
    assert [task for (task,) in found] == [f"t-{number}" for number in range(1, 9)]


@both_modes
def test_a_job_that_is_refused_leaves_the_memory_alone(tmp_path, mode):
    bench = Bench(tmp_path)
    play(bench, mode, 1, 0)
    bench.machine.free_bytes = 0
    assign(bench, mode, 2, 0)
    assert bench.state(2) == "rejected"
    assert rounds(bench) == [1]
    bench.machine.free_bytes = 1 << 40
    manifest, _ = play(bench, mode, 3, 1)
    assert manifest.reference == 1


def test_two_tasks_keep_their_memories_apart(tmp_path):
    bench = Bench(tmp_path)
    manifest, _ = play(bench, "feedback", 1, 0)
    bench.receipt(manifest, "accepted")
    manifest, _ = play(bench, "feedback", 1, 0, task="t-2")
    assert manifest.reference == 0
    assert rounds(bench) == [1]
    manifest, _ = play(bench, "feedback", 2, 1)
    assert manifest.reference == 1


def test_a_task_without_memory_keeps_nothing_and_says_so(tmp_path):
    bench = Bench(tmp_path)
    bench.assign(codec="topk")
    manifest, _ = offered(bench.train())
    assert manifest.reference == 0
    assert rounds(bench) == []


def test_references_that_do_not_fit_the_cohort_are_refused(tmp_path):
    bench = Bench(tmp_path)
    body, tail = bench.assignment(model_file(SMALL), plan("feedback"), 1, references=(0,))
    with pytest.raises(PayloadError, match="references: 1, the cohort has 2"):
        bench.send(Kind.TASK, body, writer=bench.central, tail=tail)
    assert bench.store.get(JobKey(TASK, 1)) is None


def test_a_device_skips_when_central_says_that_its_change_does_not_matter(tmp_path):
    bench = Bench(tmp_path)
    play(bench, "lazy", 1, 0)
    before = vector(bench, 1).tobytes()
    huge = LazyTerms(threshold=1e9, examples=100)
    manifest, payload = play(bench, "lazy", 2, 1, lazy=huge)
    assert manifest.object.size == 13
    assert not codec_of("lazy").decode(payload, SMALL).any()
    assert vector(bench, 2).tobytes() == before
    store = SqliteMemoryStore(bench.connection)
    kept, skipped = store.get(JobKey(TASK, 1)), store.get(JobKey(TASK, 2))
    assert (skipped.clock, skipped.error) == (kept.clock + 1, kept.error)


def test_a_key_frame_is_never_a_skip(tmp_path):
    bench = Bench(tmp_path)
    manifest, _ = play(bench, "lazy", 1, 0, lazy=LazyTerms(threshold=1e9, examples=100))
    assert manifest.object.size > 13


def test_a_device_that_has_skipped_a_hundred_times_sends(tmp_path):
    bench = Bench(tmp_path)
    play(bench, "lazy", 1, 0)
    with transaction(bench.connection):
        bench.connection.execute("UPDATE memories SET clock = ?", (lazy.MAX_SKIPS + 1,))
    huge = LazyTerms(threshold=1e9, examples=100)
    manifest, _ = play(bench, "lazy", 2, 1, lazy=huge)
    assert manifest.object.size > 13
    assert SqliteMemoryStore(bench.connection).get(JobKey(TASK, 2)).clock == 0


def test_a_skip_of_a_large_model_names_the_file_that_is_there(tmp_path):
    bench = Bench(tmp_path)
    play(bench, "lazy", 1, 0, LARGE)
    manifest, _ = play(bench, "lazy", 2, 1, LARGE, lazy=LazyTerms(threshold=1e9, examples=100))
    assert manifest.object.size == 13
    assert rounds(bench) == [1, 2]
    manifest, _ = play(bench, "lazy", 3, 2, LARGE)
    assert manifest.reference == 2
    assert vector(bench, 2, LARGE).any()

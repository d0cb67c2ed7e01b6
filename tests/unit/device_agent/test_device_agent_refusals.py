"""What a device does not take on, and how it says so."""

import pytest
from device_agent_bench import (
    SMALL,
    TASK,
    Bench,
    model_file,
    of_kind,
    offered,
    plan_for,
    statuses,
)

from device_agent.core.policy import LocalPolicy
from schemas.limits import MIB
from schemas.messages import ControlNote
from schemas.topics import Kind


def refused(bench, sent):
    (status,) = statuses(sent)
    assert status.state == "rejected"
    assert bench.worker.work is None
    assert bench.objects.sizes() == {}
    return status.code, status.reason


def test_the_owner_refuses_a_task_by_name(tmp_path):
    bench = Bench(tmp_path, LocalPolicy(tasks=("home-*",)))
    code, reason = refused(bench, bench.assign())
    assert code == "policy"
    assert TASK in reason


def test_the_owner_refuses_too_many_steps(tmp_path):
    bench = Bench(tmp_path, LocalPolicy(max_steps=5))
    assert refused(bench, bench.assign(steps=6)) == (
        "policy",
        "steps: 6, at most 5 are allowed",
    )


def test_the_owner_cuts_epochs_whatever_central_asks(tmp_path):
    bench = Bench(tmp_path, LocalPolicy(max_epochs=2))
    bench.assign(epochs=9)
    assert bench.worker.work.plan.training.epochs == 2


def test_too_little_memory_is_refused_with_both_numbers(tmp_path):
    bench = Bench(tmp_path)
    bench.machine.free_bytes = 10 * MIB
    code, reason = refused(bench, bench.assign())
    assert code == "memory"
    assert "10 MiB free" in reason


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"data": "mnist"}, "data"),
        ({"input_shape": (5,)}, "input_shape"),
        ({"classes": 4}, "classes"),
    ],
)
def test_data_that_is_not_here_is_refused_by_field(tmp_path, change, field):
    bench = Bench(tmp_path)
    body, tail = bench.assignment(model_file(SMALL), plan_for(SMALL).model_copy(update=change))
    sent = bench.send(Kind.TASK, body, writer=bench.central, tail=tail)
    code, reason = refused(bench, sent)
    assert code == "data"
    assert reason.startswith(f"{field}:")


def test_a_model_that_is_not_known_here_is_refused(tmp_path):
    bench = Bench(tmp_path)
    plan = plan_for(SMALL).model_copy(update={"model": "resnet50"})
    body, tail = bench.assignment(model_file(SMALL), plan)
    sent = bench.send(Kind.TASK, body, writer=bench.central, tail=tail)
    assert refused(bench, sent)[0] == "model"


def test_a_device_without_a_training_library_takes_only_drills(tmp_path):
    bench = Bench(tmp_path)
    bench.machine.backends = ()
    assert refused(bench, bench.assign())[0] == "model"
    bench.assign(task="t-2", epochs=0)
    assert offered(bench.train())[0].task == "t-2"


def test_a_second_task_is_refused_while_the_first_is_trained(tmp_path):
    bench = Bench(tmp_path)
    bench.assign(task="t-1")
    (status,) = statuses(bench.assign(task="t-2"))
    assert (status.state, status.code) == ("rejected", "busy")
    assert bench.worker.work.key.task == "t-1"


def test_a_second_task_is_taken_while_the_first_uploads(tmp_path):
    bench = Bench(tmp_path)
    bench.assign(task="t-1")
    bench.train()
    assert [status.state for status in statuses(bench.assign(task="t-2"))] == ["training"]


def test_a_draining_device_takes_nothing_new_until_its_restart(tmp_path):
    bench = Bench(tmp_path)
    bench.assign(number=1)
    bench.send(Kind.CONTROL, ControlNote(action="drain"))
    assert of_kind(bench.train(), Kind.MANIFEST)
    (status,) = statuses(bench.assign(number=2))
    assert (status.state, status.code) == ("rejected", "busy")
    bench = bench.reborn()
    assert bench.assign(number=3)
    assert bench.state(3) == "training"


def test_a_refusal_is_repeated_when_it_is_asked_for_again(tmp_path):
    bench = Bench(tmp_path, LocalPolicy(tasks=()))
    first = statuses(bench.assign())
    assert statuses(bench.assign()) == first
    assert statuses(bench.reborn().assign()) == first

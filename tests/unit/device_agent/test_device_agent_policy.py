"""What the owner allows, what fits, and in which order a job is refused."""

import hashlib
from dataclasses import replace

import pytest
from pydantic import ValidationError

from device_agent.core.admission import Situation, refusal
from device_agent.core.memory import LIBRARY_BYTES, needed_bytes
from device_agent.core.policy import LocalPolicy, cut, refuse
from device_agent.core.seeding import round_seed
from learning.graph_file import unpacked_limit
from schemas.base import explain
from schemas.limits import MIB
from schemas.messages import DataDescription, TrainingPlan
from schemas.tasks import Requirements, Training

DIGITS = DataDescription(name="digits", shape=(1, 8, 8), classes=10, examples=100)


def plan(**training) -> TrainingPlan:
    return TrainingPlan(
        model="lenet5",
        input_shape=(1, 8, 8),
        classes=10,
        parameters=1000,
        layout_sha256="0" * 64,
        data="digits",
        training=Training(**training),
        codec="int8",
    )


def situation(**changes) -> Situation:
    calm = Situation(
        policy=LocalPolicy(),
        data=(DIGITS,),
        models=frozenset({"lenet5"}),
        backends=frozenset({"torch"}),
        memory_free_bytes=1024 * MIB,
        is_warm=False,
        local_minutes=600,
    )
    return replace(calm, **changes)


def test_an_empty_policy_allows_everything():
    assert refuse(LocalPolicy(), "t-1", plan(epochs=1000), 100, 0) is None


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (LocalPolicy(tasks=("home-*",)), "task"),
        (LocalPolicy(models=("mlp", "cnn*")), "model"),
        (LocalPolicy(tasks=()), "task"),
    ],
)
def test_a_name_that_fits_no_pattern_is_refused_by_field(policy, field):
    cause = refuse(policy, "t-1", plan(), 100, 0)
    assert cause is not None
    assert cause.code == "policy"
    assert cause.reason.startswith(f"{field}:")


def test_a_name_that_fits_one_pattern_is_allowed():
    assert refuse(LocalPolicy(tasks=("home-*", "t-*")), "t-1", plan(), 100, 0) is None


def test_epochs_above_the_limit_are_cut_down_not_refused():
    policy = LocalPolicy(max_epochs=2)
    asked = plan(epochs=10)
    assert refuse(policy, "t-1", asked, 100, 0) is None
    assert cut(policy, asked, 100).training.epochs == 2
    assert cut(policy, plan(epochs=1), 100).training.epochs == 1


def test_examples_seen_cut_epochs_to_what_fits():
    policy = LocalPolicy(max_examples=350)
    assert cut(policy, plan(epochs=10), 100).training.epochs == 3


def test_one_epoch_of_too_many_examples_is_refused():
    cause = refuse(LocalPolicy(max_examples=99), "t-1", plan(epochs=1), 100, 0)
    assert cause is not None
    assert "100" in cause.reason
    assert "99" in cause.reason


def test_steps_are_refused_never_cut():
    policy = LocalPolicy(max_steps=10)
    assert refuse(policy, "t-1", plan(steps=11), 100, 0) is not None
    assert refuse(policy, "t-1", plan(steps=10), 100, 0) is None
    assert cut(policy, plan(steps=10), 100) == plan(steps=10)


def test_steps_count_the_examples_they_see():
    policy = LocalPolicy(max_examples=100)
    assert refuse(policy, "t-1", plan(steps=4, batch_size=32), 10, 0) is not None
    assert refuse(policy, "t-1", plan(steps=3, batch_size=32), 10, 0) is None


def test_a_drill_is_work_for_nobody():
    policy = LocalPolicy(max_epochs=1, max_steps=1, max_examples=1)
    drill = plan(epochs=0)
    assert refuse(policy, "t-1", drill, 100, 0) is None
    assert cut(policy, drill, 100) == drill


@pytest.mark.parametrize(
    ("span", "minutes", "quiet"),
    [
        ("22:00-06:00", 22 * 60, True),
        ("22:00-06:00", 0, True),
        ("22:00-06:00", 6 * 60, False),
        ("22:00-06:00", 12 * 60, False),
        ("08:30-09:00", 8 * 60 + 30, True),
        ("08:30-09:00", 9 * 60, False),
        (None, 0, False),
    ],
)
def test_quiet_hours_may_cross_midnight(span, minutes, quiet):
    policy = LocalPolicy(quiet_hours=span)
    assert policy.is_quiet(minutes) is quiet
    assert (refuse(policy, "t-1", plan(), 100, minutes) is not None) is quiet


@pytest.mark.parametrize("span", ["22-6", "24:00-06:00", "22:00-06:60", "22:00-06:00\n"])
def test_quiet_hours_that_are_no_span_are_refused(span):
    with pytest.raises(ValidationError, match="quiet_hours"):
        LocalPolicy(quiet_hours=span)


def test_an_unknown_key_is_refused_by_name():
    with pytest.raises(ValidationError) as caught:
        LocalPolicy.model_validate({"max_epoch": 3})
    assert "max_epochs" in explain(caught.value, tuple(LocalPolicy.model_fields))


def test_memory_counts_parameters_optimizer_and_batch():
    momentum, plain, adam = (
        needed_bytes(
            plan(epochs=1, batch_size=1, optimizer=name, momentum=momentum), is_warm=False
        )
        for name, momentum in (("sgd", 0.9), ("sgd", 0.0), ("adam", 0.9))
    )
    assert momentum - plain == 4 * 1000
    assert adam - plain == 8 * 1000
    assert plain == 5 * 4 * 1000 + 64 * 4 * 32 + LIBRARY_BYTES


@pytest.mark.parametrize("packed", [1, 20_000, 4 * MIB, 500 * MIB])
def test_a_graph_is_counted_with_all_that_it_may_unpack_to(packed):
    without, with_graph = (
        needed_bytes(plan(epochs=1), "onnx", size, is_warm=True) for size in (0, packed)
    )
    assert with_graph - without == packed + 2 * unpacked_limit(packed)


def test_a_graph_of_2_mib_is_not_taken_where_what_it_may_hold_does_not_fit():
    free = situation(backends=("onnx",), memory_free_bytes=100 * MIB)
    small, large = (refusal("t-1", plan(), free, size) for size in (20_000, 2 * MIB))
    assert small is None
    assert (large.code, large.reason) == ("memory", "108 MiB needed, 100 MiB free")


def test_a_drill_needs_only_copies_of_the_model():
    drill = plan(epochs=0)
    assert needed_bytes(drill, is_warm=False) == 3 * 4 * 1000
    bids = drill.model_copy(update={"bids": True})
    assert needed_bytes(bids, is_warm=False) == 4 * 4 * 1000


def test_a_loaded_library_is_not_counted_again():
    job = plan(epochs=1)
    assert needed_bytes(job, is_warm=False) - needed_bytes(job, is_warm=True) == LIBRARY_BYTES


def test_a_job_that_fits_is_taken():
    assert refusal("t-1", plan(), situation()) is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"is_draining": True}, "busy"),
        ({"busy_with": "t-2"}, "busy"),
        ({"policy": LocalPolicy(tasks=("x",))}, "policy"),
        ({"memory_free_bytes": 100 * MIB}, "memory"),
        ({"policy": LocalPolicy(min_free_memory_mb=1000)}, "memory"),
        ({"data": ()}, "data"),
        ({"data": (DIGITS.model_copy(update={"shape": (64,)}),)}, "data"),
        ({"data": (DIGITS.model_copy(update={"classes": 2}),)}, "data"),
        ({"data": (DIGITS.model_copy(update={"examples": 0}),)}, "data"),
        ({"models": frozenset({"mlp"})}, "model"),
        ({"backends": frozenset()}, "model"),
    ],
)
def test_each_misfit_has_its_code(changes, code):
    cause = refusal("t-1", plan(), situation(**changes))
    assert cause is not None
    assert cause.code == code


def test_a_newer_round_of_the_same_task_is_not_busy():
    assert refusal("t-1", plan(), situation(busy_with="t-1")) is None


def test_what_central_requires_is_checked_here_too():
    asked = plan().model_copy(update={"requires": Requirements(memory_mb=2000)})
    assert refusal("t-1", asked, situation()).code == "memory"
    asked = plan().model_copy(update={"requires": Requirements(backend="onnx")})
    assert refusal("t-1", asked, situation()).code == "model"


def test_a_drill_needs_no_training_library():
    assert refusal("t-1", plan(epochs=0), situation(backends=frozenset())) is None


def test_the_seed_differs_by_task_round_and_device_and_fits_53_bits():
    seeds = {
        round_seed("t-1", 1, "d1", 0),
        round_seed("t-2", 1, "d1", 0),
        round_seed("t-1", 2, "d1", 0),
        round_seed("t-1", 1, "d2", 0),
        round_seed("t-1", 1, "d1", 1),
    }
    assert len(seeds) == 5
    assert all(0 <= seed < 1 << 53 for seed in seeds)


def test_the_seed_is_a_fixed_function_of_its_parts():
    # First 8 bytes of sha256(b"t-1|1|d1|0"), masked to 53 bits.
    first = int.from_bytes(hashlib.sha256(b"t-1|1|d1|0").digest()[:8], "big")
    assert round_seed("t-1", 1, "d1", 0) == first % (1 << 53)

import pytest
from hypothesis import given
from hypothesis import strategies as st

from central.core.selection import Candidate, choose, find_fit
from schemas.limits import MAX_COHORT
from schemas.messages import Capabilities, DataDescription, DeviceState
from schemas.tasks import Requirements, TaskSubmission

DIGITS = DataDescription(name="digits", shape=(1, 8, 8), classes=10, examples=100)
MNIST = DataDescription(name="mnist", shape=(1, 28, 28), classes=10, examples=100)


def a_device(  # noqa: PLR0913 - each names one part of a device
    name, *data, region="eu", reachable=True, busy=False, refused=None, profile="generic", **has
):
    state = DeviceState(
        profile=profile,
        status="online",
        boot=1,
        capabilities=Capabilities(**{"memory_bytes": 1 << 30, **has}),
        data=data or (DIGITS,),
    )
    return Candidate(name, region, state, reachable, busy, refused)


def a_task(**fields):
    return TaskSubmission(model="mlp", **fields)


def test_the_largest_group_with_like_data_is_taken_when_the_task_names_none():
    fit = find_fit(a_task(), [a_device("a", MNIST), a_device("b"), a_device("c")])
    assert fit.devices == ("b", "c")
    assert fit.data == DIGITS
    assert fit.misfits == {"with unlike data": 1}


def test_groups_of_equal_size_are_decided_by_name():
    fit = find_fit(a_task(), [a_device("a", MNIST), a_device("b")])
    assert fit.data == DIGITS


def test_a_task_that_names_its_data_gets_only_such_devices():
    fit = find_fit(a_task(data="mnist"), [a_device("a", MNIST, DIGITS), a_device("b")])
    assert fit.devices == ("a",)
    assert fit.misfits == {"without its data": 1}


def test_the_data_of_earlier_rounds_is_kept():
    fleet = [a_device("a", MNIST), a_device("b"), a_device("c")]
    assert find_fit(a_task(), fleet, MNIST.key).devices == ("a",)


def test_examples_may_differ_between_devices_and_a_device_without_any_does_not_fit():
    fewer = DIGITS.model_copy(update={"examples": 7})
    none = DIGITS.model_copy(update={"examples": 0})
    fit = find_fit(a_task(), [a_device("a"), a_device("b", fewer), a_device("c", none)])
    assert fit.devices == ("a", "b")


@pytest.mark.parametrize(
    ("device", "asked", "why"),
    [
        ({"region": "us"}, {"regions": ("eu",)}, "in other regions"),
        ({"reachable": False}, {}, "offline"),
        ({"busy": True}, {}, "busy"),
        ({"refused": "memory"}, {}, "refused the task (memory)"),
        (
            {"memory_bytes": 1 << 20},
            {"requires": Requirements(memory_mb=2)},
            "with too little memory",
        ),
        (
            {"backends": ("onnx",)},
            {"requires": Requirements(backend="torch")},
            "without backend torch",
        ),
        ({}, {"requires": Requirements(accelerator="cuda")}, "without accelerator cuda"),
        (
            {"profile": "raspberry-pi-4"},
            {"requires": Requirements(profiles=("jetson-nano", "generic"))},
            "without profile jetson-nano or generic",
        ),
        (
            {"battery_percent": 10},
            {"requires": Requirements(battery_percent=20)},
            "with a low battery",
        ),
    ],
)
def test_a_device_that_does_not_fit_is_counted_with_its_reason(device, asked, why):
    fit = find_fit(
        a_task(**asked),
        [
            a_device("a", **device),
            a_device("b", memory_bytes=1 << 30, backends=("torch",), accelerator="cuda"),
        ],
    )
    assert fit.devices == ("b",)
    assert fit.misfits == {why: 1}


def test_a_device_on_mains_has_battery_enough():
    fit = find_fit(a_task(requires=Requirements(battery_percent=50)), [a_device("a")])
    assert fit.devices == ("a",)


def test_a_profile_that_no_device_has_leaves_the_task_waiting_with_the_number_of_each_misfit():
    asked = a_task(requires=Requirements(profiles=("my-board",)))
    fit = find_fit(asked, [a_device("a"), a_device("b", reachable=False)])
    assert fit.describe(1) == "0 devices fit, 1 are needed (1 offline, 1 without profile my-board)"


def test_too_few_devices_are_told_with_both_numbers_and_the_reasons():
    fit = find_fit(a_task(), [a_device("a"), a_device("b", reachable=False)])
    assert fit.describe(3) == "1 devices fit, 3 are needed (1 offline)"


def test_no_device_at_all_fits_nothing():
    assert find_fit(a_task(), []).data is None
    assert find_fit(a_task(), []).describe(2) == "0 devices fit, 2 are needed"


def test_all_devices_are_chosen_when_the_task_says_all():
    fit = find_fit(a_task(), [a_device(f"d{i}") for i in range(9)])
    assert choose(a_task(selection="all"), fit, 2, 1) == fit.devices


@given(st.integers(1, 30), st.integers(1, 10), st.integers(0, 5), st.integers(1, 9))
def test_a_cohort_is_sorted_large_enough_and_the_same_every_time(fleet, needed, seed, number):
    fit = find_fit(a_task(), [a_device(f"d{i:02}") for i in range(fleet)])
    task = a_task(seed=seed)
    cohort = choose(task, fit, needed, number)
    assert cohort == choose(task, fit, needed, number)
    assert list(cohort) == sorted(set(cohort))
    assert set(cohort) <= set(fit.devices)
    assert len(cohort) == min(fleet, task.cohort_size(needed))


def test_one_region_gives_at_most_what_one_assignment_can_name():
    fleet = [a_device(f"e{i:04}") for i in range(MAX_COHORT + 3)]
    fit = find_fit(a_task(), [*fleet, a_device("us-1", region="us")])
    assert len(fit.devices) == MAX_COHORT + 1
    assert fit.misfits == {f"beyond {MAX_COHORT} in one region": 3}


def test_rounds_choose_differently():
    fit = find_fit(a_task(), [a_device(f"d{i:02}") for i in range(30)])
    assert len({choose(a_task(), fit, 5, number) for number in range(1, 9)}) > 1

"""The limits that a device keeps: whose they are, and what becomes of what is above them."""

from dataclasses import replace

import pytest
from device_agent_bench import Bench, states, statuses
from hypothesis import given
from hypothesis import strategies as st
from test_device_agent_policy import plan, situation

import firmware_profiles
from device_agent import app
from device_agent.adapters.machine import LocalMachine
from device_agent.adapters.policy_file import PolicyError, load_policy
from device_agent.core.admission import refusal
from device_agent.core.limits import stricter, threads, with_profile
from device_agent.core.policy import LocalPolicy
from device_agent.settings import DeviceSettings
from schemas.limits import MIB
from schemas.profiles import Limits
from schemas.tasks import Requirements

NANO = firmware_profiles.load("jetson-nano")


def some_limits():
    count = st.none() | st.integers(1 << 20, 1 << 24)
    return st.builds(
        lambda memory, size, ceiling, floor: Limits(
            memory_bytes=memory,
            model_bytes=size,
            threads=None if size is None else 1 + size % 64,
            temperature_ceiling_celsius=ceiling,
            battery_floor_percent=floor,
        ),
        count,
        count,
        st.none() | st.floats(50, 110),
        st.none() | st.integers(0, 95),
    )


def test_of_two_limits_the_stricter_counts_one_by_one():
    one = Limits(memory_bytes=2 * MIB, threads=4, battery_floor_percent=20, power_mode="15W")
    other = Limits(memory_bytes=MIB, batch_size=8, battery_floor_percent=30, power_mode="MAXN")
    assert stricter(one, other) == Limits(
        memory_bytes=MIB, threads=4, batch_size=8, battery_floor_percent=30, power_mode="15W"
    )


def test_the_lower_ceiling_is_taken_and_the_lower_end_of_the_pause():
    one = Limits(temperature_ceiling_celsius=90, temperature_resume_celsius=60)
    other = Limits(temperature_ceiling_celsius=80, temperature_resume_celsius=75)
    both = stricter(one, other)
    assert (both.temperature_ceiling_celsius, both.resume_celsius) == (80, 60)


@given(some_limits(), some_limits())
def test_the_stricter_of_two_limits_is_no_looser_than_either(one, other):
    both = stricter(one, other)
    assert both.model_dump() == stricter(other, one).model_dump()
    assert stricter(both, one) == both
    for name in ("memory_bytes", "model_bytes", "threads", "temperature_ceiling_celsius"):
        given_ = [getattr(each, name) for each in (one, other) if getattr(each, name) is not None]
        assert getattr(both, name) == min(given_, default=None)


def test_no_limits_add_nothing_but_the_end_of_a_pause_that_is_implied():
    alone = stricter(NANO.limits, Limits())
    assert alone == NANO.limits


def test_an_owner_tightens_a_profile_and_does_not_loosen_it():
    policy = LocalPolicy(limits=Limits(batch_size=16, threads=64), max_epochs=3)
    joined = with_profile(policy, NANO)
    assert (joined.limits.batch_size, joined.limits.threads) == (16, 4)
    assert joined.max_epochs == 3
    assert with_profile(policy, firmware_profiles.load("generic")).limits == policy.limits


@pytest.mark.parametrize(
    ("asked", "expected"), [(None, NANO.threads), (1, 1), (2, 2), (16, 4), (256, 4)]
)
def test_threads_are_the_settings_else_the_profile_s_and_never_above_the_limit(asked, expected):
    assert threads(asked, NANO, NANO.limits) == expected
    assert threads(asked, NANO, Limits()) == (NANO.threads if asked is None else asked)


@pytest.mark.parametrize(
    ("limits", "changes", "code", "told"),
    [
        ({"batch_size": 16}, {}, "policy", "limits.batch_size: 32 are asked, at most 16"),
        ({"model_bytes": 3999}, {}, "policy", "limits.model_bytes: the model has 4000, at most"),
        ({"memory_bytes": 64 * MIB}, {}, "memory", "limits.memory_bytes: 180 MiB needed, 64 all"),
        ({"battery_floor_percent": 30}, {"battery_percent": 29}, "battery", "29 %, at least 30"),
    ],
)
def test_what_is_above_a_limit_is_refused_by_its_name(limits, changes, code, told):
    limited = LocalPolicy(limits=Limits(**limits))
    cause = refusal("t-1", plan(), situation(policy=limited, **changes))
    assert cause is not None
    assert cause.code == code
    assert told in cause.reason


@pytest.mark.parametrize(
    ("limits", "changes"),
    [
        ({"batch_size": 32}, {}),
        ({"model_bytes": 4000}, {}),
        ({"memory_bytes": 256 * MIB}, {}),
        ({"battery_floor_percent": 30}, {"battery_percent": 30}),
        ({"battery_floor_percent": 30}, {"battery_percent": 3, "is_plugged": True}),
        ({"battery_floor_percent": 30}, {"battery_percent": None}),
    ],
)
def test_what_keeps_within_a_limit_is_taken(limits, changes):
    limited = LocalPolicy(limits=Limits(**limits))
    assert refusal("t-1", plan(), situation(policy=limited, **changes)) is None


def test_a_drill_has_no_batches_that_could_be_too_large():
    limited = situation(policy=LocalPolicy(limits=Limits(batch_size=1)))
    assert refusal("t-1", plan(epochs=0), limited) is None


def test_memory_that_is_left_free_is_not_counted_against_what_a_job_may_take():
    limited = LocalPolicy(limits=Limits(memory_bytes=200 * MIB), min_free_memory_mb=500)
    assert refusal("t-1", plan(), situation(policy=limited)) is None


def test_the_battery_that_a_task_asks_for_is_looked_at_when_the_job_comes():
    asked = plan().model_copy(update={"requires": Requirements(battery_percent=50)})
    assert refusal("t-1", asked, situation(battery_percent=49)).code == "battery"
    assert refusal("t-1", asked, replace(situation(), battery_percent=50)) is None


def test_a_low_battery_refuses_a_job_and_a_full_one_takes_the_next(tmp_path):
    bench = Bench(tmp_path, LocalPolicy(limits=Limits(battery_floor_percent=30)))
    bench.machine.battery_percent = 20
    (status,) = statuses(bench.assign())
    assert (status.state, status.code) == ("rejected", "battery")
    bench.machine.battery_percent = 31
    assert states(bench.assign(number=2)) == ["training"]


def test_a_policy_file_has_limits_of_the_same_names(tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text("metered_uploads = true\n[limits]\ntemperature_ceiling_celsius = 70\n")
    policy = load_policy(file)
    assert policy.metered_uploads
    assert policy.limits == Limits(temperature_ceiling_celsius=70)
    file.write_text("[limits]\ntemperature_celing_celsius = 70\n")
    with pytest.raises(PolicyError, match="did you mean 'temperature_ceiling_celsius'"):
        load_policy(file)


def test_a_birth_tells_the_limits_and_the_memory_that_they_leave():
    found = LocalMachine(("onnx",), limits=Limits(memory_bytes=64 * MIB, threads=2)).capabilities()
    assert found.memory_bytes == 64 * MIB
    assert found.limits.threads == 2


def settings(**given):
    return DeviceSettings(region="r1", id="d1", **given)


def test_what_the_settings_leave_open_comes_from_the_profile():
    orin = firmware_profiles.load("jetson-orin-nano")
    found = app._providers(settings(), orin, ("onnx",))
    assert found.names == ("cpu",)
    assert found.fallback == "cuda: not in this onnxruntime"
    assert app._providers(settings(providers=("cpu",)), orin, ("onnx",)).fallback is None


def test_the_profile_s_order_of_backends_counts_unless_the_owner_names_one(monkeypatch):
    monkeypatch.setattr(app.backends, "installed", lambda choice: ("onnx", "torch"))
    assert app._backends(settings(), NANO) == ("onnx",)
    assert app._backends(settings(backend="auto"), NANO) == ("onnx", "torch")
    assert app._backends(settings(), firmware_profiles.load("generic")) == ("onnx", "torch")


def test_a_device_is_not_left_without_any_backend_by_its_profile(monkeypatch):
    monkeypatch.setattr(app.backends, "installed", lambda _: ("torch",))
    assert app._backends(settings(), NANO) == ("torch",)

"""The model of a firmware profile: strict, bounded, and every fact has its source."""

import pytest

from schemas.errors import MessageError
from schemas.profiles import DEFAULT_HYSTERESIS_CELSIUS, Limits, numbers, parse_profile

SOURCE = {"fact": "a board", "source": "own choice: for a test"}


def table(**fields):
    least = {
        "family": "my-board",
        "description": "A board of my own",
        "detection": {"models": ["My Board*"], "architectures": ["aarch64"]},
        "wheels": {"pythons": ["3.11"]},
        "sources": [SOURCE],
    }
    return least | fields


def test_a_profile_needs_no_more_than_who_it_is_for_and_where_that_is_known_from():
    profile = parse_profile(table())
    assert profile.limits == Limits()
    assert (profile.threads, profile.providers, profile.precision) == (1, ("cpu",), "float32")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"limit": {}}, "limit: unknown field; did you mean 'limits'?"),
        (
            {"limits": {"batchsize": 3}},
            "limits.batchsize: unknown field; did you mean 'batch_size'",
        ),
        ({"limits": {"threads": 0}}, "limits.threads: 0: "),
        ({"limits": {"threads": "4"}}, "limits.threads: '4': "),
        ({"limits": {"temperature_ceiling_celsius": 300}}, "temperature_ceiling_celsius: 300"),
        ({"limits": {"battery_floor_percent": 100}}, "battery_floor_percent: 100"),
        (
            {"limits": {"temperature_ceiling_celsius": 80, "temperature_resume_celsius": 80}},
            "temperature_resume_celsius: 80 must be below temperature_ceiling_celsius: 80",
        ),
        ({"limits": {"temperature_resume_celsius": 70}}, "temperature_resume_celsius: 70"),
        ({"threads": 5, "limits": {"threads": 4}}, "threads: 5 is above limits.threads: 4"),
        ({"providers": ["cuda"]}, "providers: the last must be cpu, not cuda"),
        ({"providers": ["rocm", "cpu"]}, "providers.0: 'rocm'"),
        ({"precision": "float64"}, "precision: 'float64'"),
        ({"chunk_bytes": 1000}, "chunk_bytes: 1000"),
        ({"wheels": {"pythons": [3.1]}}, "wheels.pythons.0: 3.1"),
        ({"sources": []}, "sources: "),
        ({"sources": [{"fact": "x", "source": "somebody said"}]}, "sources.0.source: 'somebody"),
        ({"sources": [{"fact": "x", "source": "own choice: "}]}, "sources.0.source: 'own choice"),
        ({"detection": {"l4t_min": "36.2", "l4t_max": "35.1"}}, "l4t_min: 36.2 is above"),
        (
            {"detection": {"memory_min_bytes": 1 << 30, "memory_max_bytes": 1 << 29}},
            "memory_min_bytes: 1073741824 is above",
        ),
        ({"family": "../etc"}, "family: '../etc'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_with_its_value(fields, told):
    with pytest.raises(MessageError) as caught:
        parse_profile(table(**fields))
    assert told in str(caught.value)


@pytest.mark.parametrize("other", [None, [], "text", 3])
def test_what_is_no_table_is_no_profile(other):
    with pytest.raises(MessageError):
        parse_profile(other)


def test_training_goes_on_some_degrees_below_the_ceiling_where_nothing_else_is_said():
    assert Limits(temperature_ceiling_celsius=80).resume_celsius == 80 - DEFAULT_HYSTERESIS_CELSIUS
    said = Limits(temperature_ceiling_celsius=80, temperature_resume_celsius=60)
    assert said.resume_celsius == 60
    assert Limits().resume_celsius is None


def test_versions_are_compared_by_their_numbers():
    assert numbers("3.9") < numbers("3.10") < numbers("3.10.1")

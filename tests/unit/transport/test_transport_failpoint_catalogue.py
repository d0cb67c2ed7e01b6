"""The catalogue of failpoints is the source's own: none missing, none extra, none twice."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from transport import failpoints
from transport.failpoint_catalogue import PROGRAMS, arm_program, catalogue
from transport.failpoints import VARIABLE, FailpointError, arm

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = {"central": "central", "regional_gateway": "gateway", "device_agent": "device"}
PURE = ("schemas", "updates", "central/core", "regional_gateway/core", "device_agent/core")
AT_LEAST = 60


@pytest.fixture(autouse=True)
def disarmed():
    yield
    arm(None)


def calls(package):
    """Yield (file, argument) of every call of ``failpoint`` in a package."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "failpoint":
                yield path, node.args[0]


def names(package):
    found = []
    for path, argument in calls(package):
        assert isinstance(argument, ast.Constant), f"{path}:{argument.lineno} is not a literal"
        found.append(argument.value)
    return found


def all_names():
    return [name for package in ("transport", *PACKAGES) for name in names(package)]


def test_the_catalogue_names_what_the_source_names_and_nothing_else():
    assert sorted(place.name for place in catalogue()) == sorted(set(all_names()))


def test_no_failpoint_stands_at_two_places():
    assert [name for name, times in Counter(all_names()).items() if times > 1] == []


def test_there_are_many_failpoints():
    assert len(catalogue()) >= AT_LEAST


def test_a_name_says_program_subject_and_when():
    for place in catalogue():
        assert len(place.name.split(".")) == 3, place.name


@pytest.mark.parametrize("package", PACKAGES)
def test_a_programs_own_failpoints_begin_with_its_name_and_are_its_alone(package):
    program = PACKAGES[package]
    found = {place.name: place.programs for place in catalogue()}
    for name in names(package):
        assert name.split(".")[0] == program
        assert found[name] == (program,)


def test_those_of_the_transport_belong_to_programs_that_there_are():
    found = {place.name: place.programs for place in catalogue()}
    for name in names("transport"):
        assert name.split(".")[0] == "transport"
        assert found[name]
        assert set(found[name]) <= set(PROGRAMS)


@pytest.mark.parametrize("package", PURE)
def test_pure_code_has_no_failpoints(package):
    assert list(calls(package)) == []


def test_each_says_in_one_line_what_is_durable():
    for place in catalogue():
        assert place.edge.endswith(".")
        assert "\n" not in place.edge


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_the_variable_a_program_arms_nothing(program):
    arm(print)
    arm_program(program, {})
    assert failpoints._hook is None


def test_a_program_arms_a_failpoint_that_it_comes_by():
    arm_program("device", {VARIABLE: "transport.outbox.held:3:kill"})
    assert failpoints._hook is not None


@pytest.mark.parametrize("name", ["transport.outbox.hold", "central.task.added"])
def test_a_failpoint_that_a_program_never_comes_by_is_refused_by_name(name):
    with pytest.raises(FailpointError, match=f"'{name}' is none of the .* failpoints of device"):
        arm_program("device", {VARIABLE: f"{name}:1:kill"})
    assert failpoints._hook is None

"""The profiles that come with the package: each fits, and keeps what it promises."""

import re
from pathlib import Path

import pytest

import firmware_profiles
from central.modeling import forward
from central.modeling.export import _opset_of
from central.modeling.training_graph import builder
from firmware_profiles import ProfileError, load, load_all, names, parse, read
from schemas.profiles import numbers
from tests.runtimes.environments import RUNTIMES
from updates.choice import AUTO
from updates.codecs import names as codecs

ROOT = Path(__file__).parents[3]
FAMILIES = [
    "generic",
    "generic-arm",
    "jetson-agx-orin",
    "jetson-nano",
    "jetson-orin-nano",
    "jetson-xavier-nx",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "x86-64-edge",
]
PROFILES = {profile.family: profile for profile in load_all()}


def test_every_family_has_its_file():
    assert list(names()) == FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_is_called_as_its_family(name):
    assert load(name).family == name


@pytest.mark.parametrize("name", FAMILIES)
def test_the_oldest_runtime_of_a_family_runs_what_central_writes(name):
    runtime = PROFILES[name].runtime
    for written in (forward, builder):
        assert runtime.opset >= written.OPSET
        assert runtime.ir_version >= written.IR_VERSION
    assert _opset_of(runtime.onnxruntime_oldest) >= forward.OPSET
    # tests/runtimes trains on this version: what a table says was also run.
    run = {match[1] for one in RUNTIMES if (match := re.match(r"(\d+\.\d+)", one.name))}
    assert runtime.onnxruntime_oldest in run


@pytest.mark.parametrize("name", FAMILIES)
def test_the_agent_can_be_installed_as_a_profile_says(name):
    project = (ROOT / "pyproject.toml").read_text()
    oldest_python = re.search(r'requires-python = ">=([\d.]+)"', project)[1]
    oldest_runtime = re.search(r'device = \["onnxruntime>=([\d.]+)"', project)[1]
    profile = PROFILES[name]
    assert all(numbers(one) >= numbers(oldest_python) for one in profile.wheels.pythons)
    assert numbers(profile.runtime.onnxruntime_oldest) >= numbers(oldest_runtime)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_codec_of_a_profile_is_one(name):
    assert PROFILES[name].link.codec in {AUTO, *codecs()}


@pytest.mark.parametrize("name", [name for name in FAMILIES if "generic" not in name])
def test_a_particular_family_has_facts_with_an_address_or_a_measurement(name):
    said = [source.source for source in PROFILES[name].sources]
    assert any(one.startswith(("https://", "measured: ")) for one in said)
    assert any(one.startswith("own choice: ") for one in said)


def test_what_nobody_ran_on_such_hardware_does_not_claim_it():
    ran = {name for name, one in PROFILES.items() if one.known_good.verified == "hardware"}
    assert ran == {"x86-64-edge"}


def test_the_generic_profile_limits_nothing():
    assert load(firmware_profiles.GENERIC).limits.model_dump(exclude_none=True) == {}


def test_a_name_that_is_not_known_is_told_with_those_that_are():
    with pytest.raises(
        ProfileError, match=r"'jetson' is not known; there is generic, .*jetson-na"
    ):
        load("jetson")


@pytest.mark.parametrize("name", ["../generic", "generic.yaml", "", "__init__"])
def test_a_name_is_never_a_path(name):
    with pytest.raises(ProfileError, match="is not known"):
        load(name)


def test_a_file_of_ones_own_is_read_and_named_where_it_does_not_fit(tmp_path):
    file = tmp_path / "mine.yaml"
    text = (ROOT / "firmware_profiles" / "generic.yaml").read_text()
    file.write_text(text.replace("family: generic", "family: mine"))
    assert read(file).family == "mine"
    file.write_text(text.replace("family:", "famly:"))
    with pytest.raises(ProfileError, match=r"mine\.yaml: .*famly: unknown field; did you mean"):
        read(file)
    with pytest.raises(ProfileError, match=r"nowhere\.yaml"):
        read(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "parsing"),
        ("a: 1\na: 2", "line 1: a: given twice"),
        ("a: &x [1]\nb: *x", "line 2: aliases are not allowed"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("- 1", "my file: "),
        ("x" * 70_000, "at most 65536 are allowed"),
        ("[" * 900, "line 1: deeper than 16 levels"),
        ("[" * 5000, "my file: "),
    ],
)
def test_a_text_that_is_no_profile_is_refused(text, told):
    with pytest.raises(ProfileError) as caught:
        parse(text, "my file")
    assert told in str(caught.value)


def test_a_server_that_is_taken_for_an_edge_box_may_use_the_threads_that_its_owner_names():
    assert load("x86-64-edge").limits.threads is None

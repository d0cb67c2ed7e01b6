"""Which profile a machine has, on the files of such machines."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import firmware_profiles
from device_agent.adapters.machine_files import read_machine
from device_agent.adapters.profile_choice import choose_profile
from device_agent.core.detection import Seen, detect
from firmware_profiles import ProfileError
from schemas.profiles import Detection

MACHINES = Path(__file__).parents[2] / "golden" / "machines"
PROFILES = firmware_profiles.load_all()
EXPECTED = {
    "jetson-nano": "jetson-nano",
    "jetson-nano-2gb": "jetson-nano",
    "jetson-xavier-nx": "jetson-xavier-nx",
    "jetson-orin-nano": "jetson-orin-nano",
    "jetson-orin-nano-as-nx": "jetson-orin-nano",
    "jetson-agx-orin": "jetson-agx-orin",
    "raspberry-pi-4": "raspberry-pi-4",
    "raspberry-pi-compute-module-4": "raspberry-pi-4",
    "raspberry-pi-5": "raspberry-pi-5",
}
#: Machines of no family, what they get instead, and the word on it.
UNKNOWN = {
    "jetson-nano-old-firmware": ("generic-arm", "not jetson-nano: L4T 32.5.0, it is for 32.6 to"),
    "jetson-orin-nano-newer-firmware": ("generic-arm", "L4T 39.2.0, it is for 36.2 to 36.5"),
    "raspberry-pi-4-32-bit": ("generic-arm", "not raspberry-pi-4: architecture armv7l, it is for"),
    "rock-5b": ("generic-arm", "no profile is for this board (Radxa ROCK 5B, aarch64)"),
    "visionfive-2": ("generic", "no profile is for this board (StarFive VisionFive 2"),
    "x86-64-edge": ("x86-64-edge", "no profile is for this board (no device tree, x86_64)"),
}


def found_at(name):
    return detect(read_machine(MACHINES / name), PROFILES)


def test_there_is_a_tree_of_every_machine_and_of_every_family():
    trees = {path.name for path in MACHINES.iterdir() if path.is_dir()}
    assert trees == EXPECTED.keys() | UNKNOWN.keys()
    families = {*EXPECTED.values(), *(family for family, _ in UNKNOWN.values())}
    assert families == set(firmware_profiles.names())


@pytest.mark.parametrize(("tree", "family"), EXPECTED.items())
def test_a_machine_has_the_profile_of_its_family(tree, family):
    found = found_at(tree)
    assert (found.name, found.is_certain) == (family, True)
    assert "compatible" in found.reason


@pytest.mark.parametrize(("tree", "expected"), UNKNOWN.items())
def test_a_machine_of_no_family_has_its_architecture_s_and_the_reason_is_told(tree, expected):
    found, (family, why) = found_at(tree), expected
    assert (found.name, found.is_certain) == (family, False)
    assert why in found.reason


def test_everything_is_read_of_a_machine():
    assert read_machine(MACHINES / "jetson-orin-nano-as-nx") == Seen(
        architecture="aarch64",
        memory_bytes=7650336 * 1024,
        model="NVIDIA Jetson Orin NX Engineering Reference Developer Kit Super",
        compatible=("nvidia,p3768-0000+p3767-0003-super", "nvidia,p3767-0003", "nvidia,tegra234"),
        l4t="36.4.3",
        cores=6,
    )


def test_strings_of_the_device_tree_end_with_a_zero_byte_in_the_trees_too():
    files = [*MACHINES.glob("*/proc/device-tree/*")]
    assert len(files) == 2 * len([*MACHINES.glob("*/proc/device-tree")]) > 20
    assert all(file.read_bytes().endswith(b"\0") for file in files)


def test_of_a_machine_without_files_only_nothing_is_known(tmp_path):
    assert read_machine(tmp_path) == Seen("unknown")
    assert detect(read_machine(tmp_path), PROFILES).name == "generic"


def test_this_machine_tells_its_own_architecture():
    here = read_machine()
    assert here.architecture == os.uname().machine
    assert here.memory_bytes > 0
    assert here.cores > 0


def test_files_that_are_damaged_say_nothing(tmp_path):
    shutil.copytree(MACHINES / "jetson-nano", tmp_path / "x")
    (tmp_path / "x/etc/nv_tegra_release").write_bytes(b"# R32 (rele\xff\xfe")
    (tmp_path / "x/proc/meminfo").write_bytes(b"\x80")
    found = detect(read_machine(tmp_path / "x"), PROFILES)
    assert found.name == "generic-arm"
    assert "no L4T release was found, it is for 32.6 to 32.7" in found.reason


def test_memory_out_of_a_family_s_range_is_not_that_family():
    seen = replace(read_machine(MACHINES / "jetson-nano"), memory_bytes=64 << 30)
    found = detect(seen, PROFILES)
    assert found.name == "generic-arm"
    assert "memory_max_bytes" in found.reason
    assert found.near == ("jetson-nano",)


def variant(family, **detection):
    own = firmware_profiles.load("raspberry-pi-4")
    changed = Detection(**(own.detection.model_dump() | detection))
    return own.model_copy(update={"family": family, "detection": changed})


def test_of_two_that_fit_the_higher_priority_is_taken_and_the_other_is_near():
    mine = variant("my-pi", priority=60)
    found = detect(read_machine(MACHINES / "raspberry-pi-4"), [*PROFILES, mine])
    assert (found.name, found.near) == ("my-pi", ("raspberry-pi-4",))


def test_two_that_fit_alike_are_ambiguous_and_neither_is_taken():
    mine = variant("a-pi")
    found = detect(read_machine(MACHINES / "raspberry-pi-4"), [*PROFILES, mine])
    assert (found.name, found.is_certain) == ("generic-arm", False)
    assert found.reason.startswith("ambiguous, a-pi and raspberry-pi-4 fit alike (Raspberry Pi 4")
    assert found.near == ("a-pi", "raspberry-pi-4")


def test_the_order_of_the_profiles_changes_nothing():
    for name in EXPECTED.keys() | UNKNOWN.keys():
        seen = read_machine(MACHINES / name)
        assert detect(seen, PROFILES) == detect(seen, PROFILES[::-1])


def test_without_any_profile_there_is_still_the_generic_one():
    assert detect(Seen("aarch64"), []).name == "generic"


def test_an_owner_s_word_wins_over_what_is_detected(tmp_path):
    root = MACHINES / "raspberry-pi-5"
    assert choose_profile("auto", root).profile.family == "raspberry-pi-5"
    assert choose_profile("jetson-nano", root).profile.family == "jetson-nano"
    file = tmp_path / "mine.yaml"
    text = (Path(firmware_profiles.__file__).parent / "generic.yaml").read_text()
    file.write_text(text.replace("family: generic", "family: mine"))
    assert choose_profile(str(file), root).profile.family == "mine"
    with pytest.raises(ProfileError, match="'nano' is not known"):
        choose_profile("nano", root)

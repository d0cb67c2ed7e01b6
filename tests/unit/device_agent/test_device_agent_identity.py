"""The id that a device draws for itself."""

import itertools

import numpy as np
import pytest
from click.testing import CliRunner

from device_agent.adapters.data_sources import Sample, load_data
from device_agent.adapters.identity import AUTO, FILE, IdentityError, own_id
from device_agent.cli import device
from learning.data.dataset import DataError


def counted():
    numbers = itertools.count(1)
    return lambda: f"{next(numbers):012x}"


def test_a_given_id_is_taken_and_nothing_is_written(tmp_path):
    assert own_id("jetson-7", tmp_path, counted()) == "jetson-7"
    assert list(tmp_path.iterdir()) == []


def test_auto_draws_an_id_once_and_keeps_it_with_the_state(tmp_path):
    draw = counted()
    first = own_id(AUTO, tmp_path, draw)
    assert first == "d-000000000001"
    assert own_id(AUTO, tmp_path, draw) == first
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_another_state_directory_is_another_device(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    draw = counted()
    assert own_id(AUTO, tmp_path / "a", draw) != own_id(AUTO, tmp_path / "b", draw)


@pytest.mark.parametrize("text", ["", "Device 1", "auto", "all", "x" * 40, "a/b", "\udcff"])
def test_a_file_that_holds_no_id_is_refused_by_name(tmp_path, text):
    (tmp_path / FILE).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(IdentityError, match=r"device-id.*is not a device's id; remove the file"):
        own_id(AUTO, tmp_path, counted())


@pytest.fixture
def examples(tmp_path):
    x = np.arange(200, dtype=np.float32).reshape(200, 1)
    np.savez(tmp_path / "all.npz", x=x, y=np.arange(200) % 4)
    return f"npz={tmp_path / 'all.npz'}"


def test_devices_draw_their_own_examples_from_what_all_of_them_have(examples):
    def drawn(name):
        return load_data((examples,), None, 0.5, 0, Sample(name, 30))["npz"].x[:, 0].tolist()

    assert len(drawn("d-1")) == 30
    assert drawn("d-1") == drawn("d-1") != drawn("d-2")


def test_a_shard_and_a_sample_at_once_are_refused(examples):
    with pytest.raises(DataError, match="sample: 30 with shard 1/2: give one of them"):
        load_data((examples,), "1/2", None, 0, Sample("d-1", 30))


def test_the_program_keeps_the_id_that_it_drew(tmp_path):
    arguments = ["--region", "r1", "--id", "auto", "--data", "npz=nowhere.npz"]
    for _ in range(2):
        done = CliRunner().invoke(device, [*arguments, "--state-dir", str(tmp_path)])
        assert done.exit_code == 1
        assert "nowhere.npz" in done.output
    kept = (tmp_path / FILE).read_text()
    assert own_id(AUTO, tmp_path, lambda: "never") == kept.strip()
    assert kept.startswith("d-")
    assert len(kept) == len("d-0123456789ab\n")

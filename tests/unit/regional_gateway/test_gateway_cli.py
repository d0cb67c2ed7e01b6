"""The command line of a gateway."""

import pytest
from click.testing import CliRunner

from regional_gateway import app
from regional_gateway.cli import gateway
from transport.database import DatabaseCorruptError


@pytest.fixture
def ran(monkeypatch):
    found = []

    def run(settings):
        found.append(settings)
        return 0

    monkeypatch.setattr(app, "run", run)
    return found


def test_flags_become_settings(ran, tmp_path):
    flags = ["--region", "eu", "--broker", "mqtt://b:1", "--uplink", "mqtt://c:2"]
    more = ["--state-dir", str(tmp_path), "--mqtt-protocol", "5"]
    last = ["--custody-quota-bytes", "2000000"]
    result = CliRunner().invoke(gateway, [*flags, *more, *last])
    assert result.exit_code == 0
    (settings,) = ran
    assert (settings.region, settings.broker, settings.uplink_url) == (
        "eu",
        "mqtt://b:1",
        "mqtt://c:2",
    )
    assert (settings.mqtt_protocol, settings.custody_quota_bytes) == ("5", 2_000_000)
    assert settings.state_dir == tmp_path


def test_the_uplink_is_the_regions_broker_unless_another_is_named(ran, tmp_path):
    config = tmp_path / "gateway.toml"
    config.write_text('region = "eu"\nbroker = "mqtt://b:1"\n')
    assert CliRunner().invoke(gateway, ["--config", str(config)]).exit_code == 0
    assert ran[0].uplink_url == "mqtt://b:1"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "region"),
        (["--region", "gw"], "reserved"),
        (["--region", "eu", "--custody-quota-bytes", "5"], "custody_quota_bytes"),
    ],
)
def test_settings_that_make_no_sense_end_with_code_2_and_say_so(ran, flags, says):
    result = CliRunner().invoke(gateway, flags)
    assert result.exit_code == 2
    assert says in result.output
    assert ran == []


def test_a_gateway_that_cannot_run_ends_with_code_1_and_one_line(monkeypatch, tmp_path):
    def run(settings):
        raise DatabaseCorruptError(settings.state_dir, "torn")

    monkeypatch.setattr(app, "run", run)
    result = CliRunner().invoke(gateway, ["--region", "eu", "--state-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "damaged" in result.output

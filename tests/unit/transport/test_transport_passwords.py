"""Where a password may come from: a file that a setting names, or a credential of systemd."""

import pytest

from regional_gateway.settings import GatewaySettings
from transport.settings import ConnectionSettings, SettingsError


@pytest.fixture
def credentials(tmp_path, monkeypatch):
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    (folder / "broker-password").write_text("s3cret\n")
    return folder


def test_without_a_file_the_url_says_it():
    assert ConnectionSettings.load().password is None


def test_the_first_line_of_the_file_is_the_password(tmp_path):
    path = tmp_path / "password"
    path.write_text("  a b#c \r\nnot this\n")
    assert ConnectionSettings.load(password_file=path).password == "  a b#c "


@pytest.mark.parametrize("text", [None, "", "\n"])
def test_a_file_without_a_password_is_named(tmp_path, text):
    path = tmp_path / "password"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=r"^password_file: .*password"):
        _ = ConnectionSettings.load(password_file=path).password


def test_a_credential_is_found_without_any_setting(credentials):
    assert ConnectionSettings.load().password == "s3cret"


def test_credentials_are_files_for_tls_too(credentials):
    (credentials / "ca.pem").write_text("")
    settings = ConnectionSettings.load()
    assert (settings.ca_file, settings.cert_file) == (credentials / "ca.pem", None)


def test_what_the_file_of_settings_says_comes_before_a_credential(credentials, tmp_path):
    (tmp_path / "other").write_text("other")
    config = tmp_path / "device.toml"
    config.write_text(f"password_file = '{tmp_path / 'other'}'\n")
    assert ConnectionSettings.load(config).password == "other"
    assert ConnectionSettings.load(config, password_file=None).password == "other"


def test_a_credential_serves_beside_a_file_of_settings(credentials, tmp_path):
    config = tmp_path / "device.toml"
    config.write_text("keepalive_s = 30\n")
    settings = ConnectionSettings.load(config)
    assert (settings.keepalive_s, settings.password) == (30, "s3cret")


def test_two_brokers_have_two_passwords(credentials):
    (credentials / "uplink-password").write_text("up")
    both = GatewaySettings.load(region="north", uplink="mqtt://central")
    assert (both.password, both.uplink_password) == ("s3cret", "up")


def test_one_broker_has_one_password(credentials):
    assert GatewaySettings.load(region="north").uplink_password == "s3cret"


def test_an_uplink_gets_no_password_of_the_regions_broker(credentials):
    assert GatewaySettings.load(region="north", uplink="mqtt://central").uplink_password is None

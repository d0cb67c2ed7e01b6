"""Broker URLs, their login and their TLS files."""

from pathlib import Path

import pytest

from transport.broker_url import BrokerAddress, BrokerUrlError, parse_broker_url


@pytest.mark.parametrize(
    ("url", "host", "port", "is_tls"),
    [
        ("mqtt://broker", "broker", 1883, False),
        ("mqtt://broker:1884/", "broker", 1884, False),
        ("mqtts://broker.example", "broker.example", 8883, True),
        ("mqtts://10.0.0.1:443", "10.0.0.1", 443, True),
        ("mqtt://[::1]:9", "::1", 9, False),
        (" mqtt://broker\n", "broker", 1883, False),
    ],
)
def test_a_url_names_host_port_and_tls(url: str, host: str, port: int, is_tls: bool) -> None:
    assert parse_broker_url(url) == BrokerAddress(host, port, is_tls)


def test_a_login_may_be_percent_encoded() -> None:
    address = parse_broker_url("mqtt://a%40b:p%3Aw%2F@host")

    assert (address.username, address.password) == ("a@b", "p:w/")


def test_an_argument_overrides_the_url_s_login() -> None:
    address = parse_broker_url("mqtt://ada:old@host").with_login(None, "new")

    assert (address.username, address.password) == ("ada", "new")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("broker:1883", "scheme"),
        ("http://broker", "scheme"),
        ("mqtt://", "no host"),
        ("mqtt://:1883", "no host"),
        ("mqtt://broker:0", "port 0"),
        ("mqtt://broker:65536", "range"),
        ("mqtt://broker:x", "broker url"),
        ("mqtt://broker/path", "nothing may follow"),
        ("mqtt://broker?tls=1", "nothing may follow"),
        ("mqtt://:secret@broker", "user name"),
        ("mqtt://[::1", "broker url"),
        ("", "scheme"),
    ],
)
def test_a_malformed_url_is_a_clear_error_without_its_password(url: str, problem: str) -> None:
    with pytest.raises(BrokerUrlError, match=problem) as caught:
        parse_broker_url(url)

    assert "secret" not in str(caught.value)


def test_neither_the_log_form_nor_the_repr_shows_a_password() -> None:
    address = parse_broker_url("mqtts://ada:secret@[::1]")

    assert address.shown == "mqtts://[::1]:8883"
    assert "secret" not in repr(address)


def test_tls_files_need_tls_and_a_key_needs_a_certificate() -> None:
    plain, tls = parse_broker_url("mqtt://host"), parse_broker_url("mqtts://host")

    with pytest.raises(BrokerUrlError, match="not mqtts"):
        plain.with_tls_files(Path("ca.pem"), None, None)
    with pytest.raises(BrokerUrlError, match="certificate"):
        tls.with_tls_files(None, None, Path("key.pem"))
    assert tls.with_tls_files(Path("ca.pem"), Path("c.pem"), None).cert_file == Path("c.pem")
    assert plain.with_tls_files(None, None, None) == plain

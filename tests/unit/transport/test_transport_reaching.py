"""The way to a broker below MQTT: each step says what it met, in its time."""

import socket
import threading
import time
from contextlib import closing

import pytest

from tests.support.brokers import free_port
from transport.broker_url import parse_broker_url
from transport.reaching import bounded, knock, resolve, shake_hands


def test_what_takes_too_long_is_left_behind():
    release = threading.Event()
    begun_s = time.monotonic()
    assert bounded(release.wait, 0.1) is None
    assert time.monotonic() - begun_s < 5.0
    release.set()
    assert bounded(lambda: 7, 30.0) == 7


def test_what_a_step_raises_is_raised():
    def fail():
        message = "no"
        raise KeyError(message)

    with pytest.raises(KeyError):
        bounded(fail, 30.0)


def test_a_name_is_resolved_or_said_to_be_unknown():
    assert "127.0.0.1" in resolve(parse_broker_url("mqtt://127.0.0.1"), 10.0).seen
    assert resolve(parse_broker_url("mqtt://nobody.invalid"), 10.0).problem


def test_a_port_is_open_or_closed():
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        assert knock(parse_broker_url(f"mqtt://127.0.0.1:{port}"), 10.0).problem is None
    closed = knock(parse_broker_url(f"mqtt://127.0.0.1:{free_port()}"), 10.0)
    assert closed.problem == "Connection refused"


def test_a_port_that_does_not_speak_tls_fails_the_handshake_in_time():
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        told = shake_hands(parse_broker_url(f"mqtts://127.0.0.1:{port}"), 0.2)
    assert told.problem
    assert (told.version, told.validity) == ("", None)


def test_a_ca_file_that_is_not_there_is_told(tmp_path):
    address = parse_broker_url("mqtts://127.0.0.1").with_tls_files(tmp_path / "no.pem", None, None)
    assert shake_hands(address, 1.0).problem == "No such file or directory"

"""The fleet's installer against a real sshd on loopback: keys, a refused login, a copied wheel."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.jetson.fleet_ssh import Connection, HostFailedError

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        SSHD is None or shutil.which("ssh") is None,
        reason="needs openssh-server and openssh-client",
    ),
]

CONFIG = """Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


def keygen(path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextmanager
def serving(folder, port):
    config = folder / "sshd_config"
    config.write_text(CONFIG.format(port=port, folder=folder))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    command = [SSHD, "-D", "-e", "-f", str(config)]
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        wait_until_it_listens(process, port, folder / "sshd.log")
        yield
    finally:
        process.terminate()
        process.wait(10)


def wait_until_it_listens(process, port, log):
    for _ in range(100):
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("sshd does not listen")


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """A directory first on PATH whose ssh and scp read this test's own configuration."""
    for name in ("host_key", "good_key", "bad_key"):
        keygen(tmp_path / name)
    shutil.copy(tmp_path / "good_key.pub", tmp_path / "authorized")
    port = free_port()
    config = tmp_path / "config"
    common = f"HostName 127.0.0.1\nPort {port}\nIdentitiesOnly yes\nUser {os.environ.get('USER') or 'root'}\n"
    known = f"StrictHostKeyChecking accept-new\nUserKnownHostsFile {tmp_path}/known\n"
    config.write_text(
        f"Host good\n{common}{known}IdentityFile {tmp_path}/good_key\n"
        f"Host bad\n{common}{known}IdentityFile {tmp_path}/bad_key\n"
        f"Host strange\n{common}StrictHostKeyChecking yes\nUserKnownHostsFile /dev/null\n"
    )
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name in ("ssh", "scp"):
        path = binaries / name
        path.write_text(f'#!/bin/sh\nexec {shutil.which(name)} -F {config} "$@"\n')
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    with serving(tmp_path, port):
        yield tmp_path


def test_a_real_sshd_runs_scripts_takes_wheels_and_refuses_who_it_does_not_know(ssh):
    good = Connection("good", 5, 30.0)
    assert good.run("cat; echo there", stdin="s3cret\n", kind="look") == "s3cret\nthere\n"
    assert good.run("cat | cat /dev/stdin", stdin="s3cret\n", kind="look") == "s3cret\n"
    wheel = ssh / "x.whl"
    wheel.write_bytes(b"wheel")
    (ssh / "target").mkdir()
    good.copy([wheel], str(ssh / "target"))
    assert (ssh / "target" / "x.whl").read_bytes() == b"wheel"
    for name, kind in (("bad", "auth"), ("strange", "host key")):
        with pytest.raises(HostFailedError) as caught:
            Connection(name, 5, 30.0).run("true", kind="look")
        assert caught.value.kind == kind
    with pytest.raises(HostFailedError, match="full"):
        good.run("echo the disk is full >&2; exit 3", kind="look")

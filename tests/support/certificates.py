"""Certificates for one test: a CA, a server for 127.0.0.1 and a client."""

import subprocess
from pathlib import Path

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
#: Python 3.13 asks for it.
_ISSUER = "authorityKeyIdentifier=keyid"


def make_certificates(folder: Path) -> None:
    """Write ca.pem, server.pem and client.pem with their keys into a folder."""
    _make(folder, "ca", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    for name in ("server", "client"):
        issued = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=CA:FALSE")
        _make(folder, name, *issued, "-addext", "subjectAltName=IP:127.0.0.1", "-addext", _ISSUER)


def _make(folder: Path, name: str, *options: str) -> None:
    command = ["openssl", "req", "-x509", *_NEW_KEY, "-subj", f"/CN={name}", *options]
    command += ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)

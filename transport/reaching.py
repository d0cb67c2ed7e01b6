"""The way to a broker below MQTT, step by step: its name, its port, its TLS.

Each step is bounded in time and tells what it met instead of raising, for ``fedfleet doctor``.
"""

import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from transport.broker_url import BrokerAddress
from transport.certificate_dates import CertificateError, Validity, validity
from transport.paho_client import tls_context

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the way.

    Attributes:
        seen: What was met.
        problem: Why the way ends here, or None.
    """

    seen: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Handshake:
    """What became of TLS.

    Attributes:
        version: As ``TLSv1.3``; empty when the handshake failed.
        problem: Why it failed, in OpenSSL's words, or None.
        validity: The dates of the broker's certificate, where it could be read.
    """

    version: str
    problem: str | None = None
    validity: Validity | None = None


def bounded(function: Callable[[], ResultT], within_s: float) -> ResultT | None:
    """Return what a function returns, or None when it takes longer; it is then left behind.

    Raises:
        Exception: What the function raised.
    """
    results: list[ResultT] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="bounded", daemon=True)
    thread.start()
    thread.join(max(0.0, within_s))
    if errors:
        raise errors[0]
    return results[0] if results else None


def resolve(address: BrokerAddress, within_s: float) -> Step:
    """Look the broker's name up."""
    host, port = address.host, address.port
    try:
        found = bounded(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), within_s)
    except OSError as error:
        return Step(host, error.strerror or str(error))
    if found is None:
        return Step(host, f"no answer from the resolver within {within_s:g} s")
    return Step(", ".join(sorted({str(entry[4][0]) for entry in found})))


def knock(address: BrokerAddress, within_s: float) -> Step:
    """Open a TCP connection and close it."""
    try:
        with socket.create_connection((address.host, address.port), timeout=within_s):
            return Step(f"port {address.port} is open")
    except TimeoutError:
        return Step(f"port {address.port}", f"no answer within {within_s:g} s")
    except OSError as error:
        return Step(f"port {address.port}", error.strerror or str(error))


def shake_hands(address: BrokerAddress, within_s: float) -> Handshake:
    """Do the TLS handshake as the programs do it."""
    try:
        context = tls_context(address)
        with (
            socket.create_connection((address.host, address.port), timeout=within_s) as opened,
            context.wrap_socket(opened, server_hostname=address.host) as wrapped,
        ):
            der = wrapped.getpeercert(binary_form=True)
            return Handshake(wrapped.version() or "TLS", None, _dates(der))
    except ssl.SSLCertVerificationError as error:
        return Handshake("", error.verify_message, _unverified_dates(address, within_s))
    except OSError as error:
        return Handshake("", error.strerror or str(error))


def _dates(der: bytes | None) -> Validity | None:
    try:
        return None if der is None else validity(der)
    except CertificateError:
        return None


def _unverified_dates(address: BrokerAddress, within_s: float) -> Validity | None:
    """Look at a certificate that was refused; nothing but its dates is used."""
    place = (address.host, address.port)
    try:
        pem = ssl.get_server_certificate(place, timeout=within_s)
        return _dates(ssl.PEM_cert_to_DER_cert(pem))
    except (OSError, ValueError):
        return None

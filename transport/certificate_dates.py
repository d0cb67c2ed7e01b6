"""From when to when an X.509 certificate is valid (RFC 5280, section 4.1), read from its bytes.

The standard library tells it of verified peers only, and a certificate whose dates do not fit is
never verified. Nothing else of the certificate is read, and nothing of it is trusted.
"""

import re
import ssl
from calendar import timegm
from dataclasses import dataclass

_SEQUENCE, _VERSION, _UTC_TIME, _GENERAL_TIME = 0x30, 0xA0, 0x17, 0x18
#: Before the validity stand the serial number, the algorithm and the issuer.
_BEFORE_VALIDITY = 3
_LONG_FORM = 0x80
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_TIME = re.compile(rb"(\d{2}|\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z")
#: Two digits of a year from here on are of the last century.
_CENTURY_TURNS = 50


class CertificateError(ValueError):
    """The bytes are no certificate."""


@dataclass(frozen=True, slots=True)
class Validity:
    """When a certificate is valid, unix seconds."""

    from_s: float
    until_s: float


def validities(pem: str) -> list[Validity]:
    """Return the dates of every certificate in a PEM text, in its order.

    Raises:
        CertificateError: There is none, or one cannot be read.
    """
    found = _PEM.findall(pem)
    if not found:
        message = "no certificate in PEM form"
        raise CertificateError(message)
    try:
        return [validity(ssl.PEM_cert_to_DER_cert(one)) for one in found]
    except ValueError as error:
        raise CertificateError(str(error)) from error


def validity(der: bytes) -> Validity:
    """Return the dates of one certificate.

    Raises:
        CertificateError: It cannot be read.
    """
    try:
        return _validity(der)
    except (IndexError, ValueError) as error:
        message = f"not a certificate: {error}"
        raise CertificateError(message) from error


def _validity(der: bytes) -> Validity:
    certificate, _ = _take(der, _SEQUENCE)
    signed, _ = _take(certificate, _SEQUENCE)
    if signed[0] == _VERSION:
        _, signed = _take(signed)
    for _ in range(_BEFORE_VALIDITY):
        _, signed = _take(signed)
    dates, _ = _take(signed, _SEQUENCE)
    begin, rest = _time(dates)
    end, _ = _time(rest)
    return Validity(begin, end)


def _take(data: bytes, tag: int | None = None) -> tuple[bytes, bytes]:
    """Return the contents of the first element and what follows it."""
    if tag is not None and data[0] != tag:
        message = f"tag {data[0]:#x} instead of {tag:#x}"
        raise ValueError(message)
    length, start = data[1], 2
    if length >= _LONG_FORM:
        start += length - _LONG_FORM
        length = int.from_bytes(data[2:start], "big")
    if start + length > len(data):
        message = "cut short"
        raise ValueError(message)
    return data[start : start + length], data[start + length :]


def _time(data: bytes) -> tuple[float, bytes]:
    if data[0] not in {_UTC_TIME, _GENERAL_TIME}:
        message = f"tag {data[0]:#x} is no time"
        raise ValueError(message)
    text, rest = _take(data)
    match = _TIME.fullmatch(text)
    if match is None:
        message = f"{text!r} is no time"
        raise ValueError(message)
    year, month, day, hour, minute, second = (int(part) for part in match.groups())
    if data[0] == _UTC_TIME:
        year += 1900 if year >= _CENTURY_TURNS else 2000
    return float(timegm((year, month, day, hour, minute, second))), rest

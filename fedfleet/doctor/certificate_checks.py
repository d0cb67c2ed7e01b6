"""The dates of this program's certificate and of its CAs, and whether key and certificate fit."""

import ssl
from pathlib import Path

from fedfleet.doctor.finding import Finding, failed, ok, warning
from transport.certificate_dates import CertificateError, Validity, validities
from transport.settings import ConnectionSettings

_DAY_S = 86_400.0
#: So many days before a certificate ends, somebody should know.
_NEAR_DAYS = 21


def examine_certificates(settings: ConnectionSettings, now_s: float) -> list[Finding]:
    """Look at the certificate files of the settings."""
    found = []
    for name, path in (("ca_file", settings.ca_file), ("cert_file", settings.cert_file)):
        if path is not None:
            found.append(_examine_file(name, path, now_s))
    if settings.cert_file is not None and all(one.status != "failed" for one in found):
        found += _examine_pair(settings.cert_file, settings.key_file)
    return found


def judge_validity(check: str, name: str, dates: Validity, now_s: float) -> Finding:
    """Tell whether a certificate is valid now and stays so for a while."""
    until = f"{(dates.until_s - now_s) / _DAY_S:.1f} days"
    if now_s < dates.from_s:
        seen = f"{name} is not valid for another {(dates.from_s - now_s) / _DAY_S:.1f} days"
        return failed(check, seen, "set this machine's clock, or issue the certificate anew")
    if now_s > dates.until_s:
        seen = f"{name} expired {(now_s - dates.until_s) / _DAY_S:.1f} days ago"
        return failed(check, seen, "issue it anew and install it; or set this machine's clock")
    if dates.until_s - now_s < _NEAR_DAYS * _DAY_S:
        return warning(check, f"{name} expires in {until}", "issue it anew and install it soon")
    return ok(check, f"{name} is valid for {until}")


def _examine_file(name: str, path: Path, now_s: float) -> Finding:
    check = f"certificate.{name}"
    try:
        dates = validities(path.read_text(encoding="ascii", errors="replace"))
    except OSError as error:
        advice = f"name the right {name}, and let the program's user read it"
        return failed(check, f"{path}: {error.strerror}", advice)
    except CertificateError as error:
        return failed(check, f"{path}: {error}", f"{name} must hold certificates in PEM form")
    if name == "ca_file" and len(dates) > 1:
        dates = [max(dates, key=lambda one: one.until_s)]  # while it is rotated, one of two
    return judge_validity(check, str(path), min(dates, key=lambda one: one.until_s), now_s)


def _examine_pair(cert_file: Path, key_file: Path | None) -> list[Finding]:
    try:
        ssl.create_default_context().load_cert_chain(cert_file, key_file)
    except (OSError, ValueError) as error:
        seen = f"{cert_file} and {key_file or 'the key in it'}: {error}"
        advice = "the key must be the one that the certificate was issued for, without a password"
        return [failed("certificate.key", seen, advice)]
    return [ok("certificate.key", "the private key belongs to the certificate")]

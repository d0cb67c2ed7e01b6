"""What a visit to a broker means: can the program reach it and log in? Pure."""

from fedfleet.doctor.certificate_checks import judge_validity
from fedfleet.doctor.finding import Finding, failed, ok, warning
from fedfleet.doctor.visit_facts import Visit

_LOGIN_REFUSALS = ("user name", "password", "Not authorized", "Banned", "authentication")


def judge_way(found: Visit, now_s: float) -> list[Finding]:
    """Judge every step of the way to a broker, up to the first that failed."""
    steps = [_judge_name(found), _judge_port(found), *_judge_tls(found, now_s)]
    return [step for step in (*steps, _judge_login(found)) if step is not None]


def _judge_name(found: Visit) -> Finding:
    check, host = f"{found.link.name}.name", found.address.host
    if found.name.problem is not None:
        seen = f"{host} cannot be resolved: {found.name.problem}"
        advice = "correct the broker's host name, or the name servers in /etc/resolv.conf"
        return failed(check, seen, advice)
    return ok(check, f"{host} is {found.name.seen}")


def _judge_port(found: Visit) -> Finding | None:
    if found.port is None:
        return None
    check, shown = f"{found.link.name}.port", found.address.shown
    if found.port.problem is not None:
        seen = f"{shown} cannot be reached: {found.port.problem}"
        advice = "correct the port in the broker's URL, start the broker, or open the firewall"
        return failed(check, seen, advice)
    return ok(check, f"{shown} is open")


def _judge_tls(found: Visit, now_s: float) -> list[Finding]:
    if found.tls is None:
        return [] if found.port is None or found.port.problem else [_judge_no_tls(found)]
    check = f"{found.link.name}.tls"
    dates = found.tls.validity
    findings = []
    if dates is not None:
        name = "the broker's certificate"
        findings.append(judge_validity(f"{found.link.name}.certificate", name, dates, now_s))
    problem = found.tls.problem
    if problem is None:
        return [ok(check, found.tls.version), *findings]
    return [failed(check, f"{found.address.shown}: {problem}", _tls_advice(problem)), *findings]


def _tls_advice(problem: str) -> str:
    text = problem.lower()
    if "mismatch" in text or "not valid for" in text:
        return (
            "use the name that the broker's certificate was issued for, or issue it for this one"
        )
    if "expired" in text or "not yet valid" in text:
        return "issue the broker's certificate anew; or this machine's clock is wrong"
    if "self-signed" in text or "self signed" in text or "issuer" in text:
        return "set ca_file to the CA that signed the broker's certificate"
    if "no such file" in text or "key" in text:
        return "correct ca_file, cert_file and key_file"
    return "is that the broker's TLS port (mostly 8883)? Without TLS the URL begins with mqtt://"


def _judge_no_tls(found: Visit) -> Finding:
    check = f"{found.link.name}.tls"
    if found.address.password is not None and not _is_local(found.address.host):
        advice = "anybody on the way can read the password: use mqtts://"
        return warning(check, "a password is sent without TLS", advice)
    return ok(check, "none, as the URL says")


def _judge_login(found: Visit) -> Finding | None:
    if found.login is None:
        return None
    check, problem = f"{found.link.name}.login", found.login.problem
    user = found.address.username
    who = f"user {user!r}" if user else "no user name"
    if problem is None:
        return ok(check, f"MQTT {found.version} with {who}")
    if any(words.lower() in problem.lower() for words in _LOGIN_REFUSALS):
        advice = "correct user and password in mqtt://USER:PASSWORD@HOST, or the broker's list"
        return failed(check, f"refused with {who}: {problem}", advice)
    if "certificate" in problem.lower() or "handshake" in problem.lower():
        return failed(check, problem, "the broker wants a certificate: set cert_file and key_file")
    advice = "is it an MQTT broker, and is its listener for this version and without WebSockets?"
    return failed(check, f"MQTT {found.version}: {problem}", advice)


def _is_local(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")

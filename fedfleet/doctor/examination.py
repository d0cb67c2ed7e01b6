"""The whole examination: every group of checks, side by side, each within its time."""

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fedfleet
from fedfleet.doctor import (
    certificate_checks,
    clock_checks,
    database_checks,
    file_checks,
    machine_checks,
    profile_checks,
    python_checks,
    settings_checks,
)
from fedfleet.doctor.access_checks import judge_access
from fedfleet.doctor.broker_checks import judge_way
from fedfleet.doctor.broker_visit import Credentials, Patience, visit
from fedfleet.doctor.finding import Finding, failed, warning
from fedfleet.doctor.subject import Link, Program, Subject, subject_of
from fedfleet.doctor.visit_facts import Visit
from schemas.errors import WireError
from transport.probe_answers import Heard
from transport.reaching import bounded
from transport.settings import SettingsError

Check = Callable[[], list[Finding]]
#: For everything: a person waits for it.
TOTAL_S = 25.0
#: Loading torch on a small device takes most of it.
_WHEEL_S = 20.0
_DATABASE_S = 6.0
_LOCAL_S = 8.0
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Request:
    """Whom to examine, and how.

    Attributes:
        program: The program.
        config: Its settings file, if any.
        flags: Settings given on the command line; None: not given.
        answer_s: How long one answer of a broker is waited for.
        sizes_s: How long large messages may take to come back.
    """

    program: Program
    config: Path | None
    flags: dict[str, Any]
    answer_s: float = 3.0
    sizes_s: float = 8.0


def now_s() -> float:
    """Return this machine's time, unix seconds."""
    return time.time()


def examine(request: Request) -> list[Finding]:
    """Return what was found, in the order of the report."""
    ends_s = time.monotonic() + TOTAL_S
    settings, found = settings_checks.load(request.program, request.config, request.flags)
    found += settings_checks.judge_environment(request.program, os.environ)
    subject = None
    if settings is not None:
        try:
            subject = subject_of(request.program, settings)
        except WireError as error:
            found.append(failed("settings", str(error), "choose another id or region"))
        except SettingsError as error:
            found.append(failed("settings", str(error), "let the program's user read that file"))
    if subject is None:
        found.append(warning("broker", "not examined", "make the settings fit first"))
        return [*python_checks.examine_python(), *found, *_clock(None, ())]
    return [*python_checks.examine_python(), *found, *_examine(subject, request, ends_s)]


def _examine(subject: Subject, request: Request, ends_s: float) -> list[Finding]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        visits = [pool.submit(_visit, subject, link, request, ends_s) for link in subject.links]
        waiting = [
            pool.submit(_within, name, check, seconds, ends_s)
            for name, check, seconds in _checks(subject, request)
        ]
        local = [finding for one in waiting for finding in one.result()]
        results = [one.result() for one in visits]
    visited = [one for one in results if isinstance(one, Visit)]
    unvisited = [one for one in results if isinstance(one, Finding)]
    judged = [
        finding for one in visited for finding in (*judge_way(one, now_s()), *judge_access(one))
    ]
    clock = _clock(subject, [message for one in visited for message in one.heard])
    return [*local, *clock, *judged, *unvisited]


def _checks(subject: Subject, request: Request) -> Iterable[tuple[str, Check, float]]:
    settings, state_dir = subject.settings, subject.state_dir
    for wheel in subject.wheels:
        loading = partial(python_checks.examine_wheel, wheel, _WHEEL_S)
        yield f"wheel.{wheel.name}", loading, _WHEEL_S + 1.0
    providers = partial(python_checks.examine_providers, subject.providers, _WHEEL_S)
    yield "providers", providers, _WHEEL_S + 1.0
    database = partial(database_checks.examine_database, subject, _DATABASE_S)
    certificates = partial(certificate_checks.examine_certificates, settings, now_s())
    local: dict[str, Check] = {
        "settings.policy": partial(settings_checks.examine_policy, settings),
        "memory": partial(machine_checks.examine_memory, subject),
        "disk": partial(machine_checks.examine_disk, subject),
        "state_dir": partial(file_checks.examine_state_dir, subject),
        "config.mode": partial(file_checks.examine_config, request.config),
        "secrets": partial(file_checks.examine_secrets, settings),
        "certificate": certificates,
        "program": partial(database_checks.examine_owner, state_dir),
        "database": database,
        "profile": partial(profile_checks.examine_profile, settings),
    }
    for name, check in local.items():
        yield name, check, _LOCAL_S


def _within(name: str, check: Check, seconds: float, ends_s: float) -> list[Finding]:
    seconds = min(seconds, ends_s - time.monotonic())
    try:
        found = bounded(check, seconds)
    except Exception as error:  # noqa: BLE001 - one check that breaks must not hide the others
        return [failed(name, f"the check broke: {error!r}", "report it: this is an error here")]
    if found is None:
        advice = "the machine or its disk is overloaded, or a network file system hangs"
        return [warning(name, f"not done within {max(0.0, seconds):.0f} s", advice)]
    return found


def _visit(subject: Subject, link: Link, request: Request, ends_s: float) -> Visit | Finding:
    settings = subject.settings
    credentials = Credentials(
        settings.mqtt_protocol, settings.ca_file, settings.cert_file, settings.key_file
    )
    patience = Patience(request.answer_s, request.sizes_s, ends_s - 2.0)
    try:
        found = bounded(partial(visit, link, credentials, patience), ends_s - time.monotonic())
    except (OSError, ValueError) as error:
        return failed(link.name, str(error), "correct the broker's URL and its TLS files")
    if found is None:
        return failed(link.name, "not done in time", "the broker answers too slowly")
    return found


def _clock(subject: Subject | None, heard: Iterable[Heard]) -> list[Finding]:
    moment = now_s()
    folders = [Path(fedfleet.__file__).parent]
    if subject is not None:
        folders.append(subject.state_dir)
    sightings = [
        *clock_checks.of_messages(heard),
        *clock_checks.of_hardware(),
        *clock_checks.of_files(folders),
    ]
    is_synchronized = clock_checks.is_synchronized()
    return [clock_checks.judge_clock(moment, sightings, is_synchronized=is_synchronized)]

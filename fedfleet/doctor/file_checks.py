"""Who may read and write the state directory, the settings file and the private key."""

import os
import re
import stat
import tempfile
from pathlib import Path

from fedfleet.doctor.finding import Finding, failed, ok, warning
from fedfleet.doctor.subject import Subject

_OTHERS = stat.S_IROTH | stat.S_IWOTH
#: A URL with a password, as in ``mqtt://device:secret@host``.
_PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


def examine_state_dir(subject: Subject) -> list[Finding]:
    """Make a file in the state directory and remove it."""
    state_dir = subject.state_dir.absolute()
    check = "state_dir"
    if not state_dir.exists():
        return [_judge_missing(state_dir)]
    if not state_dir.is_dir():
        return [failed(check, f"{state_dir} is no directory", "name another state_dir")]
    try:
        with tempfile.NamedTemporaryFile(dir=state_dir, prefix=".doctor-"):
            pass
    except OSError as error:
        seen = f"{state_dir} cannot be written to: {error.strerror}"
        return [failed(check, seen, _owner_advice(state_dir))]
    owner = state_dir.stat().st_uid
    if owner != os.geteuid():
        seen = f"{state_dir} is owned by user {owner}, and this is user {os.geteuid()}"
        advice = "run the doctor as the program's user to see what it may do"
        return [warning(check, seen, advice)]
    return [ok(check, f"{state_dir} can be written to")]


def examine_config(config: Path | None) -> list[Finding]:
    """Look whether anybody may read a password in the settings file."""
    if config is None or not config.is_file():
        return []
    try:
        text = config.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        seen = f"{config}: {error.strerror}"
        return [failed("config.mode", seen, f"let the program's user read it: chown {config}")]
    mode = config.stat().st_mode
    if _PASSWORD.search(text) and mode & _OTHERS:
        seen = f"{config} has a password and mode {stat.S_IMODE(mode):04o}"
        return [warning("config.mode", seen, f"chmod 0640 {config}")]
    return [ok("config.mode", f"{config}, mode {stat.S_IMODE(mode):04o}")]


def examine_key(key_file: Path | None) -> list[Finding]:
    """Look whether the program, and nobody else, may read its private key."""
    if key_file is None:
        return []
    try:
        with key_file.open("rb"):
            mode = key_file.stat().st_mode
    except OSError as error:
        advice = "name the right key_file, and let the program's user read it"
        return [failed("key_file", f"{key_file}: {error.strerror}", advice)]
    if mode & _OTHERS:
        seen = f"anybody may read {key_file}, mode {stat.S_IMODE(mode):04o}"
        return [warning("key_file", seen, f"chmod 0600 {key_file}")]
    return [ok("key_file", f"{key_file}, mode {stat.S_IMODE(mode):04o}")]


def _judge_missing(state_dir: Path) -> Finding:
    parent = state_dir.parent
    while not parent.exists():
        parent = parent.parent
    seen = f"{state_dir} is not there"
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return ok("state_dir", f"{seen} yet; the program makes it")
    advice = f"make it and give it to the program's user: {parent} cannot be written to"
    return failed("state_dir", seen, advice)


def _owner_advice(state_dir: Path) -> str:
    return f"give it to the user that runs the program: chown -R USER {state_dir}"

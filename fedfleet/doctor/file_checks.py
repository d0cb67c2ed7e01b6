"""Who may read and write the state directory, the settings file, the key and the passwords."""

import os
import re
import stat
import tempfile
from pathlib import Path

from fedfleet.doctor.finding import Finding, failed, ok, warning
from fedfleet.doctor.subject import Subject
from transport.settings import ConnectionSettings

#: Settings that name a file with a secret.
_SECRETS = ("key_file", "password_file", "uplink_password_file")
_OTHERS = stat.S_IROTH | stat.S_IWOTH
_ALL_OF_OWNER = stat.S_IRWXU
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
    return [_judge_owner(state_dir)]


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


def examine_secrets(settings: ConnectionSettings) -> list[Finding]:
    """Look whether the program, and nobody else, may read its key and its passwords."""
    paths = {name: getattr(settings, name, None) for name in _SECRETS}
    return [_examine_secret(name, path) for name, path in paths.items() if path is not None]


def _examine_secret(name: str, path: Path) -> Finding:
    try:
        with path.open("rb"):
            mode = path.stat().st_mode
    except OSError as error:
        advice = f"name the right {name}, and let the program's user read it"
        return failed(name, f"{path}: {error.strerror}", advice)
    if mode & _OTHERS:
        seen = f"anybody may read {path}, mode {stat.S_IMODE(mode):04o}"
        return warning(name, seen, f"chmod 0600 {path}")
    return ok(name, f"{path}, mode {stat.S_IMODE(mode):04o}")


def _judge_missing(state_dir: Path) -> Finding:
    parent = state_dir.parent
    while not parent.exists():
        parent = parent.parent
    seen = f"{state_dir} is not there"
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return ok("state_dir", f"{seen} yet; the program makes it")
    advice = f"make it and give it to the program's user: {parent} cannot be written to"
    return failed("state_dir", seen, advice)


def _judge_owner(state_dir: Path) -> Finding:
    """Judge a directory that this user can write to; root can whatever its mode is."""
    found, user = state_dir.stat(), os.geteuid()
    if found.st_uid == user or (user == 0 and found.st_mode & _ALL_OF_OWNER == _ALL_OF_OWNER):
        return ok("state_dir", f"{state_dir} can be written to by its owner, user {found.st_uid}")
    seen = f"{state_dir} is owned by user {found.st_uid}, and this is user {user}"
    advice = "run the doctor as the program's user to see what it may do"
    return warning("state_dir", seen, advice)


def _owner_advice(state_dir: Path) -> str:
    return f"give it to the user that runs the program: chown -R USER {state_dir}"

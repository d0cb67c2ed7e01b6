"""The owner's policy, read from a TOML file."""

import importlib
import json
import sys
from pathlib import Path

from pydantic import ValidationError

from device_agent.core.policy import LocalPolicy
from schemas.base import explain
from schemas.profiles import Limits

_KNOWN = (*LocalPolicy.model_fields, *Limits.model_fields)

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


class PolicyError(ValueError):
    """The policy file cannot be read or does not fit; the text names the key and the limit."""


def load_policy(path: Path | None) -> LocalPolicy:
    """Return the policy in a file; without a file, nothing is limited.

    Raises:
        PolicyError: The file is missing or not TOML, a key is not known, or a value does not fit.
    """
    if path is None:
        return LocalPolicy()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        # Through JSON, because the strict model takes a list for a tuple only there.
        return LocalPolicy.model_validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        message = f"policy {path}: {explain(error, _KNOWN)}"
        raise PolicyError(message) from error
    except (OSError, ValueError) as error:
        message = f"policy {path}: {error}"
        raise PolicyError(message) from error

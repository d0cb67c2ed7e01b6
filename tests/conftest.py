"""Fixtures that every layer of tests may use."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings

# A busy machine makes any example slow; how long tests take is bounded by pytest-timeout.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

_DEFAULT_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _loggers_are_made_anew() -> Iterator[None]:
    """A logger that a program's configuration has cached could never be captured again."""
    configure = structlog.configure

    def without_cache(*given: Any, **named: Any) -> None:
        configure(*given, **{**named, "cache_logger_on_first_use": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structlog, "configure", without_cache)
        yield


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """What a test or a command run by it has configured ends with that test."""
    before = structlog.get_config()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def test_data() -> Callable[[str], Path]:
    """Return a function: name of a data set -> its directory; skips where it is absent."""
    root = Path(os.environ.get("FEDFLEET_TEST_DATA") or _DEFAULT_DATA)

    def find(name: str) -> Path:
        folder = root / name
        if not folder.is_dir():
            pytest.skip(f"{folder} is absent; set FEDFLEET_TEST_DATA to a directory with {name}/")
        return folder

    return find


@pytest.fixture(scope="session", autouse=True)
def _one_model_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let every central of a run share its forward graphs: exporting one takes seconds."""
    name = "FEDFLEET_MODEL_CACHE"
    before = os.environ.get(name)
    os.environ[name] = str(tmp_path_factory.mktemp("forward-graphs"))
    yield
    if before is None:
        del os.environ[name]
    else:
        os.environ[name] = before

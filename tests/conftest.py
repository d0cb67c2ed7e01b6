"""Fixtures that every layer of tests may use."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine makes any example slow; how long tests take is bounded by pytest-timeout.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

_DEFAULT_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


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

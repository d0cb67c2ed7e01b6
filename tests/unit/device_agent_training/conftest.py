"""Small jobs for the trainers."""

from functools import partial

import pytest

from tests.support.training_jobs import make_job


@pytest.fixture
def make_request(tmp_path):
    """Return a function that makes a request; keywords go to ``Training``."""
    return partial(make_job, tmp_path)

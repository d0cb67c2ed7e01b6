"""docs/compression.md: its table is the registry's, and its example is a codec."""

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.compression import catalogue
from benchmarks.training.pages import markdown_table
from schemas.errors import PayloadError, WireError
from updates.codecs import names
from updates.codecs.header import HEADER_BYTES, pack
from updates.errors import CodecParameterError
from updates.layout import Layout

PAGE = (Path(__file__).parents[3] / "docs" / "compression.md").read_text(encoding="utf-8")
LAYOUT = Layout.of({"a": (5,), "b": (3, 4), "c": ()})


def section(name):
    return PAGE.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- end: {name.split()[-1]} -->")[
        0
    ]


@pytest.fixture(scope="module")
def codec():
    source = re.fullmatch(r"```python\n(.*)```\n", section("example"), re.DOTALL)[1]
    module = ModuleType("example_codec")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(source, "docs/compression.md", "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module.FixedSignCodec(scale=0.25)


def test_the_table_of_codecs_is_the_registry_s():
    written = section("measured: codecs").strip()
    assert written == markdown_table(catalogue.COLUMNS, catalogue.rows()), (
        "python -m benchmarks.compression.catalogue --docs"
    )


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([\w.]+)", PAGE))))
def test_every_program_that_the_page_names_exists(module):
    assert (Path(__file__).parents[3] / module.replace(".", "/")).with_suffix(".py").is_file()


def test_the_example_is_not_in_the_registry(codec):
    assert codec.codec_id not in names()


def test_the_example_brings_large_values_and_signs_back(codec):
    vector = np.array([0.1, -0.1, 0.2, -0.2, 3e38, -3e38, 0, 1e-45, 0.125, *[0] * 9], np.float32)
    payload = codec.encode(vector, LAYOUT, np.random.default_rng(0))
    expected = [0, 0, 0.25, -0.25, 0.25, -0.25, *[0] * 12]
    assert codec.decode(payload, LAYOUT).tolist() == expected
    assert len(payload) == codec.encoded_size_bound(LAYOUT) == HEADER_BYTES + 6


def test_the_example_adds_what_it_decodes(codec):
    rng = np.random.default_rng(1)
    payload = codec.encode(rng.standard_normal(LAYOUT.size, dtype=np.float32), LAYOUT, rng)
    total = np.ones(LAYOUT.size)
    codec.add_into(total, payload, LAYOUT, 3.0)
    assert np.array_equal(total, 1 + 3.0 * codec.decode(payload, LAYOUT).astype(np.float64))


@given(body=st.binary(min_size=5, max_size=7))
def test_any_body_is_an_update_of_the_example_or_refused(codec, body):
    payload = pack(codec.number, LAYOUT.size, [body])
    try:
        vector = codec.decode(payload, LAYOUT)
    except WireError:
        return
    assert codec.encode(vector, LAYOUT, np.random.default_rng(0)) == payload


def test_the_example_refuses_a_zero_with_a_sign(codec):
    with pytest.raises(PayloadError, match="a zero has a sign"):
        codec.check(pack(codec.number, LAYOUT.size, [bytes([0, 0, 0, 1, 0, 0])]), LAYOUT)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), "1", True])
def test_the_example_refuses_a_scale_that_is_none(codec, scale):
    with pytest.raises(CodecParameterError, match="scale"):
        type(codec)(scale=scale)


def test_error_feedback_makes_up_for_what_the_example_leaves_out(codec):
    rng, error = np.random.default_rng(2), np.zeros(LAYOUT.size, np.float32)
    update = rng.uniform(-0.2, 0.2, LAYOUT.size).astype(np.float32)
    total = np.zeros(LAYOUT.size)
    for _ in range(50):
        wanted = update + error
        sent = codec.decode(codec.encode(wanted, LAYOUT, rng), LAYOUT)
        error, total = wanted - sent, total + sent
    np.testing.assert_allclose(total / 50, update, atol=codec.scale / 50)

"""The benchmark of codecs: its figures are those of the definitions, and both commands answer."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.codecs.__main__ import main
from benchmarks.codecs.nmse import KINDS, vector_of
from benchmarks.codecs.variants import Variant, variants
from updates.codecs import names


def figures(*arguments):
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return {one["codec"]: one for one in json.loads(result.stdout)}


def test_every_codec_has_a_variant_and_every_variant_a_codec():
    assert {variant.codec_id for variant in variants()} == set(names())
    assert all(variant.make().codec_id == variant.codec_id for variant in variants())
    assert len({variant.title for variant in variants()}) == len(variants())


def test_errors_of_known_quantizers_are_those_of_theory():
    found = figures("nmse", "--codec", "bin", "--codec", "msq-v2", "--values", "50000")
    assert found["bin"]["nmse"]["gauss"] == [pytest.approx(1 - 2 / np.pi, rel=0.02)]
    assert found["bin"]["nmse"]["laplace"] == [pytest.approx(0.5, rel=0.03)]
    assert found["msq-v2 bits=2"]["nmse"]["gauss"] == [pytest.approx(0.1188, rel=0.03)]
    assert found["bin"]["bits_per_value"] == pytest.approx(1, abs=0.01)
    assert list(found["bin"]["nmse"]) == list(KINDS)


def test_each_seed_gives_a_figure_and_the_table_the_range():
    found = figures("nmse", "--codec", "stocq", "--values", "2000", "--seeds", "3")
    assert len(set(found["stocq bits=2 bucket=0"]["nmse"]["spiky"])) == 3
    told = CliRunner().invoke(
        main, ["nmse", "--codec", "stocq", "--values", "2000", "--seeds", "3"]
    )
    assert "stocq bits=2 bucket=0" in told.stdout
    assert ".." in told.stdout


def test_the_same_seed_gives_the_same_vector():
    for kind in KINDS:
        np.testing.assert_array_equal(vector_of(kind, 3, 100), vector_of(kind, 3, 100))
        assert (vector_of(kind, 3, 100) != vector_of(kind, 4, 100)).any()


def test_speeds_are_told_beside_a_copy_and_a_sum_of_the_same_run():
    found = figures("speed", "--codec", "raw-f32", "--values", "100000", "--repeats", "2")
    one = found["raw-f32"]
    assert one["values"] == 100_000
    assert all(
        one[name] > 0 for name in ("encode", "accumulate", "together", "memcpy", "add", "add64")
    )
    told = CliRunner().invoke(main, ["speed", "--codec", "raw-f32", "--values", "1000"])
    assert "decode+add/memcpy" in told.stdout


def test_titles_tell_the_parameters():
    assert Variant("bin").title == "bin"
    title = Variant("symmetric", {"stochastic": False, "scope": "vector"}).title
    assert title == "symmetric stochastic=false scope=vector"


def test_an_unknown_codec_is_nonsense():
    assert CliRunner().invoke(main, ["nmse", "--codec", "zip"]).exit_code == 2

"""Presets: names of papers for a codec with its settings and its memory."""

import pytest

from schemas.tasks import TaskSubmission
from updates.codecs import create, names
from updates.errors import CodecParameterError
from updates.feedback import memory_of
from updates.presets import PRESETS, resolve


def submission(codec, **fields):
    return TaskSubmission(model="mlp", codec=codec, **fields)


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_is_a_codec_that_exists_with_settings_that_it_takes(name):
    found = resolve(submission(name))
    memory_of(create(found.codec, found.codec_params), found.error_feedback)
    assert name not in names() or found.codec == name


def test_laq8_is_eight_bits_over_the_whole_vector_without_memory():
    found = resolve(submission("laq8"))
    assert found.codec == "symmetric"
    assert found.codec_params == {"bits": 8, "stochastic": True, "scope": "vector"}
    assert memory_of(create(found.codec, found.codec_params), found.error_feedback) == "none"


def test_bbit_builds_on_a_reference_and_rounds_at_random_and_never_skips():
    found = resolve(submission("bbit", codec_params={"bits": 4}))
    codec = create(found.codec, found.codec_params)
    assert (codec.codec_id, codec.bits, codec.stochastic, codec.skips) == ("laq", 4, True, False)
    assert memory_of(codec, found.error_feedback) == "lazy"
    assert not codec.is_biased
    assert resolve(submission("bbit")).codec_params["bits"] == 8


def test_bin_has_error_feedback():
    found = resolve(submission("bin"))
    assert memory_of(create(found.codec, found.codec_params), found.error_feedback) == "feedback"
    assert resolve(submission("bin", error_feedback=False)).error_feedback is False


def test_a_setting_that_a_preset_fixes_cannot_be_another():
    with pytest.raises(
        CodecParameterError, match="bits: 4: preset laq8 has 8; use codec symmetric"
    ):
        resolve(submission("laq8", codec_params={"bits": 4}))
    assert resolve(submission("laq8", codec_params={"bits": 8})).codec == "symmetric"


def test_a_codec_that_is_no_preset_is_left_alone():
    asked = submission("topk", codec_params={"fraction": 0.1})
    assert resolve(asked) is asked

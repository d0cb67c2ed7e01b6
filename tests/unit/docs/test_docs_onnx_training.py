"""docs/onnx-training.md lists what the training graph really supports."""

import re
from pathlib import Path
from typing import get_args

import pytest

from central.modeling.training_graph import rules, spec

PAGE = (Path(__file__).parents[3] / "docs" / "onnx-training.md").read_text(encoding="utf-8")


def test_the_page_lists_exactly_the_operators_that_have_a_rule():
    part = PAGE.partition("<!-- operators -->")[2].partition("<!-- end: operators -->")[0]
    listed = re.findall(r"`(\w+)`", part)
    assert sorted(listed) == sorted(set(listed))
    known = rules.supported()
    assert known - set(listed) == set(), "not on the page"
    others = {name for name in set(listed) - known if rules.rewrite_for(name) is None}
    assert others == set(), "no longer supported"


@pytest.mark.parametrize("names", [spec.OptimizerName, spec.LossName])
def test_the_page_names_every_optimizer_and_loss(names):
    part = PAGE.partition("## What can be trained")[2].partition("<!-- operators -->")[0]
    for name in get_args(names):
        assert f"`{name}`" in part

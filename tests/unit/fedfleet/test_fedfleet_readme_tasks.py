"""The tasks that README hands in: they become tasks that central takes, as small as it says."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from central.adapters.catalog import InstalledCatalog
from fedfleet.cli import cli
from schemas.tasks import TaskStatus, parse_submission
from schemas.topics import Kind
from updates.codecs import create
from updates.layout import Layout

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
LINES = re.findall(r"^fedfleet (submit --.+?)(?: +# (.+))?$", README, re.MULTILINE)
#: As many values as the demo's model has.
LAYOUT = Layout.of({"w": (15_000,)})


class AnyModel:
    def check(self, submission):
        assert submission.model


def submitted(world, line):
    status = TaskStatus(task="mine", state="waiting").model_dump_json().encode()
    topic = "fl/v1/ctl/task/mine/status"
    world.answer = lambda m: ((topic, status),) if m.topic.kind is Kind.TASK_SUBMIT else ()
    result = CliRunner().invoke(cli, [*shlex.split(line), "--task", "mine"])
    assert result.exit_code == 0, result.stderr
    return parse_submission(world.published[0].payload)


def test_readme_shows_how_to_hand_in_tasks_with_codecs_a_downlink_and_a_budget():
    text = " ".join(line for line, _ in LINES)
    assert all(word in text for word in ("stc", "ecsq", "auto", "--downlink", "--uplink-budget"))


@pytest.mark.parametrize(("line", "said"), LINES)
def test_central_takes_what_readme_hands_in(world, line, said):
    InstalledCatalog(AnyModel(), {}).check(submitted(world, line))


@pytest.mark.parametrize(("line", "said"), [one for one in LINES if one[1].endswith(" x")])
def test_an_update_is_as_much_smaller_as_readme_says(world, line, said):
    task = submitted(world, line)
    rng = np.random.default_rng(0)
    vector = rng.standard_normal(LAYOUT.size, dtype=np.float32)
    payload = create(task.codec, task.codec_params).encode(vector, LAYOUT, rng)
    told = float(said.split()[-2])
    assert 4 * LAYOUT.size / len(payload) == pytest.approx(told, rel=0.05)

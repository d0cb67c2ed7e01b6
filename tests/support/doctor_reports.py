"""Runs the doctor in this process, and reads what it said."""

import json

from click.testing import CliRunner

from fedfleet.cli import cli

DEVICE = ("--region", "north", "--id", "d1", "--data", "digits")


def run(*arguments):
    return CliRunner().invoke(cli, ["doctor", *map(str, arguments)])


class Report:
    """What the doctor said of one set-up."""

    def __init__(self, result):
        assert result.exit_code in (0, 1), result.output
        told = json.loads(result.stdout)
        self.status = told["status"]
        self.findings = {one["check"]: one for one in told["findings"]}
        failed = [one for one in told["findings"] if one["status"] == "failed"]
        self.failed = {one["check"] for one in failed}
        assert (result.exit_code == 1) == bool(failed) == (self.status == "failed")
        assert all(one["advice"] for one in told["findings"] if one["status"] != "ok")

    def seen(self, check):
        return self.findings[check]["seen"]

    def advice(self, check):
        return self.findings[check]["advice"]


def examine(*arguments):
    return Report(run(*arguments, "--answer-s", "0.4", "--json"))

"""The checks of rendered objects, on a set small enough to read; and the program that runs them."""

import base64
import copy

import pytest

from tests.deploy.kubernetes import __main__ as program
from tests.support.kubernetes_objects import (
    environment_of,
    login_problems,
    settings_problems,
)


def secret(name, **data):
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    return {"kind": "Secret", "metadata": {"name": name}, "data": encoded}


def workload(name, args, sources, volumes):
    box = {"name": name, "args": args, "envFrom": sources, "env": [{"name": "X", "value": "1"}]}
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [box], "volumes": volumes},
    }
    return {"kind": "Deployment", "metadata": {"name": name}, "spec": {"template": template}}


PASSWORDS = {"name": "p", "secret": {"secretName": "passwords"}}
OBJECTS = [
    {
        "kind": "Service",
        "metadata": {"name": "broker"},
        "spec": {"selector": {"app": "broker"}, "ports": [{"port": 1883}]},
    },
    workload("broker", [], [], [PASSWORDS]),
    workload(
        "central",
        ["central"],
        [{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "login"}}],
        [],
    ),
    {
        "kind": "ConfigMap",
        "metadata": {"name": "settings"},
        "data": {"FEDFLEET_KEEPALIVE_S": "10", "FEDFLEET_BROKER": "overridden"},
    },
    secret("login", FEDFLEET_BROKER="mqtt://central:sesame@broker:1883"),
    secret("passwords", passwords="operator:x\ncentral:sesame\n"),
]


def test_a_login_that_its_broker_knows_is_well_and_the_last_source_counts():
    environment = environment_of(OBJECTS[2], OBJECTS)
    assert environment["FEDFLEET_BROKER"] == "mqtt://central:sesame@broker:1883"
    assert environment["X"] == "1"
    assert list(login_problems(OBJECTS)) == []
    assert list(settings_problems(OBJECTS)) == []


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mqtt://central:sesame@brokers:1883", "no service brokers"),
        ("mqtt://central:sesame@broker:8883", "no port 8883"),
        ("mqtt://central:other@broker:1883", "does not know this password of central"),
        ("mqtt://gateway:sesame@broker:1883", "does not know this password of gateway"),
    ],
)
def test_a_login_that_fits_no_broker_is_found(url, problem):
    objects = copy.deepcopy(OBJECTS)
    objects[4] = secret("login", FEDFLEET_BROKER=url)
    (found,) = login_problems(objects)
    assert problem in found


def test_a_setting_that_is_not_known_is_found():
    objects = copy.deepcopy(OBJECTS)
    objects[3]["data"]["FEDFLEET_KEEPALIVE"] = "10"
    (found,) = settings_problems(objects)
    assert "FEDFLEET_KEEPALIVE is no setting of central" in found


def test_a_setting_that_does_not_fit_is_found():
    objects = copy.deepcopy(OBJECTS)
    objects[3]["data"]["FEDFLEET_KEEPALIVE_S"] = "ten"
    (found,) = settings_problems(objects)
    assert found.startswith("central: keepalive_s: ")


def test_where_nothing_can_render_the_program_skips_and_says_why(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["kubernetes", "--tools", str(tmp_path)])
    monkeypatch.setattr(program.shutil, "which", lambda _name: None)
    monkeypatch.setattr(program, "_SOURCES", tmp_path / "none")
    assert program.main() == 77
    assert capsys.readouterr().out.startswith("SKIP: neither kustomize nor kubectl")

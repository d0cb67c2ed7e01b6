"""What docker-compose.yml, its images and its settings must have, read without Docker."""

import re
from pathlib import Path

import pytest
import yaml

from central.settings import CentralSettings
from device_agent.settings import DeviceSettings
from regional_gateway.settings import GatewaySettings
from schemas.limits import MAX_PACKET_BYTES

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
#: Ends when it has done its work.
ONE_SHOT = {"data"}
STAYING = sorted(set(SERVICES) - ONE_SHOT)
PROGRAMS = {
    "central": CentralSettings,
    "gateway-eu": GatewaySettings,
    "gateway-us": GatewaySettings,
    "device-eu": DeviceSettings,
    "device-us": DeviceSettings,
}
DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
_VARIABLE = re.compile(r"\$\{([A-Z_]+):-([^}]*)\}")


def filled(value):
    """A text with the defaults of its variables."""
    return _VARIABLE.sub(lambda match: match[2], str(value))


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_confined_and_limited(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].partition(":")[0]) > 0
    assert re.fullmatch(r"[0-9]+[mg]", service["mem_limit"])
    assert 0 < service["cpus"] <= 2
    assert 0 < service["pids_limit"] <= 256
    assert service["logging"]["options"]["max-size"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service)


@pytest.mark.parametrize("name", STAYING)
def test_every_service_that_stays_says_when_it_is_ready_and_is_started_again(name):
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert {"interval", "timeout", "start_period", "retries"} <= set(check)
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_readiness_of_a_program_is_its_own_word(name):
    test = SERVICES[name]["healthcheck"]["test"]
    assert test == ["CMD", "fedfleet", "health", "--state-dir", "/var/lib/fedfleet"]
    assert "/var/lib/fedfleet" in {
        volume.partition(":")[2] or volume for volume in SERVICES[name]["volumes"]
    }


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_waits_until_what_it_needs_is_ready(name):
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        wanted = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
        assert how == {"condition": wanted}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_are_pinned(name):
    image = filled(SERVICES[name]["image"])
    tag = image.rpartition(":")[2]
    assert re.search(r"[0-9]+\.[0-9]+\.[0-9]+$", tag), image


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_files_volumes_and_networks_that_are_named_are_there(name):
    service = SERVICES[name]
    for volume in service.get("volumes", ()):
        source = volume.partition(":")[0]
        if source.startswith("./"):
            assert (ROOT / source).exists(), f"{name}: {source}"
        elif not source.startswith("/"):
            assert source in COMPOSE["volumes"]
    for network in service.get("networks", ()):
        assert network in COMPOSE["networks"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_ports_are_published_on_this_machine_only(name):
    for port in SERVICES[name].get("ports", ()):
        assert filled(port).startswith("127.0.0.1:")


@pytest.mark.parametrize("region", ["eu", "us"])
def test_devices_reach_the_broker_of_their_region_and_nothing_else(region):
    assert SERVICES[f"device-{region}"]["networks"] == [f"region-{region}"]
    assert COMPOSE["networks"][f"region-{region}"] == {"internal": True}
    others = {"device-eu", "device-us", "gateway-eu", "gateway-us", "broker-eu", "broker-us"}
    inside = {name for name in others if f"region-{region}" in SERVICES[name]["networks"]}
    assert inside == {f"device-{region}", f"gateway-{region}", f"broker-{region}"}


@pytest.mark.parametrize("region", ["eu", "us"])
def test_a_device_can_be_scaled_its_state_and_its_id_are_its_own(region):
    service = SERVICES[f"device-{region}"]
    assert service["environment"]["FEDFLEET_ID"] == "auto"
    assert "/var/lib/fedfleet" in service["volumes"]
    assert not {"container_name", "hostname", "ports"} & set(service)


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_the_environment_of_a_program_is_made_of_its_settings(name, monkeypatch):
    environment = {key: filled(text) for key, text in SERVICES[name]["environment"].items()}
    for key, text in environment.items():
        monkeypatch.setenv(key, text)
    settings = PROGRAMS[name].load()
    known = {f"FEDFLEET_{field.upper()}" for field in PROGRAMS[name].model_fields}
    threads = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
    assert set(environment) <= known | threads | {"MIN_CLIENTS"}
    broker = "broker" if name == "central" else f"broker-{settings.region}"
    assert settings.broker == f"mqtt://{broker}:1883"


def test_the_two_regions_differ_in_nothing_but_their_name():
    for kind in ("broker", "gateway", "device"):
        east = yaml.safe_dump({**SERVICES[f"{kind}-eu"], "build": None})
        west = yaml.safe_dump({**SERVICES[f"{kind}-us"], "build": None})
        renamed = re.sub(r"\beu\b", "us", east)
        assert yaml.safe_load(renamed) == yaml.safe_load(west)


def test_each_image_of_ours_is_built_by_exactly_one_service():
    targets = [service["build"]["target"] for service in SERVICES.values() if "build" in service]
    assert sorted(targets) == ["central", "device", "gateway", "testbed-data"]
    ours = {
        filled(service["image"]).partition(":")[0]
        for service in SERVICES.values()
        if service["image"].startswith("fedfleet/")
    }
    assert ours == {f"fedfleet/{target}" for target in targets}


def test_the_example_of_settings_has_all_variables_with_their_defaults():
    written = dict(
        line.split("=", 1)
        for line in (ROOT / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )
    used = dict(_VARIABLE.findall((ROOT / "docker-compose.yml").read_text()))
    assert written == used


def test_a_variable_has_one_default():
    defaults = {}
    for name, default in _VARIABLE.findall((ROOT / "docker-compose.yml").read_text()):
        assert defaults.setdefault(name, default) == default


@pytest.mark.parametrize("name", ["central", "region"])
def test_a_broker_takes_the_largest_packet_and_keeps_its_sessions(name):
    lines = (ROOT / "deploy" / "mosquitto" / f"{name}.conf").read_text().splitlines()
    settings = dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))
    assert int(settings["max_packet_size"]) == MAX_PACKET_BYTES
    assert settings["persistence"] == "true"
    assert settings["listener"] == "1883"
    assert int(settings["max_inflight_messages"]) <= 20


@pytest.mark.parametrize("target", ["central", "gateway", "device", "device-torch"])
def test_each_program_has_an_image_that_is_not_root_and_says_when_it_is_ready(target):
    assert re.search(rf"^FROM runtime AS {target}$", DOCKERFILE, re.MULTILINE)
    runtime = DOCKERFILE.partition(" AS runtime\n")[2].partition("\nFROM ")[0]
    for line in (
        "USER 10001:10001",
        "VOLUME /var/lib/fedfleet",
        'ENTRYPOINT ["fedfleet"]',
        'CMD ["fedfleet", "health", "--state-dir", "/var/lib/fedfleet"]',
    ):
        assert line in runtime


def test_the_version_of_torch_is_the_same_everywhere():
    pinned = re.search(r'"(torch==[0-9.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert re.findall(r"^ARG TORCH=(.*)$", DOCKERFILE, re.MULTILINE) == [pinned, pinned]
    assert f"TORCH={pinned}\n" in (ROOT / ".env.example").read_text()
    assert f'default = "{pinned}"' in (ROOT / "deploy/docker/docker-bake.hcl").read_text()

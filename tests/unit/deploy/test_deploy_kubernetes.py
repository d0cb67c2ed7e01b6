"""The manifests as they are written, before kustomize: what the schemas of Kubernetes do not see.

``make kubernetes-test`` renders the overlays and asks the same of what comes out.
"""

import copy
import importlib.util
import re
import stat
from pathlib import Path

import pytest
import yaml

from schemas.ids import is_id
from schemas.limits import MAX_PACKET_BYTES
from tests.support.kubernetes_objects import (
    CHECKS,
    containers_of,
    labels_of,
    name_of,
    of_kind,
    pod_of,
    selects,
    workloads,
)

MANIFESTS = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes"
KUSTOMIZATIONS = sorted(MANIFESTS.rglob("kustomization.yaml"))
#: What overlays generate, for the workloads of the two folders.
GENERATED = {
    "base": ("broker-passwords", "central-login"),
    "region": ("region-passwords", "gateway-login", "device-login"),
}


def read(path):
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def kustomization(folder):
    (found,) = read(MANIFESTS / folder / "kustomization.yaml")
    return found


def objects_of(folder):
    """All objects of a folder, with those that kustomize and the overlays generate for it."""
    kustomize = kustomization(folder)
    found = [one for name in kustomize["resources"] for one in read(MANIFESTS / folder / name)]
    names = [("ConfigMap", one["name"]) for one in kustomize["configMapGenerator"]]
    names += [("Secret", name) for name in GENERATED[folder]]
    return found + [{"kind": kind, "metadata": {"name": name}} for kind, name in names]


BASE, REGION = objects_of("base"), objects_of("region")
BOTH = BASE + REGION


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_manifests_fit_together(check):
    assert list(check(BOTH)) == []


def drop(*path):
    """A fault: something of the central Deployment is not there."""

    def plant(objects):
        (found,) = (one for one in workloads(objects) if name_of(one) == "central")
        for key in path[:-1]:
            found = found[key]
        del found[path[-1]]

    return plant


def put(value, *path):
    def plant(objects):
        (found,) = (one for one in workloads(objects) if name_of(one) == "central")
        for key in path[:-1]:
            found = found[key]
        found[path[-1]] = value

    return plant


POD = ("spec", "template", "spec")
BOX = (*POD, "containers", 0)
LABELS = ("spec", "template", "metadata", "labels")
FAULTS = {
    "another label": ("selector", put({"app.kubernetes.io/name": "centre"}, *LABELS)),
    "another pod's label": ("selector", put({"app.kubernetes.io/name": "broker"}, *LABELS)),
    "a secret of another name": (
        "reference",
        put("login", *BOX, "envFrom", 1, "secretRef", "name"),
    ),
    "a claim of another name": (
        "reference",
        put("x", *POD, "volumes", 0, "persistentVolumeClaim", "claimName"),
    ),
    "a volume that nobody mounts": ("volume", put([], *BOX, "volumeMounts")),
    "root": ("security", put(0, *POD, "securityContext", "runAsUser")),
    "a token": ("security", drop(*POD, "automountServiceAccountToken")),
    "a node's network": ("security", put(True, *POD, "hostNetwork")),
    "a writable root": (
        "confinement",
        put(False, *BOX, "securityContext", "readOnlyRootFilesystem"),
    ),
    "no limits": ("confinement", drop(*BOX, "resources", "limits")),
    "an image without tag": ("image", put("fedfleet/central", *BOX, "image")),
    "the gateway's image": ("image", put("fedfleet/gateway:0.1.0", *BOX, "image")),
    "no readiness": ("probe", drop(*BOX, "readinessProbe")),
    "another port": ("metrics", put(9100, *BOX, "ports", 0, "containerPort")),
    "two owners": ("ownership", put(2, "spec", "replicas")),
    "owners that overlap": ("ownership", put({"type": "RollingUpdate"}, "spec", "strategy")),
    "no budget": ("policy", put({"app.kubernetes.io/name": "centre"}, *LABELS)),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_found(fault):
    name, plant = fault
    objects = copy.deepcopy(BOTH)
    plant(objects)
    (check,) = (one for one in CHECKS if one.__name__ == f"{name}_problems")
    assert list(check(objects))


def test_a_service_of_nothing_or_of_an_unknown_port_is_found():
    (check,) = (one for one in CHECKS if one.__name__ == "service_problems")
    for key, value in (("selector", {"x": "y"}), ("ports", [{"port": 1, "targetPort": "http"}])):
        objects = copy.deepcopy(BASE)
        of_kind(objects, "Service")[0]["spec"][key] = value
        assert list(check(objects))


def test_central_and_its_broker_stay_on_cloud_nodes_and_devices_on_edge_nodes():
    placed = {name_of(one): pod_of(one).get("nodeSelector") for one in of_kind(BOTH, "Deployment")}
    assert set(placed) == {"broker", "central", "region-broker", "gateway"}
    assert all(selector == {"role": "cloud"} for selector in placed.values())
    (device,) = of_kind(REGION, "DaemonSet")
    affinity = pod_of(device)["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert {"key": "role", "operator": "In", "values": ["edge"]} in term["matchExpressions"]
    taints = [(it["key"], it["effect"]) for it in pod_of(device)["tolerations"]]
    assert ("role", "NoSchedule") in taints


def test_a_program_speaks_to_its_brokers_and_to_nothing_else():
    policies = of_kind(BOTH, "NetworkPolicy")
    (deny,) = (one for one in policies if name_of(one) == "deny-all")
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    reached = {name_of(one): reach(labels_of(one), policies) for one in workloads(BOTH)}
    assert reached == {
        "broker": set(),
        "region-broker": set(),
        "central": {"broker"},
        "gateway": {"broker", "region-broker"},
        "device": {"region-broker"},
    }


def reach(labels, policies):
    """The workloads that pods with some labels may call, and that let themselves be called."""
    found = set()
    for one in workloads(BOTH):
        calls = any(
            selects(policy["spec"]["podSelector"], labels)
            and mentions(policy, "egress", "to", labels_of(one))
            for policy in policies
        )
        answers = any(
            selects(policy["spec"]["podSelector"], labels_of(one))
            and mentions(policy, "ingress", "from", labels)
            for policy in policies
        )
        assert calls == answers, name_of(one)
        if calls:
            found.add(name_of(one))
    return found


def mentions(policy, direction, end, labels):
    return any(
        "namespaceSelector" not in peer and selects(peer["podSelector"], labels)
        for rule in policy["spec"].get(direction, [])
        for peer in rule[end]
    )


@pytest.mark.parametrize("folder", ["base", "region"])
def test_a_broker_takes_the_largest_packet_keeps_sessions_and_knows_its_users(folder):
    text = (MANIFESTS / folder / "mosquitto.conf").read_text()
    lines = dict(re.findall(r"^(\w+) (.+)$", text, re.MULTILINE))
    assert int(lines["max_packet_size"]) == MAX_PACKET_BYTES
    assert (lines["persistence"], lines["allow_anonymous"]) == ("true", "false")
    assert lines["acl_file"] == "/mosquitto/config/acl"
    (broker,) = (one for one in workloads(objects_of(folder)) if "broker" in name_of(one))
    mounts = {mount["mountPath"] for mount in containers_of(broker)[-1]["volumeMounts"]}
    assert mounts == {"/mosquitto/config", "/mosquitto/passwords", "/mosquitto/data"}


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_everything_that_a_kustomization_names_exists(path):
    (found,) = read(path)
    names = [*found.get("resources", []), *found.get("components", [])]
    names += [one["path"] for one in found.get("patches", []) if "path" in one]
    for generator in found.get("configMapGenerator", []):
        names += generator.get("files", [])
    for generator in found.get("secretGenerator", []):
        files = [*generator.get("files", []), *generator.get("envs", [])]
        names += [f"{name.partition('=')[2] or name}.example" for name in files]
    assert found["kind"] in {"Kustomization", "Component"}
    assert [name for name in names if not (path.parent / name).exists()] == []


def test_the_name_of_a_region_is_an_id():
    texts = [path.read_text() for path in KUSTOMIZATIONS]
    names = re.findall(r"FEDFLEET_REGION=(.+)", "\n".join(texts))
    assert sorted(names) == ["home", "north", "south"]
    assert all(is_id(name) for name in names)


@pytest.fixture
def write_secrets():
    path = MANIFESTS / "write_secrets.py"
    spec = importlib.util.spec_from_file_location("write_secrets", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_secrets


@pytest.fixture
def overlay(tmp_path):
    folder = tmp_path / "overlay" / "secrets"
    folder.mkdir(parents=True)
    (folder / "passwords.example").write_text("a:change-me-1\nb:change-me-2\n")
    (folder / "login.env.example").write_text("URL=mqtt://a:change-me-1@broker\n")
    return tmp_path / "overlay"


def test_secrets_are_drawn_once_and_the_same_wherever_they_stand(write_secrets, overlay):
    draw = iter("xyz").__next__
    assert len(write_secrets(overlay, draw)) == 2
    assert (overlay / "secrets" / "login.env").read_text() == "URL=mqtt://a:x@broker\n"
    assert (overlay / "secrets" / "passwords").read_text() == "a:x\nb:y\n"
    assert stat.S_IMODE((overlay / "secrets" / "passwords").stat().st_mode) == 0o600
    assert write_secrets(overlay, draw) == []


def test_secrets_are_renewed_together_or_not_at_all(write_secrets, overlay):
    write_secrets(overlay, iter("xy").__next__)
    (overlay / "secrets" / "login.env").unlink()
    with pytest.raises(FileExistsError, match="renew"):
        write_secrets(overlay, iter("pq").__next__)
    assert len(write_secrets(overlay, iter("pq").__next__, renew=True)) == 2
    assert (overlay / "secrets" / "passwords").read_text() == "a:p\nb:q\n"


def test_no_password_is_kept_in_the_repository():
    ignored = (MANIFESTS / ".gitignore").read_text()
    assert "/overlays/**/secrets/*\n!/overlays/**/secrets/*.example" in ignored
    for path in MANIFESTS.rglob("*.example"):
        passwords = re.findall(r":([^:@/\s]+)(?:@|$)", path.read_text(), re.MULTILINE)
        assert all(re.fullmatch(r"change-me-\d+|1883", one) for one in passwords), path

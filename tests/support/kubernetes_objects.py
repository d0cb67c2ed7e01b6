"""What the schemas of Kubernetes do not see in a set of objects: each check returns problems."""

import base64
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

from central.settings import CentralSettings
from device_agent.settings import DeviceSettings
from regional_gateway.settings import GatewaySettings
from transport.settings import SettingsError

Objects = list[dict[str, Any]]
SETTINGS = {"central": CentralSettings, "gateway": GatewaySettings, "device": DeviceSettings}
IMAGES = {
    *(f"fedfleet/{name}:0.1.0" for name in ("central", "gateway", "device", "testbed-data")),
    "eclipse-mosquitto:2.0.22",
}
METRICS_PORT = 9108
STATE_DIR = "/var/lib/fedfleet"
HEALTH = ["fedfleet", "health", "--state-dir", STATE_DIR]
#: Settings that come with the extra for Prometheus.
_METRICS = {"metrics_host", "metrics_port"}
#: Of a volume: its source, the kind of object, and the field that names it.
_VOLUMES = {
    "configMap": ("ConfigMap", "name"),
    "secret": ("Secret", "secretName"),
    "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
}
_ENV_SOURCES = {"configMapRef": "ConfigMap", "secretRef": "Secret"}
_CONFINED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def of_kind(objects: Objects, *kinds: str) -> Objects:
    return [one for one in objects if one["kind"] in kinds]


def workloads(objects: Objects) -> Objects:
    return of_kind(objects, "Deployment", "DaemonSet", "StatefulSet")


def name_of(one: Mapping[str, Any]) -> str:
    return str(one["metadata"]["name"])


def pod_of(one: Mapping[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = one["spec"]["template"]["spec"]
    return pod


def labels_of(one: Mapping[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = one["spec"]["template"]["metadata"]["labels"]
    return labels


def containers_of(one: Mapping[str, Any]) -> list[dict[str, Any]]:
    pod = pod_of(one)
    return [*pod.get("initContainers", []), *pod["containers"]]


def program_of(one: Mapping[str, Any]) -> str | None:
    """Which of fedfleet's programs a workload runs, if any."""
    args = pod_of(one)["containers"][0].get("args", [])
    return args[0] if args and args[0] in SETTINGS else None


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches; an empty one matches everything."""
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In", "the checks know no other operator"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def selector_problems(objects: Objects) -> Iterator[str]:
    """Every workload selects its own pods and no others'."""
    for one in workloads(objects):
        chosen = [
            name_of(other)
            for other in workloads(objects)
            if selects(one["spec"]["selector"], labels_of(other))
        ]
        if chosen != [name_of(one)]:
            yield f"{name_of(one)} selects the pods of {chosen}"


def service_problems(objects: Objects) -> Iterator[str]:
    """Every service stands for one workload, and for a port that its container has."""
    for one in of_kind(objects, "Service"):
        selector = {"matchLabels": one["spec"]["selector"]}
        chosen = [it for it in workloads(objects) if selects(selector, labels_of(it))]
        if len(chosen) != 1:
            yield f"service {name_of(one)} selects {[name_of(it) for it in chosen]}"
            continue
        ports = {port["name"] for box in containers_of(chosen[0]) for port in box.get("ports", [])}
        wanted = {port["targetPort"] for port in one["spec"]["ports"]}
        if not wanted <= ports:
            yield f"service {name_of(one)} wants the ports {wanted}, there are {ports}"


def referred(one: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Kind and name of all that a workload takes from elsewhere."""
    for volume in pod_of(one).get("volumes", []):
        for source, (kind, key) in _VOLUMES.items():
            if source in volume:
                yield kind, volume[source][key]
    for box in containers_of(one):
        for source in box.get("envFrom", []):
            ((key, reference),) = source.items()
            yield _ENV_SOURCES[key], reference["name"]


def reference_problems(objects: Objects) -> Iterator[str]:
    """Whatever a workload refers to is there, and nothing is there that none refers to."""
    there = {
        (one["kind"], name_of(one))
        for one in of_kind(objects, "ConfigMap", "Secret", "PersistentVolumeClaim")
    }
    wanted = {reference for one in workloads(objects) for reference in referred(one)}
    yield from (f"{kind} {name} is missing" for kind, name in sorted(wanted - there))
    yield from (f"{kind} {name} is of no use" for kind, name in sorted(there - wanted))


def volume_problems(objects: Objects) -> Iterator[str]:
    """Every mount has its volume, and every volume is mounted."""
    for one in workloads(objects):
        volumes = {volume["name"] for volume in pod_of(one).get("volumes", [])}
        mounts = {
            mount["name"] for box in containers_of(one) for mount in box.get("volumeMounts", [])
        }
        if volumes != mounts:
            yield f"{name_of(one)} has volumes {volumes} and mounts {mounts}"


def security_problems(objects: Objects) -> Iterator[str]:
    """Every pod keeps to the restricted standard."""
    for one in workloads(objects):
        pod, name = pod_of(one), name_of(one)
        context = pod["securityContext"]
        if context.get("runAsNonRoot") is not True or context.get("runAsUser") not in {
            10001,
            1883,
        }:
            yield f"{name} may run as root"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name} has no seccomp profile"
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{name} carries a token of the cluster"
        if {"hostNetwork", "hostPID", "hostIPC"} & pod.keys():
            yield f"{name} shares its node's namespaces"


def confinement_problems(objects: Objects) -> Iterator[str]:
    """Every container is confined, and bounded in what it takes."""
    for one in workloads(objects):
        for box in containers_of(one):
            where = f"{name_of(one)}/{box['name']}"
            if box["securityContext"] != _CONFINED:
                yield f"{where} has the security context {box['securityContext']}"
            for bound in ("requests", "limits"):
                if not {"cpu", "memory"} <= box["resources"].get(bound, {}).keys():
                    yield f"{where} has no {bound}"


def image_problems(objects: Objects) -> Iterator[str]:
    """Every image is one that is known, with its tag, and the program's own."""
    for one in workloads(objects):
        for box in containers_of(one):
            if box["image"] not in IMAGES:
                yield f"{name_of(one)}/{box['name']} has the image {box['image']}"
        program = program_of(one)
        image = pod_of(one)["containers"][0]["image"]
        if program is not None and not image.startswith(f"fedfleet/{program}:"):
            yield f"{name_of(one)} runs {program} in {image}"


def probe_problems(objects: Objects) -> Iterator[str]:
    """Every container that stays has probes; of a program, ready is the program's own word."""
    for one in workloads(objects):
        box = pod_of(one)["containers"][0]
        if not {"readinessProbe", "livenessProbe"} <= box.keys():
            yield f"{name_of(one)} has not both probes"
        elif program_of(one) is not None:
            if box["readinessProbe"]["exec"]["command"] != HEALTH:
                yield f"{name_of(one)} is ready by {box['readinessProbe']}"
            if box["startupProbe"]["exec"] != box["livenessProbe"]["exec"]:
                yield f"{name_of(one)} starts and lives by different words"
            places = {mount["mountPath"] for mount in box["volumeMounts"]}
            if not {STATE_DIR, "/tmp"} <= places:
                yield f"{name_of(one)} cannot write its state or temporary files"


def metrics_problems(objects: Objects) -> Iterator[str]:
    """Central and gateways are scraped where their settings and ports say."""
    for one in workloads(objects):
        if program_of(one) not in {"central", "gateway"}:
            continue
        notes = one["spec"]["template"]["metadata"].get("annotations", {})
        ports = {port["containerPort"] for port in pod_of(one)["containers"][0]["ports"]}
        if notes.get("prometheus.io/port") != str(METRICS_PORT) or METRICS_PORT not in ports:
            yield f"{name_of(one)} is scraped at {notes}, its ports are {ports}"


def policy_problems(objects: Objects) -> Iterator[str]:
    """Network policies and disruption budgets are of pods that there are."""
    pods = [labels_of(one) for one in workloads(objects)]
    for one in of_kind(objects, "NetworkPolicy", "PodDisruptionBudget"):
        key = "podSelector" if one["kind"] == "NetworkPolicy" else "selector"
        if not any(selects(one["spec"][key], labels) for labels in pods):
            yield f"{one['kind']} {name_of(one)} is of no pod"
    budgets = of_kind(objects, "PodDisruptionBudget")
    for one in of_kind(objects, "Deployment"):
        held = [it for it in budgets if selects(it["spec"]["selector"], labels_of(one))]
        if len(held) != 1:
            yield f"{name_of(one)} has {len(held)} disruption budgets"


def ownership_problems(objects: Objects) -> Iterator[str]:
    """What keeps a state is one pod, which ends before the next one begins."""
    for one in of_kind(objects, "Deployment"):
        spec = one["spec"]
        if (spec["replicas"], spec["strategy"]) != (1, {"type": "Recreate"}):
            yield f"{name_of(one)} may have two owners of one state"


def device_id_problems(objects: Objects) -> Iterator[str]:
    """Every device is named after its node."""
    for one in workloads(objects):
        if program_of(one) == "device":
            env = {it["name"]: it for it in pod_of(one)["containers"][0]["env"]}
            field = env["FEDFLEET_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
            if one["kind"] != "DaemonSet" or field != "spec.nodeName":
                yield f"{name_of(one)} takes its id from {field}"


CHECKS: tuple[Callable[[Objects], Iterator[str]], ...] = (
    selector_problems,
    service_problems,
    reference_problems,
    volume_problems,
    security_problems,
    confinement_problems,
    image_problems,
    probe_problems,
    metrics_problems,
    policy_problems,
    ownership_problems,
    device_id_problems,
)


def environment_of(one: Mapping[str, Any], objects: Objects) -> dict[str, str]:
    """What a workload's first container finds in its environment, as far as the objects say."""
    data = {
        (it["kind"], name_of(it)): _texts(it) for it in of_kind(objects, "ConfigMap", "Secret")
    }
    box, found = pod_of(one)["containers"][0], {}
    for source in box.get("envFrom", []):
        ((key, reference),) = source.items()
        found |= data[_ENV_SOURCES[key], reference["name"]]
    for it in box.get("env", []):
        found[it["name"]] = it.get("value", "edge-node-1")  # else from the node
    return found


def settings_problems(objects: Objects) -> Iterator[str]:
    """The settings of every program are known, and fit."""
    for one in workloads(objects):
        program = program_of(one)
        if program is None:
            continue
        known = set(SETTINGS[program].model_fields) | _METRICS
        names = environment_of(one, objects)
        for name in names:
            match = re.fullmatch(r"FEDFLEET_([A-Z_]+)", name)
            if match and match[1].lower() not in known:
                yield f"{name_of(one)}: {name} is no setting of {program}"
        try:
            with patch.dict(os.environ, names, clear=True):
                SETTINGS[program].load()
        except SettingsError as error:
            yield f"{name_of(one)}: {error}"


def login_problems(objects: Objects) -> Iterator[str]:
    """Every broker's URL names a service, its port, and a login that this broker knows."""
    for one in workloads(objects):
        for name, value in environment_of(one, objects).items():
            if name in {"FEDFLEET_BROKER", "FEDFLEET_UPLINK"}:
                problem = _login_problem(value, objects)
                if problem:
                    yield f"{name_of(one)}: {name}: {problem}"


def _login_problem(value: str, objects: Objects) -> str | None:
    url = urlsplit(value)
    services = {name_of(it): it for it in of_kind(objects, "Service")}
    if url.hostname not in services:
        return f"there is no service {url.hostname}"
    service = services[url.hostname]
    if url.port not in {port["port"] for port in service["spec"]["ports"]}:
        return f"{url.hostname} has no port {url.port}"
    selector = {"matchLabels": service["spec"]["selector"]}
    (broker,) = (it for it in workloads(objects) if selects(selector, labels_of(it)))
    wanted = dict(referred(broker))["Secret"]
    (secret,) = (it for it in of_kind(objects, "Secret") if name_of(it) == wanted)
    if f"{url.username}:{url.password}" not in _texts(secret)["passwords"].splitlines():
        return f"{url.hostname} does not know this password of {url.username}"
    return None


def _texts(one: Mapping[str, Any]) -> dict[str, str]:
    if one["kind"] == "ConfigMap":
        return dict(one.get("data", {}))
    return {name: base64.b64decode(it).decode() for name, it in one.get("data", {}).items()}

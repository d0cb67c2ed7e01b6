"""What the run does to the testbed, one function a stage; each raises ``Failure``."""

import json
import time

from tests.deploy.compose.fleet import OURS, SERVICES
from tests.deploy.compose.report import Failure, until

MB = 1_000_000
DEVICE_IMAGE_MB = 350
#: What four devices reach in ten rounds varies with what their ids draw; all runs had 0.90 or more.
ACCURACY = 0.85
_CUT_S = 10
#: Length of the name of a volume that nobody named.
_ANONYMOUS = 64
_ROUNDS = 10
_KILLED_AFTER = 2


def check(holds, what):
    """Raise ``Failure`` unless something holds."""
    if not holds:
        raise Failure(what)


def images(fleet, report, base):
    """Build every image, and look at what is in the device's."""
    fleet.compose("build", timeout_s=1500)
    report.say("images of the compose file built, from the unmodified Dockerfile")
    ground = _size(fleet, base)
    tag = fleet.config()["services"]["central"]["image"].rpartition(":")[2]
    sizes = {}
    for name in ("central", "gateway", "device", "testbed-data"):
        whole = _size(fleet, f"fedfleet/{name}:{tag}")
        sizes[name] = {"MB": round(whole / MB), "without_base": round((whole - ground) / MB)}
    report.note("stand_in_base_MB", round(ground / MB))
    report.note("images", sizes)
    report.say(f"image sizes: {sizes}")
    check(sizes["device"]["MB"] < DEVICE_IMAGE_MB, f"the device's image: {sizes['device']}")
    absent = (
        "import importlib.util as u;"
        "found = [name for name in ('torch', 'onnx', 'pip', 'sklearn') if u.find_spec(name)];"
        "assert not found, found; import onnxruntime, fedfleet"
    )
    _python(fleet, f"fedfleet/device:{tag}", absent)
    report.say("device: onnxruntime, and neither torch nor onnx nor pip")


def device_torch(fleet, report, project):
    """Build the device with torch, and train nothing with it."""
    fleet.engine.environment["DOCKER_BUILDKIT"] = "1"
    name = "fedfleet/device-torch:test"
    dockerfile = project / "deploy" / "docker" / "Dockerfile"
    fleet.engine.docker(
        *("build", "--file", dockerfile, "--target", "device-torch", "--tag", name, project),
        timeout_s=1500,
    )
    _python(fleet, name, "import torch, onnxruntime, device_agent.training.torch_trainer")
    report.note("device_torch_MB", round(_size(fleet, name) / MB))
    report.say(f"device-torch built, {round(_size(fleet, name) / MB)} MB; both backends import")


def up(fleet, report):
    """Bring the testbed up; compose itself waits until all are healthy."""
    began = time.monotonic()
    fleet.compose("up", "--detach", "--wait", *SERVICES, timeout_s=300)
    fleet.await_healthy()
    report.note("up_s", round(time.monotonic() - began, 1))
    report.say(f"all of {len(SERVICES)} services healthy, after {time.monotonic() - began:.1f} s")


def confinement(fleet, report):
    """Look at every container from outside: limits, user, capabilities, file system."""
    count = 0
    for service in SERVICES:
        for container in fleet.containers(service):
            host = fleet.inspect(container)["HostConfig"]
            check(host["ReadonlyRootfs"], f"{service}: its root can be written")
            for limit in ("Memory", "PidsLimit", "NanoCpus"):
                check(host[limit] > 0, f"{service}: no limit {limit}")
            check(host["RestartPolicy"]["Name"] == "unless-stopped", f"{service}: restart")
            status = fleet.process_status(container)
            check(int(status["CapEff"], 16) == 0, f"{service}: CapEff {status['CapEff']}")
            check(int(status["CapBnd"], 16) == 0, f"{service}: CapBnd {status['CapBnd']}")
            check(status["NoNewPrivs"] == "1", f"{service}: it may gain privileges")
            check(status["Seccomp"] == "2", f"{service}: no system call filter")
            check(status["Uid"].split()[0] != "0", f"{service}: it is root")
            count += 1
    report.say(f"{count} containers: read-only root, no capability, not root, limits")


def first_task(fleet, report):
    """A task with the recipe's own settings, handed in from outside, reaches its accuracy."""
    began = time.monotonic()
    fleet.submit("first", rounds=_ROUNDS, min_clients=4, cohort=4)
    status = fleet.await_completed("first")
    accuracy = status["metrics"]["accuracy"]
    took_s = round(time.monotonic() - began, 1)
    report.note("first_task", {"seconds": took_s, "rounds": _ROUNDS, "accuracy": accuracy})
    report.say(f"task by mosquitto_pub completed in {took_s} s, accuracy {accuracy:.3f}")
    check(accuracy >= ACCURACY, f"accuracy {accuracy}, at least {ACCURACY} is expected")


def kill_each(fleet, report):
    """SIGKILL one container of each service in the middle of a task; each task completes."""
    seconds = {}
    for service in SERVICES:
        task = f"kill-{service}"
        fleet.submit(task, rounds=_ROUNDS, min_clients=3, cohort=4)
        status = fleet.await_rounds(task, _KILLED_AFTER)
        check(status["state"] == "running", f"{task}: it was over before the kill: {status}")
        began = time.monotonic()
        container, restarts = fleet.kill(service)
        fleet.await_restart(service, container, restarts)
        healthy_s = time.monotonic() - began
        status = fleet.await_completed(task)
        check(status["committed"] == _ROUNDS, f"{task}: {status}")
        whole_s = time.monotonic() - began
        seconds[service] = {"healthy": round(healthy_s, 1), "completed": round(whole_s, 1)}
        report.say(
            f"{service}: killed after {_KILLED_AFTER} of {_ROUNDS} rounds; healthy again after "
            f"{healthy_s:.1f} s, task completed after {whole_s:.1f} s"
        )
    fleet.await_healthy()
    report.note("after_sigkill_s", seconds)


def cut_broker(fleet, report):
    """Cut the central broker off for 10 s in the middle of a task."""
    fleet.submit("cut", rounds=_ROUNDS, min_clients=3, cohort=4)
    before = fleet.await_rounds("cut", _KILLED_AFTER)
    check(before["state"] == "running", f"cut: it was over before: {before}")
    with fleet.cut_off("broker"):
        time.sleep(_CUT_S)
    began = time.monotonic()
    status = fleet.await_completed("cut")
    healed_s = round(time.monotonic() - began, 1)
    check(status["committed"] == _ROUNDS, f"cut: {status}")
    fleet.await_healthy()
    report.note("completed_after_cut_s", healed_s)
    report.say(f"central's broker cut off for {_CUT_S} s; task completed {healed_s} s after")


def scale(fleet, report):
    """Go from four devices to eight, and let all eight take part in one task."""
    before = fleet.device_ids()
    check(len(before) == 4, f"devices: {before}")
    began = time.monotonic()
    more = ("--scale", "device-eu=4", "--scale", "device-us=4")
    fleet.compose("up", "--detach", "--wait", "--no-recreate", *more, *SERVICES)
    fleet.await_healthy()
    took_s = round(time.monotonic() - began, 1)
    after = fleet.device_ids()
    check(len(set(after.values())) == 8, f"ids that are not unique: {after}")
    check(before.items() <= after.items(), f"ids changed: {before} to {after}")
    fleet.submit("eight", rounds=5, min_clients=8, cohort=8)
    accuracy = fleet.await_completed("eight")["metrics"]["accuracy"]
    report.note("scale", {"seconds": took_s, "accuracy_of_eight": accuracy})
    report.say(f"devices 4 -> 8 healthy in {took_s} s; a task of all 8 reached {accuracy:.3f}")


def replace(fleet, report):
    """Put new containers in the devices' place, as an upgrade does: ids stay with their state."""
    before = fleet.device_ids()
    devices = ("device-eu", "device-us")
    scaled = ("--scale", "device-eu=4", "--scale", "device-us=4")
    fleet.compose("up", "--detach", "--wait", "--force-recreate", "--no-deps", *scaled, *devices)
    after = fleet.device_ids()
    check(not set(before) & set(after), "the containers are still the same")
    check(sorted(before.values()) == sorted(after.values()), f"ids: {before} to {after}")
    fleet.submit("replaced", rounds=2, min_clients=8, cohort=8)
    fleet.await_completed("replaced")
    report.say(
        "all 8 devices in new containers, with their ids and state; a task of all completed"
    )


def prometheus(fleet, report):
    """Prometheus scrapes central and both gateways."""

    def all_up():
        container = fleet.containers("prometheus")[0]
        url = "http://127.0.0.1:9090/api/v1/targets?state=active"
        told = fleet.engine.docker("exec", container, "wget", "-q", "-O", "-", url)
        targets = json.loads(told)["data"]["activeTargets"]
        states = {target["labels"]["instance"]: target["health"] for target in targets}
        return states if states and set(states.values()) == {"up"} else None

    states = until(all_up, "Prometheus scrapes every target", 60, 1)
    hosts = {instance.partition(":")[0] for instance in states}
    check({"central", "gateway-eu", "gateway-us"} <= hosts, f"targets: {states}")
    report.say(f"Prometheus scrapes {', '.join(sorted(states))}")


def shut_down(fleet, report):
    """Stop everything in order, and read the books of all programs together."""
    found = {service: fleet.containers(service) for service in SERVICES}
    began = time.monotonic()
    fleet.compose("stop", timeout_s=120)
    report.note("stop_s", round(time.monotonic() - began, 1))
    for service, containers in found.items():
        for container in containers:
            state = fleet.inspect(container)["State"]
            check(state["ExitCode"] == 0, f"{service}: exit code {state['ExitCode']}")
    report.say(f"stopped in {time.monotonic() - began:.1f} s, every program with exit code 0")
    _audit(fleet, report, {service: found[service] for service in OURS})
    fleet.compose("down", "--volumes", timeout_s=120)
    left = fleet.engine.docker("ps", "--all", "--quiet").split()
    volumes = fleet.engine.docker("volume", "ls", "--quiet").split()
    # Compose hands a replica's own volume on to its new container, and then forgets to remove it.
    left += [name for name in volumes if len(name) != _ANONYMOUS]
    check(not left, f"left behind: {left}")
    report.say(f"down: no container is left, and {len(volumes)} volumes of replaced devices")


def bake_file(fleet, report):
    """Let buildx read the file that builds for both architectures; it builds nothing here."""
    file = "deploy/docker/docker-bake.hcl"
    told = fleet.engine.docker("buildx", "bake", "--file", fleet.project / file, "--print")
    targets = json.loads(told)["target"]
    for name in ("central", "gateway", "device", "device-torch"):
        platforms = targets[name]["platforms"]
        check(platforms == ["linux/amd64", "linux/arm64"], f"{name}: {platforms}")
    report.say("docker-bake.hcl: four images, amd64 and arm64 (read, not built)")


def _audit(fleet, report, programs):
    image = fleet.config()["services"]["central"]["image"]
    volumes, arguments = [], ["--state-dir", "/books/central"]
    for service, containers in programs.items():
        for number, container in enumerate(containers, 1):
            place = "/books/central" if service == "central" else f"/books/{service}-{number}"
            volumes += ["--volume", f"{fleet.state_volume(container)}:{place}"]
            if service != "central":
                kind = "device" if service.startswith("device") else "gateway"
                arguments += [f"--{kind}-state-dir", place]
    told = fleet.engine.docker(
        *("run", "--rm", "--network", "none", *volumes, image, "audit", *arguments, "--json"),
        timeout_s=300,
    )
    books = json.loads(told)
    tasks = books["tasks"]
    check(not books["findings"], f"findings: {books['findings']}")
    check(books["lost"] == books["double"] == 0, f"lost or double: {books}")
    report.note("audit", {"tasks": len(tasks), "lost": books["lost"], "double": books["double"]})
    report.say(f"fedfleet audit: {len(tasks)} tasks, no update lost, none counted twice")


def _size(fleet, image):
    return int(fleet.engine.docker("image", "inspect", "--format", "{{.Size}}", image))


def _python(fleet, image, code):
    fleet.engine.docker(
        *("run", "--rm", "--network", "none", "--read-only", "--entrypoint", "python", image),
        *("-c", code),
    )

"""The testbed of ``docker-compose.yml`` on the run's own engine, and the tasks handed to it."""

import contextlib
import json
import os
import signal
from pathlib import Path

from tests.deploy.compose.report import Failure, until

#: What is brought up: everything but Grafana, for whose image there is no stand-in.
SERVICES = (
    *("broker", "broker-eu", "broker-us", "central", "gateway-eu", "gateway-us"),
    *("device-eu", "device-us", "prometheus"),
)
OURS = ("central", "gateway-eu", "gateway-us", "device-eu", "device-us")
STATE = "/var/lib/fedfleet"
_SUBMIT = "fl/v1/ctl/task/submit"
_FINAL = {"completed", "failed", "cancelled", "rejected"}
_PORT = 1883
#: The recipe of the digits: see fedfleet/testbed/choices.py.
_TASK = {
    "model": "mlp",
    "data": "digits",
    "codec": "int8",
    "training": {"epochs": 2, "batch_size": 16, "learning_rate": 0.1},
}


class Fleet:
    """Compose commands, containers by service, tasks by MQTT from outside."""

    def __init__(self, engine, project):
        self.engine = engine
        self.project = project

    def compose(self, *arguments, timeout_s=300, check=True):
        """Run ``docker compose`` on the project, without anybody's .env."""
        file = self.project / "docker-compose.yml"
        return self.engine.docker(
            *("compose", "--env-file", os.devnull, "--file", file, *arguments),
            timeout_s=timeout_s,
            check=check,
        )

    def config(self):
        """Return the compose file as compose understands it."""
        return json.loads(self.compose("config", "--format", "json"))

    def containers(self, service):
        """Return the ids of a service's containers that run."""
        return self.compose("ps", "--quiet", service).split()

    def inspect(self, container):
        """Return what the engine knows of a container."""
        return json.loads(self.engine.docker("inspect", container))[0]

    def is_healthy(self, container):
        """Tell whether it runs and its health check says that it is ready."""
        state = self.inspect(container)["State"]
        return state["Status"] == "running" and state["Health"]["Status"] == "healthy"

    def await_healthy(self, timeout_s=120):
        """Return when every container of every service is healthy.

        Raises:
            Failure: One is not in time; the end of its log is in the text.
        """
        for service in SERVICES:
            found = self.containers(service)
            if not found:
                message = f"{service}: it has no container"
                raise Failure(message)
            for container in found:
                self.await_container(service, container, timeout_s)

    def await_container(self, service, container, timeout_s=120):
        """Return when one is healthy."""
        try:
            until(lambda: self.is_healthy(container), f"{service} healthy", timeout_s)
        except Failure as failure:
            log = self.engine.docker("logs", "--tail", "15", container, check=False)
            health = self.inspect(container)["State"].get("Health", {}).get("Log", [])[-1:]
            message = f"{failure}\n{log}\n{health}"
            raise Failure(message) from failure

    def kill(self, service):
        """Kill the first container of a service as a crash would; return its id and restarts.

        ``docker kill`` would count as a wish to stop it, and disarm the restart policy.
        """
        container = self.containers(service)[0]
        told = self.inspect(container)
        os.kill(told["State"]["Pid"], signal.SIGKILL)
        return container, told["RestartCount"]

    def await_restart(self, service, container, restarts):
        """Return when a killed container was started again and is healthy."""
        until(
            lambda: self.inspect(container)["RestartCount"] > restarts,
            f"{service} started again",
            60,
            0.1,
        )
        self.await_container(service, container)

    def submit(self, task, **fields):
        """Hand in a task with mosquitto_pub, from outside of all containers."""
        payload = json.dumps({"task": task, **_TASK, **fields})
        self.engine.inside(
            *("mosquitto_pub", "-h", "127.0.0.1", "-p", _PORT, "-q", "1"),
            *("-t", _SUBMIT, "-m", payload),
        )

    def status(self, task):
        """Return a task's retained status; None while there is none."""
        told = self.engine.inside(
            *("mosquitto_sub", "-h", "127.0.0.1", "-p", _PORT, "-C", "1", "-W", "2"),
            *("-t", f"fl/v1/ctl/task/{task}/status"),
            check=False,
        )
        with contextlib.suppress(ValueError):
            found = json.loads(told)
            if found["state"] in _FINAL - {"completed"}:
                message = f"task {task}: {found['state']}: {found.get('reason')}"
                raise Failure(message)
            return found
        return None

    def await_rounds(self, task, rounds, timeout_s=120):
        """Return the status once so many rounds are committed."""

        def reached():
            found = self.status(task)
            return found if found and found.get("committed", 0) >= rounds else None

        return until(reached, f"task {task}: {rounds} rounds committed", timeout_s, 0.1)

    def await_completed(self, task, timeout_s=180):
        """Return the final status."""

        def completed():
            found = self.status(task)
            return found if found and found["state"] == "completed" else None

        try:
            return until(completed, f"task {task} completed", timeout_s)
        except Failure as failure:
            message = f"{failure}; its last status: {self.status(task)}"
            raise Failure(message) from failure

    @contextlib.contextmanager
    def cut_off(self, service):
        """Let no packet into or out of a container within the block; its loopback works."""
        process = self.inspect(self.containers(service)[0])["State"]["Pid"]
        rules = (("INPUT", "-i"), ("OUTPUT", "-o"))
        for chain, side in rules:
            self.engine.inside(
                *("iptables", "-A", chain, "!", side, "lo", "-j", "DROP"), namespace=process
            )
        try:
            yield
        finally:
            self.engine.inside("iptables", "-F", namespace=process)

    def state_volume(self, container):
        """Return the name of the volume that a program keeps its state in."""
        mounts = self.inspect(container)["Mounts"]
        return next(mount["Name"] for mount in mounts if mount["Destination"] == STATE)

    def device_ids(self):
        """Return the id that each device container has drawn, by container."""
        found = {}
        for service in ("device-eu", "device-us"):
            for container in self.containers(service):
                told = self.engine.docker("exec", container, "cat", f"{STATE}/device-id")
                found[container] = told.strip()
        return found

    def process_status(self, container):
        """Return ``/proc/PID/status`` of a container's first process, by field."""
        process = self.inspect(container)["State"]["Pid"]
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)

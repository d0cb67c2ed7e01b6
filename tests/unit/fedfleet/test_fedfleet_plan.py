import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedfleet.testbed.choices import RECIPES, Options
from fedfleet.testbed.plan import Place, PlanError, make_plan, mosquitto_config
from schemas.ids import is_id
from schemas.tasks import TaskSubmission

PLACE = Place(Path("/runs/one"), 2883)
FILES = [
    Path(f"/har/s{number:02}-{kind}.npz") for number in range(5) for kind in ("phone", "watch")
]


def plan_of(**chosen):
    return make_plan(Options(**chosen), PLACE, FILES)


def value_after(argv, flag):
    return argv[argv.index(flag) + 1]


def test_every_service_is_the_command_that_a_person_would_type():
    plan = plan_of(devices=2, regions=1)
    assert [process.name for process in plan.services] == [
        "central",
        "gateway-region-1",
        "device-1",
        "device-2",
    ]
    for process in (plan.broker, *plan.services):
        assert process.argv[:3] == (sys.executable, "-m", "fedfleet")
    assert [process.argv[3] for process in (plan.broker, *plan.services)] == [
        "broker", "central", "gateway", "device", "device",
    ]  # fmt: skip


def test_all_meet_at_one_broker_and_keep_their_state_apart():
    plan = plan_of()
    assert {value_after(process.argv, "--broker") for process in plan.services} == {plan.url}
    assert plan.url == "mqtt://127.0.0.1:2883"
    states = [value_after(process.argv, "--state-dir") for process in plan.services]
    assert len(set(states)) == len(states)
    assert all(state.startswith("/runs/one/state/") for state in states)


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_every_device_trains_with_the_backend_that_was_chosen(backend):
    devices = [p.argv for p in plan_of(backend=backend).services if p.argv[3] == "device"]
    assert {value_after(argv, "--backend") for argv in devices} == {backend}
    assert {
        value_after(p.argv, "--backend") for p in plan_of().services if "device" in p.argv
    } == {"onnx"}


def test_in_a_mixed_fleet_each_region_has_devices_of_both_backends():
    plan = plan_of(devices=8, regions=2, backend="mixed")
    found = {(member.region, member.backend) for member in plan.members}
    assert len(found) == 4
    assert sum(member.backend == "onnx" for member in plan.members) == 4


def test_numeric_libraries_get_one_thread_a_process():
    assert {process.environment["OMP_NUM_THREADS"] for process in plan_of().services} == {"1"}


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 8))
def test_devices_are_spread_evenly_over_the_regions(devices, regions):
    if regions > devices:
        with pytest.raises(PlanError, match=f"regions: {regions} is above devices: {devices}"):
            plan_of(devices=devices, regions=regions)
        return
    plan = plan_of(devices=devices, regions=regions)
    counts = [sum(m.region == region for m in plan.members) for region in plan.regions]
    assert (len(counts), sum(counts)) == (regions, devices)
    assert max(counts) - min(counts) <= 1
    assert all(is_id(name) for m in plan.members for name in (m.region, m.device))


def test_shards_are_all_different_and_split_by_the_seed():
    plan = plan_of(devices=4, alpha=0.3, seed=7)
    arguments = [member.data_arguments for member in plan.members]
    assert [value_after(item, "--shard") for item in arguments] == ["1/4", "2/4", "3/4", "4/4"]
    assert {value_after(item, "--alpha") for item in arguments} == {"0.3"}
    assert {value_after(item, "--split-seed") for item in arguments} == {"7"}


def test_central_evaluates_on_what_is_held_out_of_the_same_source():
    central = plan_of(data="mnist", data_path=Path("/data/mnist")).services[0]
    assert value_after(central.argv, "--eval-data") == "mnist=/data/mnist"


def test_each_device_has_one_file_and_central_all_the_others():
    plan = plan_of(data="har", devices=3)
    trained = [value_after(member.data_arguments, "--data") for member in plan.members]
    central = plan.services[0].argv
    held_out = [central[i + 1] for i, item in enumerate(central) if item == "--eval-data"]
    assert len(set(trained)) == 3
    assert sorted(chain(trained, held_out)) == [f"har={path}" for path in FILES]
    assert [member.device for member in plan.members] == [Path(item).stem for item in trained]


def test_the_choice_of_files_depends_on_the_seed_and_not_on_their_order():
    first = make_plan(Options(data="har", devices=4), PLACE, FILES)
    again = make_plan(Options(data="har", devices=4), PLACE, FILES[::-1])
    others = [make_plan(Options(data="har", devices=4, seed=n), PLACE, FILES) for n in range(1, 6)]
    assert first == again
    assert any(other.members != first.members for other in others)


def test_a_file_must_be_left_to_evaluate_on():
    with pytest.raises(PlanError, match="devices: 10 leaves none of 10 files"):
        plan_of(data="har", devices=10)


def test_a_file_whose_name_is_no_id_gives_a_numbered_device():
    files = [Path("/har/Alice Phone.npz"), Path("/har/b.npz")]
    plan = make_plan(Options(data="har", devices=1, regions=1), PLACE, files)
    assert plan.members[0].device in ("device-1", "b")
    names = {
        make_plan(Options(data="har", devices=1, regions=1, seed=n), PLACE, files)
        .members[0]
        .device
        for n in range(8)
    }
    assert names == {"device-1", "b"}


@pytest.mark.parametrize("data", sorted(RECIPES))
def test_the_submission_is_one_that_central_accepts(data):
    task = TaskSubmission.model_validate(plan_of(data=data).submission)
    recipe = RECIPES[data]
    assert (task.model, task.rounds, task.codec) == (recipe.model, recipe.rounds, recipe.codec)
    assert task.training.learning_rate == recipe.learning_rate
    assert (task.min_clients, task.cohort) == (8, 8)


def test_a_flag_overrides_the_recipe():
    options = Options(rounds=3, model="softmax", codec="float32", epochs=5, min_clients=2)
    task = TaskSubmission.model_validate(make_plan(options, PLACE).submission)
    assert (task.rounds, task.model, task.codec) == (3, "softmax", "float32")
    assert (task.training.epochs, task.min_clients, task.cohort) == (5, 2, 8)


def test_a_downlink_is_coded_when_it_is_asked_for():
    assert "downlink" not in plan_of().submission
    task = TaskSubmission.model_validate(plan_of(downlink="topk").submission)
    assert task.downlink is not None
    assert task.downlink.codec == "topk"


def test_more_clients_than_devices_cannot_end_a_round():
    with pytest.raises(PlanError, match="min_clients: 9 is above devices: 8"):
        plan_of(min_clients=9)


def test_unknown_data_is_refused_with_what_is_known():
    with pytest.raises(PlanError, match="data: 'cifar' is not one of digits, mnist, har"):
        plan_of(data="cifar")


def test_mosquitto_is_started_with_the_written_configuration():
    place = replace(PLACE, mosquitto="/usr/sbin/mosquitto")
    plan = make_plan(Options(broker="mosquitto"), place)
    assert plan.broker.argv == ("/usr/sbin/mosquitto", "-c", "/runs/one/mosquitto.conf")
    assert value_after(plan.services[0].argv, "--mqtt-protocol") == "5"


def test_mosquitto_listens_on_loopback_and_stays_root_only_for_root():
    text = mosquitto_config(PLACE)
    assert "listener 2883 127.0.0.1" in text
    assert "user root" not in text
    assert "user root" in mosquitto_config(replace(PLACE, is_root=True))


def test_a_persons_battery_does_not_hold_a_simulated_fleet_up():
    devices = [p.argv for p in plan_of(devices=2).services if p.argv[3] == "device"]
    assert [value_after(argv, "--profile") for argv in devices] == ["generic", "generic"]

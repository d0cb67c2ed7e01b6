import subprocess
import sys

import pytest
import torch
from torch import nn

from device_agent.service.ports import TrainingError
from device_agent.training.torch_optimizers import Adam, Sgd, make_optimizer
from schemas.tasks import Training


def a_module(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


def trained(module, optimizer, steps=20):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(8, 5, generator=generator)
        y = torch.randint(0, 3, (8,), generator=generator)
        module.zero_grad(set_to_none=False)
        nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in module.parameters()]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_takes_the_steps_of_torch(momentum):
    ours, theirs = a_module(), a_module()
    expected = trained(theirs, torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=momentum))
    for got, want in zip(
        trained(ours, Sgd(ours.parameters(), 0.1, momentum)), expected, strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)


def test_adam_takes_the_steps_of_torch():
    ours, theirs = a_module(), a_module()
    expected = trained(theirs, torch.optim.Adam(theirs.parameters(), lr=0.01))
    for got, want in zip(trained(ours, Adam(ours.parameters(), 0.01)), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "make", [lambda p: Sgd(p, 0.1, 0.9), lambda p: Adam(p, 0.1)], ids=["sgd", "adam"]
)
def test_a_parameter_without_a_gradient_stays(make):
    module = a_module()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    make(module.parameters()).step()
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_a_module_in_which_nothing_can_be_trained_is_refused():
    module = a_module().requires_grad_(False)
    with pytest.raises(TrainingError, match="no parameter that can be trained"):
        make_optimizer(module, Training())


def test_a_step_does_not_import_the_compiler_of_torch():
    program = (
        "import sys, torch\n"
        "from torch import nn\n"
        "from device_agent.training.torch_optimizers import make_optimizer\n"
        "from schemas.tasks import Training\n"
        "for name in ('sgd', 'adam'):\n"
        "    m = nn.Linear(2, 2)\n"
        "    o = make_optimizer(m, Training(optimizer=name))\n"
        "    nn.functional.cross_entropy(m(torch.ones(1, 2)), torch.tensor([0])).backward()\n"
        "    o.step()\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

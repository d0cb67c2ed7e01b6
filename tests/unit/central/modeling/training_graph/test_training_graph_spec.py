import pytest

from central.modeling.training_graph import StepSpec


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss": "hinge"}, "loss: 'hinge', allowed are cross_entropy, bce"),
        ({"optimizer": "lion"}, "optimizer: 'lion', allowed are sgd"),
        ({"momentum": 1.0}, "momentum: 1.0"),
        ({"momentum": float("nan")}, "momentum: nan"),
        ({"momentum": -0.1}, "momentum: -0.1"),
        ({"weight_decay": -1.0}, "weight_decay: -1.0"),
        ({"weight_decay": float("inf")}, "weight_decay: inf"),
        ({"optimizer": "adam", "momentum": 0.9}, "only sgd has it"),
        ({"nesterov": True}, "nesterov: needs a momentum"),
    ],
)
def test_nonsense_is_refused_by_field_and_value(settings, words):
    with pytest.raises(ValueError, match=words):
        StepSpec(**settings)


def test_the_state_is_as_long_as_the_optimizer_needs():
    assert StepSpec().state_size(10) == 0
    assert StepSpec(momentum=0.9).state_size(10) == 10
    assert StepSpec(optimizer="adam").state_size(10) == 21
    assert StepSpec(optimizer="adamw").state_size(10) == 21


def test_patterns_freeze_by_name_and_case():
    spec = StepSpec(frozen=("features.*", "head.bias"))
    assert spec.is_frozen("features.0.weight")
    assert spec.is_frozen("head.bias")
    assert not spec.is_frozen("head.weight")
    assert not spec.is_frozen("Features.0.weight")

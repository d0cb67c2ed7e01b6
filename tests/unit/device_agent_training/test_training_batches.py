import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.training.batches import batches, distinct_examples, total_steps
from schemas.tasks import Training

PLANS = st.one_of(
    st.builds(Training, epochs=st.integers(1, 4), batch_size=st.integers(1, 40)),
    st.builds(Training, steps=st.integers(1, 60), batch_size=st.integers(1, 40)),
)


@settings(max_examples=100, deadline=None)
@given(examples=st.integers(1, 100), training=PLANS, seed=st.integers(0, 99))
def test_steps_and_distinct_examples_are_what_is_announced(examples, training, seed):
    made = list(batches(examples, training, np.random.default_rng(seed)))
    assert len(made) == total_steps(examples, training)
    assert len(np.unique(np.concatenate(made))) == distinct_examples(examples, training)
    assert max(map(len, made)) <= training.batch_size


@settings(max_examples=50, deadline=None)
@given(examples=st.integers(1, 100), batch_size=st.integers(1, 40), seed=st.integers(0, 99))
def test_every_epoch_takes_each_example_once(examples, batch_size, seed):
    training = Training(epochs=3, batch_size=batch_size)
    order = np.concatenate(list(batches(examples, training, np.random.default_rng(seed))))
    for epoch in np.split(order, 3):
        assert sorted(epoch) == list(range(examples))


def test_the_same_seed_gives_the_same_order():
    first, again, other = (
        np.concatenate(list(batches(50, Training(), np.random.default_rng(seed)))).tolist()
        for seed in (1, 1, 2)
    )
    assert first == again != other

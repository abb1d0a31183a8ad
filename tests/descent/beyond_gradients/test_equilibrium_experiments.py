"""Small problems and training: exactness of the references, controls that fail, arms that start alike."""

import pytest
import torch

from descent.beyond_gradients.activations import ACTIVATIONS
from descent.beyond_gradients.equilibrium_experiments import (
    geometric_mean,
    linear_problems,
    near_kink,
    relative_error,
    small_problems,
)
from descent.beyond_gradients.equilibrium_training import Arm, Digits, train
from descent.beyond_gradients.fixed_point_network import chain, feed_forward


def generators(count, seed=0):
    return [torch.Generator().manual_seed(100 * seed + k) for k in range(count)]


def test_small_problems_are_settled_and_symmetric_ones_unbiased():
    for a in (0.0, 1.0):
        p = small_problems(generators(4), a)
        assert float(p.network.force(p.state, p.drive).abs().max()) < 1e-14
        gap = relative_error(p.exact, p.true)
        assert (gap < 1e-12).all() if a == 0 else (gap > 1e-2).all()


def test_the_antisymmetric_part_alone_is_scaled():
    one, half = (small_problems(generators(2), a).network.recurrent for a in (1.0, 0.5))
    torch.testing.assert_close(one + one.mT, half + half.mT)
    torch.testing.assert_close((one - one.mT) / 2, half - half.mT)


def test_nudges_reduced_to_their_real_part_leave_half_of_the_response():
    p = small_problems(generators(4))
    error = relative_error(p.real_nudges_estimate(0.05, 6), p.exact)
    torch.testing.assert_close(error, torch.full_like(error, 0.5), atol=0.02, rtol=0)


def test_near_kink_rests_just_above_zero():
    p = near_kink(small_problems(generators(3), activation=ACTIVATIONS["relu"]), 0.01)
    unit = p.network.wiring.layer(-1).start
    torch.testing.assert_close(p.state[:, 0, unit], torch.full((3,), 0.01, dtype=torch.float64))


def test_the_orbit_passes_the_real_nudges():
    p = small_problems(generators(3))
    orbit = p.orbit(1, 0.2, 8)
    estimate = (orbit[0] - orbit[4]).real / 0.4
    torch.testing.assert_close(estimate, p.estimate(0.2, 2)[1, 0])


def test_the_radius_of_a_linear_system_is_where_its_matrix_is_singular():
    p = linear_problems(generators(5))
    values = torch.linalg.eigvals(p.jacobian / p.hessian[..., None])
    for k in range(5):
        nudge = -complex(values[k][values[k].abs().argmin()])
        matrix = p.jacobian[k] + nudge * torch.diag(p.hessian[k])
        assert float(torch.linalg.svdvals(matrix)[-1]) < 1e-12
        assert abs(nudge) == pytest.approx(float(p.radius()[k]))
    assert float(geometric_mean(p.relative_error(0.5, 16))) < 1e-3
    assert float(geometric_mean(p.relative_error(1.5, 16))) > 0.5


def toy_data():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(120, 7, generator=generator)
    labels = (inputs[:, :3].argmax(1)).long()
    return Digits.split(inputs, labels, 40)


def streams(count):
    return lambda name: generators(count, seed=len(name))


ARMS = {
    "EP": Arm(chain((6, 5, 3)), 90, "response", seeds=2),
    "RBP": Arm(chain((6, 5, 3)), 90, "adjoint", seeds=3),
    "homeostasis": Arm(chain((6, 5, 3)), 90, "response", coefficient=5, seeds=2),
}


def test_arms_start_alike_and_side_by_side_is_one_by_one():
    together = train(ARMS, toy_data(), streams(3), epochs=2, batch=20)
    assert list(together) == list(ARMS)
    assert together["RBP"].accuracy.shape == (3, 3)
    for name, arm in ARMS.items():
        alone = train({name: arm}, toy_data(), streams(3), epochs=2, batch=20)[name]
        torch.testing.assert_close(alone.network.recurrent, together[name].network.recurrent)
        torch.testing.assert_close(alone.index[0], together["RBP"].index[0, : arm.seeds])


def test_a_step_of_backpropagation_lowers_the_loss_and_unconnected_weights_stay_zero():
    data = toy_data()
    run = train({"RBP": ARMS["RBP"]}, data, streams(3), epochs=15, batch=20, learning_rate=1e-2)[
        "RBP"
    ]
    assert float(run.accuracy[-1].mean()) > float(run.accuracy[0].mean()) + 0.1
    mask = run.network.wiring.mask()
    assert float((run.network.recurrent * (1 - mask)).abs().max()) == 0


def test_homeostasis_removes_the_antisymmetric_part_and_the_other_penalty_the_symmetric_one():
    kinds = {
        k: Arm(chain((6, 5, 3)), 90, "response", k, 100, 2)
        for k in ("homeostasis", "symmetric part")
    }
    runs = train(kinds, toy_data(), streams(2), epochs=30, batch=20, learning_rate=1e-2)
    assert (runs["homeostasis"].index[-1] > 0.9).all()
    assert (runs["symmetric part"].index[-1] < runs["symmetric part"].index[0]).all()


def test_wrong_arms_are_told():
    with pytest.raises(ValueError, match="rule must be 'response' or 'adjoint', got 'magic'"):
        Arm(chain((2, 2)), 0, "magic")
    with pytest.raises(ValueError, match="penalty must be one of homeostasis"):
        Arm(chain((2, 2)), 0, "adjoint", "magic")
    mixed = {"a": ARMS["EP"], "b": Arm(feed_forward((6, 5, 3)), 0, "adjoint")}
    with pytest.raises(ValueError, match="need one wiring"):
        train(mixed, toy_data(), streams(3))

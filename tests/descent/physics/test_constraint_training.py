"""Training and its measurements: what a step does, what the measures are on known functions."""

import pytest
import torch

from descent.physics.basis_networks import PerceptronBasis
from descent.physics.constraint_study import (
    border_kink,
    interpolate_samples,
    pod_bases,
    projection_error,
    saved_elements,
    scaled_condition,
    solve_cost,
    tied_experts,
)
from descent.physics.constraint_training import (
    HeldOut,
    Model,
    loss_gradients,
    physics_loss,
    relative_error,
    train,
)
from descent.physics.diffusion_sorption import DiffusionSorption
from descent.physics.domain_router import DomainRouter
from descent.physics.hard_constraint import HardConstraint

EQUATION = DiffusionSorption(11, 16)


def seeded(k):
    return torch.Generator().manual_seed(k)


def model(experts=4, points=30):
    router = DomainRouter.blocks(EQUATION.shape, (1, experts))
    return Model(PerceptronBasis(6, 16), HardConstraint(EQUATION, router), points)


def held_out():
    return HeldOut(EQUATION, torch.tensor([0.05, 0.15], dtype=torch.float64), seeded(9))


@pytest.mark.parametrize("kind", ["soft", "hard", "mixture"])
def test_training_lowers_the_loss(kind):
    soft = Model(PerceptronBasis(1, 16, activate=False))
    chosen = {"soft": soft, "hard": model(1, 60), "mixture": model(4)}[kind]
    test, losses = held_out(), []

    def evaluate(m, p, step):
        e = test(m, p, step)
        parts = e.violations
        losses.append(30 * parts["equation"] + parts["initial"] + parts["boundary"])
        return e

    run = train(
        chosen, EQUATION, 2, 20, (seeded(0), seeded(1)), evaluate=evaluate, at_steps=(0, 20)
    )
    assert [e.step for e in run.evaluations] == [0, 20]
    assert (losses[1].mean(1) < 0.8 * losses[0].mean(1)).all()


def test_the_gradient_of_training_is_that_of_differences():
    chosen = model(4, 36)
    network = chosen.network
    parameters = {
        k: v.double().requires_grad_() for k, v in network.initialise(1, seeded(0)).items()
    }
    exact = Model(
        network, HardConstraint(EQUATION, chosen.layer.router, ridge=1e-2, max_iter=80, tol=0.0), 36
    )
    initial = torch.tensor([[0.1]], dtype=torch.float64)
    places = exact.layer.sample_points(36, seeded(2))

    def loss():
        return physics_loss(
            EQUATION, exact.solution(parameters, EQUATION, initial, places), initial
        ).sum()

    found = loss_gradients(exact, parameters, EQUATION, initial, places)["bias3"][0, 0, 2]
    h, values = 1e-5, []
    with torch.no_grad():
        for sign in (1, -2):
            parameters["bias3"][0, 0, 2] += sign * h
            values.append(float(loss()))
    assert float(found) == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-4)


def test_a_replicate_does_not_depend_on_the_others():
    chosen, initial = model(), torch.tensor([[0.1], [0.15]], dtype=torch.float64)
    parameters = {k: v.requires_grad_() for k, v in chosen.network.initialise(2, seeded(0)).items()}
    places = torch.stack([chosen.layer.sample_points(30, seeded(k)) for k in (0, 1)])
    both = loss_gradients(chosen, parameters, EQUATION, initial, places)
    one = {k: v.detach()[1:].requires_grad_() for k, v in parameters.items()}
    alone = loss_gradients(chosen, one, EQUATION, initial[1:], places[1:])
    for k, g in alone.items():
        torch.testing.assert_close(g[0], both[k][1], rtol=2e-3, atol=1e-5)


def test_evaluation_of_the_reference_has_no_error():
    test = held_out()
    found = test.measure(test.reference[None])
    assert float(found.error.max()) == 0
    assert float(found.violations["boundary"].max()) < 0.02
    with pytest.raises(ValueError, match="no constraint to solve"):
        test.solution(Model(PerceptronBasis(1, 4)), {})


def test_relative_error_counts_from_an_instant():
    u, reference = torch.ones(1, 4, 3), torch.ones(1, 4, 3)
    u[0, 0] = 5
    assert float(relative_error(u, reference)) > 1
    assert float(relative_error(u, reference, 1)) == 0


def test_kink_of_a_jump_is_its_height_and_of_a_line_nothing():
    router = DomainRouter.blocks((5, 16), (1, 4))
    u = torch.linspace(0, 1, 16, dtype=torch.float64).expand(5, 16)
    assert float(border_kink(u, router)) < 1e-15
    steps = torch.arange(4, dtype=torch.float64).repeat_interleave(4).expand(5, 16)
    assert float(border_kink(steps, router)) == pytest.approx(1)
    with pytest.raises(ValueError, match="strips in space"):
        border_kink(u, DomainRouter.blocks((5, 16), (1, 1)))


def test_interpolation_passes_through_samples_and_keeps_lines():
    chosen = torch.randperm(200, generator=seeded(0))[:80]
    t = torch.linspace(0, 1, 10, dtype=torch.float64)[:, None]
    x = torch.linspace(0, 1, 20, dtype=torch.float64)[None]
    values = torch.stack((2 * t + x, torch.sin(3 * t) * x)).flatten(1)
    filled = interpolate_samples(chosen, values[:, chosen], (10, 20)).flatten(1)
    torch.testing.assert_close(filled[:, chosen], values[:, chosen])
    inner = (filled[0] - values[0]).abs()
    assert float(inner.median()) < 1e-4


def test_saved_elements_counts_a_storage_once():
    a = torch.rand(100, requires_grad=True)
    assert saved_elements(lambda: (a * a).sum()) == 100
    assert saved_elements(lambda: a.sum()) == 0
    assert saved_elements(lambda: a.sin().cos().sum()) == 200


def test_cost_and_condition_have_one_entry_per_expert():
    chosen = model()
    basis = chosen.network(
        chosen.network.initialise(1, seeded(0)),
        torch.tensor([[0.1]], dtype=torch.float64),
        EQUATION.shape,
    ).double()
    initial = torch.tensor([[0.1]], dtype=torch.float64)
    problem = chosen.layer.problem(basis, initial)
    cost = solve_cost(chosen.layer, problem)
    assert cost.seconds.shape == cost.iterations.shape == (4,)
    assert cost.rows == 40 + 16 + 20
    assert cost.work == cost.rows * int(cost.iterations.max())
    assert (scaled_condition(problem, torch.ones(1, 1, 4, 6, dtype=torch.float64)) >= 1).all()


def test_modes_span_their_library():
    library = EQUATION.reference(torch.linspace(0.02, 0.19, 6, dtype=torch.float64))
    assert float(projection_error(pod_bases(library, 6), library).max()) < 1e-8
    assert float(projection_error(pod_bases(library, 1), library).max()) > 1e-2


def test_untied_experts_are_the_layer_and_tied_ones_agree_at_borders():
    chosen = model()
    layer = HardConstraint(EQUATION, chosen.layer.router, weight=1.0, max_iter=200, tol=0.0)
    library = EQUATION.reference(torch.linspace(0.02, 0.19, 6, dtype=torch.float64))
    basis, initial = pod_bases(library, 3)[None], torch.tensor([0.1], dtype=torch.float64)
    apart = layer(basis, initial)
    together = tied_experts(layer, basis, initial, 0.0)
    gram, gradient, cost = together.normal_equations(apart.weights.reshape(1, 1, -1))
    torch.testing.assert_close(cost[0, 0], apart.solver.cost.sum())
    gram, separate = gram[0, 0], layer.problem(basis, initial).normal_equations(apart.weights)
    torch.testing.assert_close(gram, torch.block_diag(*separate[0][0]))
    torch.testing.assert_close(gradient[0, 0], separate[1].flatten(), rtol=1e-6, atol=1e-9)
    stiff = layer.solve(tied_experts(layer, basis, initial, 1e3)).weights.reshape(1, 4, -1)
    kink = [
        float(border_kink(layer.assemble(basis, w), layer.router)) for w in (apart.weights, stiff)
    ]
    assert kink[1] < kink[0]
    with pytest.raises(ValueError, match="strips in space"):
        tied_experts(
            HardConstraint(EQUATION, DomainRouter.blocks((11, 16), (11, 1))), basis, initial, 1.0
        )

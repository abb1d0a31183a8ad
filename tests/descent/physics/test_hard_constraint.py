"""The layer: gradients by finite differences, experts apart, invariances, the router's bijection."""

import pytest
import torch

from descent.physics.basis_networks import FourierBasis, PerceptronBasis
from descent.physics.constraint_study import expert_of
from descent.physics.diffusion_sorption import DiffusionSorption
from descent.physics.domain_router import DomainRouter
from descent.physics.hard_constraint import (
    ConstraintProblem,
    HardConstraint,
    implicit_weights,
)

EQUATION = DiffusionSorption(26, 32)
INITIAL = torch.tensor([0.08, 0.15], dtype=torch.float64)


def bases():
    t = torch.linspace(0, 1, 26, dtype=torch.float64)[:, None].expand(26, 32)
    x = torch.linspace(0, 1, 32, dtype=torch.float64)[None].expand(26, 32)
    b = torch.stack(
        (
            torch.ones_like(t),
            torch.exp(-3 * x / (t + 0.1).sqrt()),
            torch.exp(-1.5 * x / (t + 0.05).sqrt()),
            t * torch.exp(-4 * x),
        ),
        -1,
    )
    move = 0.1 * torch.stack((x, t * x, t * torch.sin(3 * x), torch.cos(x)), -1)
    return b, move


def layer(experts=1, **options):
    return HardConstraint(EQUATION, DomainRouter.blocks((26, 32), (1, experts)), **options)


def directional(mode, experts=1):
    b, move = bases()
    target = EQUATION.reference(INITIAL)

    def loss(eps):
        u = layer(experts, mode=mode, max_iter=80, tol=0.0)(
            (b + eps * move).expand(2, -1, -1, -1), INITIAL
        )
        return (u.solution - target).square().mean()

    eps = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(eps), eps)
    h = 3e-4
    with torch.no_grad():
        far = float(loss(2 * h) - loss(-2 * h))
        truth = (8 * float(loss(h) - loss(-h)) - far) / (12 * h)
    return float(slope), truth


@pytest.mark.parametrize("experts", [1, 4])
def test_the_stationarity_form_is_the_derivative(experts):
    slope, truth = directional("stationarity", experts)
    assert slope == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize("mode", ["gauss_newton", "detached"])
def test_the_rival_forms_are_not(mode):
    slope, truth = directional(mode)
    assert abs(slope - truth) > abs(truth)


def test_jacobian_gradient_and_second_order_term_are_derivatives():
    b, _ = bases()
    problem = layer(4).problem(b, INITIAL[0]).select(torch.tensor([1]))
    w = torch.tensor([0.3, 0.5, 0.2, -0.1], dtype=torch.float64)

    def residual(v):
        return problem.residual(v[None])[0]

    jacobian = torch.autograd.functional.jacobian(residual, w)
    torch.testing.assert_close(problem.jacobian(w[None])[0], jacobian, rtol=1e-9, atol=1e-12)
    gram, gradient, cost = problem.normal_equations(w[None])
    torch.testing.assert_close(gram[0], jacobian.T @ jacobian)
    torch.testing.assert_close(gradient[0], jacobian.T @ residual(w))
    torch.testing.assert_close(problem.gradient(w[None]), gradient)
    torch.testing.assert_close(cost[0], residual(w).square().sum())
    hessian = torch.autograd.functional.hessian(lambda v: residual(v).square().sum() / 2, w)
    full = gram + problem.second_order_term(w[None])
    torch.testing.assert_close(full[0], hessian, rtol=1e-9, atol=1e-10)


def test_both_forms_agree_where_the_residual_vanishes():
    b, move = bases()
    slopes = []
    for mode in ("stationarity", "gauss_newton"):
        eps = torch.zeros((), dtype=torch.float64, requires_grad=True)
        whole = layer(ridge=0.0).problem(b + eps * move, INITIAL[0], torch.tensor([294, 588]))
        rows = [20, 52]
        square = ConstraintProblem(
            EQUATION,
            whole.operators,
            whole.matrix[..., rows, :],
            whole.target[..., rows],
            30.0,
            0.0,
        )
        found = layer(max_iter=80, tol=0.0).solve(square)
        assert float(found.cost.max()) < 1e-20
        w = implicit_weights(square, found.weights, mode, shift=0.0)
        slopes.append(
            torch.stack([torch.autograd.grad(v, eps, retain_graph=True)[0] for v in w[0]])
        )
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-7, atol=1e-10)
    assert float(slopes[0].abs().max()) > 1e-3


def test_an_expert_does_not_feel_the_equation_in_another_strip():
    b, _ = bases()
    moved = b.clone()
    moved[12, 19, 1] += 1e-2
    for experts, apart in ((4, True), (1, False)):
        change = (
            layer(experts)(moved, INITIAL[0]).solution - layer(experts)(b, INITIAL[0]).solution
        ).abs()
        strips = [float(c.max()) for c in change.chunk(4, -1)]
        assert strips[2] > 1e-6
        assert all((strips[k] == 0) == apart for k in (0, 1, 3))


def test_the_gradient_is_the_sum_over_separate_experts():
    b, _ = bases()
    functional = torch.randn(
        26, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    constraint, leaf = layer(4), b.clone().requires_grad_()
    (together,) = torch.autograd.grad(
        (constraint(leaf, INITIAL[0]).solution * functional).sum(), leaf
    )
    total = torch.zeros_like(together)
    for k in range(4):
        problem = expert_of(constraint.problem(leaf, INITIAL[0]), k)
        w = implicit_weights(problem, constraint.solve(problem).weights)
        u = constraint.router.partition(leaf)[k] @ w[0]
        mask = functional.flatten()[constraint.router.groups[k]]
        total += torch.autograd.grad((u * mask).sum(), leaf)[0]
    torch.testing.assert_close(together, total, rtol=1e-10, atol=1e-12)


def test_permuted_and_scaled_bases_permute_and_scale_the_weights():
    b, _ = bases()
    constraint = layer(max_iter=80, tol=0.0, ridge=0.0)
    plain = constraint(b, INITIAL[0])
    order = torch.tensor([2, 0, 3, 1])
    mixed = constraint(b[..., order], INITIAL[0])
    torch.testing.assert_close(mixed.weights, plain.weights[:, order], rtol=1e-8, atol=1e-9)
    scaled = HardConstraint(
        EQUATION, constraint.router, ridge=0.0, start=0.5, max_iter=80, tol=0.0
    )(2 * b, INITIAL[0])
    torch.testing.assert_close(2 * scaled.weights, plain.weights, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(scaled.solution, plain.solution, rtol=1e-8, atol=1e-9)


def test_points_differ_between_replicates_as_asked():
    b, _ = bases()
    stacked = torch.stack((b, 1.1 * b))[:, None]
    constraint = layer(4)
    draws = [constraint.sample_points(50, torch.Generator().manual_seed(k)) for k in (0, 1)]
    both = constraint(stacked, INITIAL[:1].expand(2, 1), torch.stack(draws))
    for k in range(2):
        alone = constraint(stacked[k], INITIAL[:1], draws[k])
        torch.testing.assert_close(both.solution[k], alone.solution, rtol=1e-9, atol=1e-11)
    assert all(int(d.min()) >= 8 for d in draws)


@pytest.mark.parametrize("splits", [(1, 1), (1, 4), (2, 2)])
def test_unpartition_inverts_partition(splits):
    router = DomainRouter.blocks((26, 32), splits)
    field = torch.rand(3, 26, 32, 1)
    assert torch.equal(router.unpartition(router.partition(field)[..., 0]), field[..., 0])
    dealt = DomainRouter.scattered((26, 32), 4, torch.Generator().manual_seed(0))
    assert torch.equal(dealt.unpartition(dealt.partition(field)[..., 0]), field[..., 0])
    assert (dealt.groups[:, :8] < 32).all()
    assert (dealt.groups[:, 8:] >= 32).all()


@pytest.mark.parametrize("network", [PerceptronBasis(3, 8), FourierBasis(3, 4, 2, 1)])
def test_networks_give_bases_and_replicates_are_apart(network):
    parameters = network.initialise(2, torch.Generator().manual_seed(0))
    initial = torch.tensor([[0.1, 0.2], [0.1, 0.2]], dtype=torch.float64)
    b = network(parameters, initial, (10, 12))
    assert b.shape == (2, 2, 10, 12, 3)
    first = {k: v[:1] for k, v in parameters.items()}
    torch.testing.assert_close(network(first, initial[:1], (10, 12)), b[:1], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(b[0], b[1])
    assert not torch.allclose(b[:, 0], b[:, 1])


def test_the_grid_of_a_perceptron_is_that_of_its_horizon():
    network = PerceptronBasis(3, 8)
    parameters = network.initialise(1, torch.Generator().manual_seed(0))
    initial = torch.tensor([[0.1]], dtype=torch.float64)
    whole, part = (
        network(parameters, initial, (26, 32)),
        network(parameters, initial, (21, 32), 0.8),
    )
    torch.testing.assert_close(whole[:, :, :21], part, rtol=1e-5, atol=1e-6)


def test_errors_name_the_fault():
    with pytest.raises(ValueError, match="unknown mode 'magic'"):
        layer(mode="magic")
    with pytest.raises(ValueError, match="unknown mode 'magic'"):
        implicit_weights(layer().problem(bases()[0], INITIAL[0]), torch.ones(1, 4), "magic")
    with pytest.raises(ValueError, match=r"cannot be cut into \(1, 5\)"):
        DomainRouter.blocks((26, 32), (1, 5))
    with pytest.raises(ValueError, match="once"):
        DomainRouter(torch.tensor([[0, 0], [1, 2]]), (2, 2))
    with pytest.raises(ValueError, match="cannot be dealt to 5"):
        DomainRouter.scattered((26, 32), 5, torch.Generator())
    with pytest.raises(ValueError, match="no counterpart"):
        DomainRouter.scattered((26, 32), 4, torch.Generator()).on((10, 32))
    with pytest.raises(ValueError, match="the router cuts a grid"):
        HardConstraint(EQUATION, DomainRouter.blocks((10, 32), (1, 1)))
    with pytest.raises(ValueError, match="1 to 200 points, not 201"):
        layer(4).sample_points(201, torch.Generator())

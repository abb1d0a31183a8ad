"""Vorticity: exact solutions, derivatives, convergence of the reference, the layer on the second equation."""

import math

import pytest
import torch

from descent.physics.constraint_training import Model, loss_gradients, train
from descent.physics.domain_router import DomainRouter
from descent.physics.field_basis import FieldBasis
from descent.physics.hard_constraint import HardConstraint
from descent.physics.vorticity import Vorticity


def seeded(k):
    return torch.Generator().manual_seed(k)


def taylor_green(equation):
    n = equation.shape[1]
    t = torch.linspace(0, equation.end, equation.shape[0], dtype=torch.float64)[:, None, None]
    x = torch.arange(n, dtype=torch.float64) / n * 2 * math.pi
    return (
        torch.exp(-8 * math.pi**2 * equation.viscosity * t) * torch.cos(x)[:, None] * torch.cos(x)
    )


def test_a_decaying_vortex_satisfies_the_equation_and_is_what_the_solver_finds():
    equation = Vorticity(81, 16, 1.0, 1e-2)
    exact = taylor_green(equation)
    residual = equation.value(equation.operators(exact[..., None])[..., 0].flatten(-3))
    assert float(residual.reshape(81, -1)[1:-1].abs().max()) < 1e-4
    found = Vorticity(5, 16, 1.0, 1e-2)
    torch.testing.assert_close(
        found.reference(exact[:1])[0], taylor_green(found), rtol=1e-7, atol=1e-8
    )


def test_operators_are_those_of_a_plane_wave():
    equation = Vorticity(3, 16)
    x = torch.arange(16, dtype=torch.float64)[:, None] / 16 * 2 * math.pi
    y = x.T
    w = torch.sin(2 * x + y).expand(3, 16, 16)[..., None]
    wt, u, v, wx, wy, lap = equation.operators(w)[..., 0]
    tau = 2 * math.pi
    torch.testing.assert_close(wt, torch.zeros_like(wt))
    torch.testing.assert_close(wx[0], 2 * tau * torch.cos(2 * x + y))
    torch.testing.assert_close(wy[0], tau * torch.cos(2 * x + y))
    torch.testing.assert_close(lap[0], -5 * tau**2 * torch.sin(2 * x + y))
    torch.testing.assert_close(u[0], torch.cos(2 * x + y) / (5 * tau))
    torch.testing.assert_close(v[0], -2 * torch.cos(2 * x + y) / (5 * tau))


def test_derivatives_are_those_of_automatic_differentiation():
    z, equation = torch.randn(6, 5, generator=seeded(0), dtype=torch.float64), Vorticity()
    value, slope = equation.derivatives(z)
    torch.testing.assert_close(value, equation.value(z))
    jacobian = torch.autograd.functional.jacobian(equation.value, z)
    torch.testing.assert_close(slope, jacobian.diagonal(dim1=0, dim2=2))
    second = torch.autograd.functional.jacobian(lambda a: equation.derivatives(a)[1], z)
    for i in range(6):
        for j in range(i, 6):
            want = second[i, :, j].diagonal()
            have = equation.curvature(z).get((i, j), torch.zeros_like(want))
            torch.testing.assert_close(have, want)


def test_reference_converges_and_starts_at_its_initial_field():
    equation = Vorticity(4, 16, 0.5)
    start = equation.random_initial((2,), seeded(1))
    coarse, fine = equation.reference(start), equation.reference(start, 3, 24)
    torch.testing.assert_close(coarse[:, 0], start)
    assert float((coarse - fine).norm() / fine.norm()) < 1e-3
    assert float(coarse.mean((-2, -1)).abs().max()) < 1e-12


def test_the_layer_differentiates_through_the_second_equation():
    equation = Vorticity(5, 8, 0.5)
    router = DomainRouter.blocks(equation.shape, (1, 2, 2))
    layer = HardConstraint(equation, router, 1.0, ridge=1e-2, start=0.0, max_iter=60, tol=0.0)
    model = Model(FieldBasis(2, 4, (1, 2, 2), 1), layer, 20)
    parameters = {
        k: v.double().requires_grad_() for k, v in model.network.initialise(1, seeded(0)).items()
    }
    initial = equation.random_initial((1, 1), seeded(1))
    places = layer.sample_points(20, seeded(2))
    found = loss_gradients(model, parameters, equation, initial, places, 1.0)["last"][0, 1, 1]
    h, values = 1e-5, []
    with torch.no_grad():
        for sign in (1, -2):
            parameters["last"][0, 1, 1] += sign * h
            u = model.solution(parameters, equation, initial, places)
            parts = equation.violations(u, initial)
            values.append(float(parts["equation"] + parts["initial"]))
    assert float(found) == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-4)


def test_training_draws_fields():
    equation = Vorticity(9, 12, 0.5)
    model = Model(FieldBasis(1, 4, (2, 2, 2), 1, activate=False))

    def draw(replicates, batch, generator):
        return equation.random_initial((replicates, batch), generator)

    def evaluate(_, parameters, __):
        test = draw(2, 2, seeded(5))
        return equation.violations(model.solution(parameters, equation, test), test)[
            "equation"
        ].mean()

    run = train(
        model, equation, 2, 15, (seeded(0), seeded(1)), 1e-2, 2, 0.1, draw, evaluate, (0, 15)
    )
    assert run.evaluations[1] < run.evaluations[0]


def test_the_first_basis_is_the_initial_field_and_the_others_start_at_zero():
    network = FieldBasis(3, 4, (2, 2, 2), 1)
    initial = torch.randn(2, 1, 10, 10, generator=seeded(0))
    b = network(network.initialise(2, seeded(1)), initial, (6, 10, 10))
    assert b.shape == (2, 1, 6, 10, 10, 4)
    torch.testing.assert_close(b[..., 0], initial[:, :, None].expand(2, 1, 6, 10, 10))
    assert float(b[:, :, 0, ..., 1:].abs().max()) == 0
    assert float(b[:, :, -1, ..., 1:].abs().max()) > 0


def test_errors_name_the_fault():
    with pytest.raises(ValueError, match="got 13, 9"):
        Vorticity(13, 9)

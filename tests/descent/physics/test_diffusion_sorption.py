"""The equation on its grid: derivatives by automatic differentiation, orders, a stiff peer."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from descent.physics.diffusion_sorption import (
    DIFFUSION,
    EXPONENT,
    SHIFT,
    SORPTION,
    DiffusionSorption,
)
from descent.physics.finite_differences import first_difference


def test_first_difference_is_exact_on_parabolas_inside_and_first_order_at_the_ends():
    x = torch.linspace(0, 1, 11, dtype=torch.float64)
    d = first_difference(x**2, 0.1, 0)
    torch.testing.assert_close(d[1:-1], 2 * x[1:-1])
    assert float(d[0]) == pytest.approx(0.1)
    assert float(d[-1]) == pytest.approx(1.9)
    errors = []
    for n in (50, 100, 200):
        x = torch.linspace(0, 1, n + 1, dtype=torch.float64)
        errors.append(float((first_difference(x.exp(), 1 / n, 0) - x.exp())[1:-1].abs().max()))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    assert np.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.1)
    with pytest.raises(ValueError, match="three points"):
        first_difference(torch.zeros(2), 0.1, 0)


def test_operators_act_on_time_and_space():
    equation = DiffusionSorption(11, 21)
    t = torch.linspace(0, 500, 11, dtype=torch.float64)[:, None]
    x = torch.linspace(0, 1, 21, dtype=torch.float64)[None]
    field = (3 * t + 2 * x**2)[..., None]
    u, ut, uxx = equation.operators(field)[..., 0]
    torch.testing.assert_close(u, field[..., 0])
    torch.testing.assert_close(ut, torch.full_like(ut, 3.0))
    torch.testing.assert_close(uxx[:, 2:-2], torch.full_like(uxx[:, 2:-2], 4.0))


@pytest.mark.parametrize("centre", [0.5, 0.02, -0.3])
def test_derivatives_are_those_of_automatic_differentiation(centre):
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(3, 6, generator=generator, dtype=torch.float64) * 0.01 + centre
    equation = DiffusionSorption()
    value, slope = equation.derivatives(z)
    torch.testing.assert_close(value, equation.value(z))
    jacobian = torch.autograd.functional.jacobian(equation.value, z)
    torch.testing.assert_close(slope, jacobian.diagonal(dim1=0, dim2=2), rtol=1e-9, atol=1e-14)
    second = torch.autograd.functional.jacobian(lambda a: equation.derivatives(a)[1], z)
    curvature = equation.curvature(z)
    for i in range(3):
        for j in range(i, 3):
            want = second[i, :, j].diagonal()
            have = curvature.get((i, j), torch.zeros_like(want))
            torch.testing.assert_close(have, want, rtol=1e-9, atol=1e-14)


def test_constants_satisfy_the_equation_and_break_one_boundary():
    equation = DiffusionSorption()
    u = torch.full((1, 26, 32), 0.1, dtype=torch.float64)
    off = equation.violations(u, torch.tensor([0.1], dtype=torch.float64))
    assert float(off["equation"]) < 1e-14
    assert float(off["initial"]) < 1e-14
    assert float(off["boundary"]) == pytest.approx(0.9 + 0.1)


def test_reference_meets_a_stiff_solver_and_the_values_of_the_trial():
    equation = DiffusionSorption(26, 32)
    u = equation.reference(torch.tensor([0.02, 0.19], dtype=torch.float64))
    np.testing.assert_allclose(u[:, -1, 8], [0.49820, 0.58569], atol=2e-5)
    n, start = 62, 0.02
    h = 1 / n

    def rate(_, inner):
        full = np.concatenate(([1.0], inner, [inner[-1] * (DIFFUSION / h) / (1 + DIFFUSION / h)]))
        r = 1 + SORPTION * (np.maximum(full[1:-1], 0) + SHIFT) ** (EXPONENT - 1)
        return DIFFUSION / h**2 * (full[2:] - 2 * full[1:-1] + full[:-2]) / r

    peer = solve_ivp(rate, (0, 500), np.full(n - 1, start), method="BDF", rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(u[0, -1, 1:-1], peer.y[1::2, -1], atol=1e-5)


def test_reference_converges_in_space():
    start = torch.tensor([0.1], dtype=torch.float64)
    equation = DiffusionSorption(6, 9)
    coarse, middle, fine = (equation.reference(start, refine=r)[0, 1:] for r in (4, 8, 16))
    assert float((coarse - middle).norm() / (middle - fine).norm()) > 3
    assert float(fine.min()) >= 0
    assert float(fine.max()) <= 1


def test_linear_rows_hold_conditions_in_order():
    equation = DiffusionSorption(5, 6)
    field = torch.rand(5, 6, 2, dtype=torch.float64)
    matrix, target = equation.linear_rows(field, torch.tensor(0.1, dtype=torch.float64))
    assert matrix.shape == (6 + 4 + 4, 2)
    torch.testing.assert_close(matrix[:6], field[0] / 0.1)
    torch.testing.assert_close(matrix[6:10], field[1:, 0])
    assert target.tolist() == [1.0] * 10 + [0.0] * 4


def test_errors_name_the_fault():
    with pytest.raises(ValueError, match="got 2, 32"):
        DiffusionSorption(2, 32)

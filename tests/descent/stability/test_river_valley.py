"""The winding valley and the signature along a segment."""

import pytest
import torch

from descent.stability.mode_connectivity import interior_dip, interpolate_loss
from descent.stability.noisy_quadratic import stationary_variance
from descent.stability.river_valley import RiverValley


def test_gradient_is_that_of_autograd():
    point = torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    point.requires_grad_()
    valley = RiverValley(curvature=1.7, slope=0.3, bend=0.8)
    (automatic,) = torch.autograd.grad(valley.loss(point).sum(), point)
    torch.testing.assert_close(valley.gradient(point), automatic)


def test_on_a_straight_river_the_advance_is_the_area_under_the_schedule():
    rates = torch.rand(3, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    path = RiverValley(bend=0.0).simulate(rates, 4, torch.Generator().manual_seed(2))
    torch.testing.assert_close(path[-1, :, :, 0], (0.02 * rates.sum(1))[:, None].expand(3, 4))


def test_across_a_straight_river_the_spread_is_stationary():
    path = RiverValley(bend=0.0).simulate(
        torch.full((1, 600), 0.5, dtype=torch.float64), 200, torch.Generator().manual_seed(3)
    )
    spread = path[100:, 0, :, 1].square().mean()
    assert float(spread) == pytest.approx(float(stationary_variance(0.5, 1.0, 0.04)), rel=0.03)


def test_bends_slow_the_advance_by_their_mean_squared_slope():
    valley = RiverValley(slope=0.05, bend=0.8)
    path = valley.simulate(
        torch.full((1, 2000), 0.4, dtype=torch.float64), 16, torch.Generator().manual_seed(4)
    )
    straight = 0.05 * 0.4 * 2000
    assert float(path[-1, 0, :, 0].mean()) == pytest.approx(straight / (1 + 0.32), rel=0.04)


def test_schedules_share_the_noise():
    rates = torch.full((2, 20), 0.3, dtype=torch.float64)
    path = RiverValley().simulate(rates, 5, torch.Generator().manual_seed(5))
    assert torch.equal(path[:, 0], path[:, 1])


def test_interpolation_of_a_quadratic_is_a_parabola():
    a, b = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([-1.0, 0.0])}
    losses = interpolate_loss(a, b, [0, 0.25, 0.5, 0.75, 1], lambda s: s["w"].square().sum())
    torch.testing.assert_close(losses, torch.tensor([1.0, 0.25, 0.0, 0.25, 1.0]))
    assert float(interior_dip(losses)) == 1
    assert float(interior_dip(torch.tensor([3.0, 2.0, 1.0]))) == -1


def test_interpolation_mixes_running_statistics_and_leaves_counters_alone():
    a, b = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    b.running_mean += 4
    b.num_batches_tracked += 9
    seen = []
    interpolate_loss(
        a.state_dict(), b.state_dict(), [0.5], lambda s: seen.append(s) or torch.zeros(())
    )
    assert seen[0]["running_mean"].tolist() == [2, 2]
    assert int(seen[0]["num_batches_tracked"]) == 0


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="curvature must be positive"):
        RiverValley(curvature=0.0)
    one = {"w": torch.ones(2)}
    with pytest.raises(ValueError, match="only one of the two has \\['v'\\]"):
        interpolate_loss(one, {**one, "v": torch.ones(1)}, [0.5], lambda s: s["w"].sum())
    with pytest.raises(ValueError, match="w has shapes \\(2,\\) and \\(3,\\)"):
        interpolate_loss(one, {"w": torch.ones(3)}, [0.5], lambda s: s["w"].sum())

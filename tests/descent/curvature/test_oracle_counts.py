"""The ledger: what counts once, peers against the method, endings."""

import pytest
import torch

from descent.curvature.dual_metric import Metric
from descent.curvature.gradient_normalized_experiments import minimise
from descent.curvature.gradient_normalized_instances import (
    Instance,
    log_sum_exp_instance,
    rosenbrock_instance,
    whitened,
)
from descent.curvature.oracle_counts import SCIPY_METHODS, Ledger, run_scipy, run_torch_lbfgs


def test_value_and_gradient_at_one_point_are_one_evaluation():
    instance = rosenbrock_instance(2)
    ledger = Ledger(instance.problem)
    x = instance.x0
    assert ledger.value(x) == instance.problem.value(x)
    torch.testing.assert_close(ledger.gradient(x.clone()), instance.problem.gradient(x))
    assert ledger.evaluations == 1
    ledger.value(x + 1)
    assert ledger.evaluations == 2
    assert ledger.best == sorted(ledger.best, reverse=True)
    torch.testing.assert_close(ledger.product(x, x), ledger.hessian(x) @ x)
    assert (ledger.products, ledger.hessians) == (1, 1)


def test_the_method_is_charged_one_evaluation_per_probe_and_one_hessian_per_step():
    instance = whitened(log_sum_exp_instance(20, 0))
    ledger = Ledger(instance.problem, instance.f_star)
    trace = minimise(Instance(ledger, instance.x0, Metric(), instance.f_star), "exact")
    assert ledger.evaluations == 1 + sum(trace.probes) == ledger.reached
    assert ledger.hessians == trace.iterations
    assert trace.probes == minimise(instance, "exact").probes


@pytest.mark.parametrize("method", [*SCIPY_METHODS, "torch"])
def test_peers_reach_the_same_minimum(method):
    instance = rosenbrock_instance(2)
    if method == "torch":
        ledger = run_torch_lbfgs(instance.problem, instance.x0)
    else:
        ledger = run_scipy(instance.problem, instance.x0, method)
    assert ledger.reached == ledger.evaluations <= 400
    assert ledger.best[-1] < 1e-8
    assert bool(ledger.hessians) == (method == "trust-exact")


def test_a_budget_ends_a_run():
    instance = rosenbrock_instance(2)
    ledger = run_scipy(instance.problem, instance.x0, "L-BFGS-B", limit=7)
    assert ledger.evaluations == 7
    assert ledger.reached is None
    assert run_torch_lbfgs(instance.problem, instance.x0, limit=7).evaluations == 7
    with pytest.raises(ValueError, match="unknown method 'BFGS'"):
        run_scipy(instance.problem, instance.x0, "BFGS")

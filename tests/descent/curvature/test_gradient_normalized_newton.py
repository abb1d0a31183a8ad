"""The adaptive Newton method: the lemma, probes, failures, invariance, endings; and its gradient baseline."""

import math

import pytest
import torch

from descent.curvature.approximate_hessians import (
    LinearResidual,
    PowerOfResidual,
    dense_curvature,
    no_curvature,
)
from descent.curvature.backtracking_gradient import backtracking_gradient
from descent.curvature.dual_metric import Metric
from descent.curvature.gradient_normalized_experiments import (
    NoisySteps,
    ScrambledFisher,
    arrival,
    decades,
    minimise,
    phase_runs,
    progress_ratios,
)
from descent.curvature.gradient_normalized_instances import (
    PAPER_SEED,
    FlatTail,
    chebyshev_instance,
    linear_power_instance,
    log_sum_exp_instance,
    margin_logistic_instance,
    rosenbrock_instance,
    whitened,
)
from descent.curvature.gradient_normalized_newton import (
    accept_always,
    gradient_normalized_newton,
    inner_product_progress,
)
from descent.curvature.regularised_steps import CholeskySteps


def test_the_counts_of_the_authors_code():
    # Counted with their methods.py on the same instances.
    lse = log_sum_exp_instance(100, PAPER_SEED)
    assert [minimise(lse, k).iterations for k in ("exact", "gauss_newton")] == [14, 21]
    quartic = linear_power_instance(100, 200, 4, PAPER_SEED)
    assert [minimise(quartic, k).iterations for k in ("exact", "fisher")] == [27, 18]
    assert minimise(rosenbrock_instance(5), "gauss_newton").iterations == 57
    assert (
        backtracking_gradient(lse.problem, lse.x0, lse.metric, f_star=lse.f_star).iterations == 47
    )


@pytest.mark.parametrize("gamma", [0.25, 0.5, 1.0])
def test_the_lemma_holds_without_search_at_the_theoretical_radius(gamma):
    instance = log_sum_exp_instance(20, 7)
    trace = minimise(
        instance, "exact", gamma0=gamma, factor=1.0, accept=accept_always, iterations=60
    )
    assert progress_ratios(trace).min() >= 1
    assert max(trace.steps) <= gamma * (1 + 1e-9)


def test_probes_and_radius_obey_an_exact_identity():
    for instance, kind in (
        (log_sum_exp_instance(15, 3), "exact"),
        (margin_logistic_instance(3), "fisher"),
        (chebyshev_instance(12, 3), "gauss_newton"),
    ):
        trace = minimise(instance, kind, iterations=40)
        rejections = sum(trace.probes) - trace.iterations
        assert rejections == trace.iterations - math.log2(trace.final_gamma)


def test_a_failed_factorisation_is_a_rejection_and_the_value_never_rises():
    trace = minimise(chebyshev_instance(50, PAPER_SEED), "exact")
    assert trace.failures > 0
    assert trace.status == "converged"
    assert all(a > b for a, b in zip(trace.values, trace.values[1:], strict=False))


def test_one_eigendecomposition_gives_the_same_run():
    instance = log_sum_exp_instance(30, 4)
    runs = [
        gradient_normalized_newton(
            instance.problem,
            instance.x0,
            dense_curvature(instance.problem, "exact", instance.metric, reuse=reuse),
            instance.metric,
            f_star=instance.f_star,
        )
        for reuse in (False, True)
    ]
    assert runs[0].probes == runs[1].probes
    assert runs[0].values == pytest.approx(runs[1].values, rel=1e-9)


def test_the_method_does_not_see_a_change_of_variables_or_of_scale():
    for instance, kind in (
        (log_sum_exp_instance(25, 5), "gauss_newton"),
        (margin_logistic_instance(5), "fisher"),
    ):
        a, b = minimise(instance, kind), minimise(whitened(instance), kind)
        assert a.probes == b.probes
        assert a.values == pytest.approx(b.values, rel=1e-8)
    with pytest.raises(TypeError, match="metric"):
        whitened(chebyshev_instance(4, 0))


def test_no_curvature_moves_by_gamma_along_the_gradient():
    instance = rosenbrock_instance(2)
    trace = minimise(instance, "none", iterations=5)
    assert trace.steps == pytest.approx(trace.gammas)


def test_super_universal_newton_is_the_same_loop_with_another_test():
    instance = rosenbrock_instance(2)
    trace = gradient_normalized_newton(
        instance.problem,
        instance.x0,
        dense_curvature(instance.problem, "exact", Metric()),
        accept=inner_product_progress,
        factor=4.0,
    )
    assert trace.status == "converged"


def test_every_ending_has_its_name():
    instance = rosenbrock_instance(2)
    assert minimise(instance, "exact", iterations=3).status == "iterations"
    assert minimise(instance, "exact").status == "converged"
    assert minimise(instance, "exact", tol=0.0, gradient_tol=1e-3).gradient_norms[-1] <= 1e-3
    assert minimise(instance, "exact", accept=lambda trial: False).status == "search exhausted"
    runaway = gradient_normalized_newton(
        FlatTail(),
        torch.ones(1, dtype=torch.float64),
        no_curvature(Metric()),
        gamma0=1e6,
        accept=accept_always,
        factor=1.0,
    )
    assert runaway.status in ("iterations", "not finite")
    with pytest.raises(ValueError, match="gamma0"):
        minimise(instance, "exact", gamma0=0.0)


def test_the_acceptance_tests_refuse_what_is_not_finite():
    class Cliff(FlatTail):
        def value_and_gradient(self, x):
            value, gradient = super().value_and_gradient(x)
            return (-math.inf, gradient * math.nan) if float(x) > 1.5 else (value, gradient)

    for accept in (None, inner_product_progress):
        options = {} if accept is None else {"accept": accept}
        trace = gradient_normalized_newton(
            Cliff(),
            torch.ones(1, dtype=torch.float64),
            no_curvature(Metric()),
            gamma0=8.0,
            iterations=3,
            f_star=-1e9,
            **options,
        )
        assert all(math.isfinite(v) for v in trace.values)
        assert trace.probes[0] > 1


def test_batched_phase_runs_are_the_method():
    power, start = 3.0, 10.0
    batch = phase_runs(*(torch.tensor([v], dtype=torch.float64) for v in (power, 0.0, 0.0, start)))
    problem = PowerOfResidual(
        LinearResidual(torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)),
        power,
    )
    trace = gradient_normalized_newton(
        problem,
        torch.tensor([start], dtype=torch.float64),
        dense_curvature(problem, "exact", Metric()),
        tol=1e-12,
    )
    assert int(batch.iterations) == trace.iterations
    expected = (trace.values[-1] / trace.values[-11]) ** 0.1
    assert float(batch.tail) == pytest.approx(expected)
    cut = phase_runs(
        *(torch.tensor([v], dtype=torch.float64) for v in (3.0, 1.0, 1.0, 10.0)), limit=50
    )
    assert int(cut.iterations) == 50
    assert not bool(cut.converged)


def test_gradient_descent_needs_the_quadratic_bound_and_names_its_endings():
    instance = log_sum_exp_instance(20, 1)
    trace = backtracking_gradient(
        instance.problem, instance.x0, instance.metric, f_star=instance.f_star
    )
    assert trace.status == "converged"
    assert trace.steps == trace.gammas
    rosenbrock = rosenbrock_instance(8)
    assert backtracking_gradient(rosenbrock.problem, rosenbrock.x0).status == "search exhausted"
    more = backtracking_gradient(rosenbrock.problem, rosenbrock.x0, max_probes=60, iterations=5)
    assert more.status == "iterations"
    fixed = backtracking_gradient(
        instance.problem, instance.x0, instance.metric, first=1, least=1, iterations=4
    )
    assert fixed.probes == [1, 1, 1, 1]


def test_first_arrivals():
    instance = margin_logistic_instance(1)
    trace = minimise(instance, "exact")
    counts = decades(trace, 0.0, range(1, 9))
    assert counts == sorted(counts)
    assert counts[-1] == trace.iterations >= arrival(trace)
    assert arrival(trace) == trace.first_gradient_below(1e-8)
    assert arrival(minimise(instance, "exact", iterations=2)) is None
    assert decades(minimise(instance, "exact", iterations=2), 0.0, range(8, 9)) == [None]


def test_flat_tail_descent_counts_what_it_says():
    levels = [0.1, 0.03, 0.01]
    counts = FlatTail.fixed_step_descent(levels)
    slope = math.log(counts[2] / counts[0]) / math.log(10)
    assert slope == pytest.approx(1.91, abs=0.05)


def test_controls_have_the_size_they_claim():
    instance = linear_power_instance(5, 8, 4, 0)
    generator = torch.Generator().manual_seed(0)
    noisy = ScrambledFisher(instance.problem, Metric(), generator)(instance.x0)
    weight, q = instance.problem.fisher_term(instance.x0)
    assert noisy.weight == weight
    assert float(noisy.vector.norm()) == pytest.approx(float(q.norm()))

    lse = log_sum_exp_instance(6, 0)
    matrix, g = lse.problem.hessian(lse.x0), lse.problem.gradient(lse.x0)
    h = NoisySteps(CholeskySteps(matrix, lse.metric), lse.metric, 0.3, generator).step(1.0, g)
    residual = lse.metric.add_to(matrix, 1.0) @ h + g
    assert lse.metric.dual_norm(residual) == pytest.approx(0.3 * lse.metric.dual_norm(g))

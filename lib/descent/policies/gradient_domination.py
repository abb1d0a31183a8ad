r"""Gradient domination of Fisher-non-degenerate policies, with every constant computed.

.. math:: J^*-J(\theta)\ \le\ \frac{M_g}{\mu_F}\|\nabla J(\theta)\|+\frac{\sqrt{\epsilon_{bias}}}{1-\gamma},

with :math:`\|\nabla\log\pi\|\le M_g`, :math:`F\succeq\mu_FI`, :math:`w=F^{+}\nabla J` and the error of the best
compatible approximation of the advantage under the occupancy of an optimal policy,
:math:`\epsilon_{bias}=E_{d^*,\pi^*}[(A^\theta-(1-\gamma)w^\top\nabla\log\pi_\theta)^2]`.

The statement is recalled (the paper's lemma was not read); it follows in two lines from the performance difference
lemma and is checked here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from descent.policies.exact_mdp import ExactMDP, ParametricPolicy

__all__ = ["Domination", "fisher_lower_bound", "gradient_domination"]


def fisher_lower_bound(fisher: Tensor) -> Tensor:
    r"""Smallest eigenvalue :math:`\mu_F`.

    Args:
        fisher: symmetric, ``(..., d, d)``.

    Returns:
        ``(...)``.
    """
    return torch.linalg.eigvalsh(fisher)[..., 0]


@dataclass(frozen=True)
class Domination:
    """Both sides of the inequality, each ``(...)``.

    Attributes:
        gap: how far the policy is from the best of all policies.
        gradient_term: the gradient norm times ``score_bound / fisher_bound``.
        bias_term: root of the compatible error over one minus the discount.
        fisher_bound: smallest eigenvalue of the Fisher matrix.
        score_bound: largest norm of a score.
    """

    gap: Tensor
    gradient_term: Tensor
    bias_term: Tensor
    fisher_bound: Tensor
    score_bound: Tensor

    @property
    def bound(self) -> Tensor:
        """The right-hand side."""
        return self.gradient_term + self.bias_term


def gradient_domination(mdp: ExactMDP, policy: ParametricPolicy, theta: Tensor) -> Domination:
    """Evaluate the inequality exactly.

    Args:
        mdp: the process.
        policy: the parametrised policy.
        theta: ``(..., d)``, each a policy whose Fisher matrix has full rank.

    Returns:
        Gap, both terms of the bound, and the constants at each policy.

    Raises:
        ValueError: where the Fisher matrix is singular to working precision; the bound says nothing there.
    """
    fisher, gradient = mdp.fisher(policy, theta), mdp.gradient(policy, theta)
    smallest = fisher_lower_bound(fisher)
    limit = torch.finfo(theta.dtype).eps * fisher.shape[-1]
    if bool((smallest <= limit).any()):
        raise ValueError(
            f"the Fisher matrix is singular (smallest eigenvalue {float(smallest.min()):.1e}): "
            "the policy is Fisher-degenerate and the bound is infinite"
        )
    table, score = policy.probabilities(theta), policy.score(theta)
    compatible = torch.linalg.solve(fisher, gradient.unsqueeze(-1)).squeeze(-1)
    fitted = (1 - mdp.discount) * torch.einsum("...sad,...d->...sa", score, compatible)
    best = mdp.optimum()
    weight = mdp.occupancy(best.policy).unsqueeze(-1) * best.policy
    error = (weight * (mdp.advantage(table) - fitted).square()).sum((-2, -1))
    largest = score.norm(dim=-1).amax((-2, -1))
    return Domination(
        gap=best.objective - mdp.objective(table),
        gradient_term=largest / smallest * gradient.norm(dim=-1),
        bias_term=error.sqrt() / (1 - mdp.discount),
        fisher_bound=smallest,
        score_bound=largest,
    )

r"""Softmax policies that are linear in features of state and action.

.. math:: \pi_\theta(a|s)\propto\exp(\phi(s,a)^\top\theta),\qquad
          \nabla\log\pi_\theta(a|s)=\phi(s,a)-\sum_b\pi_\theta(b|s)\phi(s,b).

With one feature for each pair of state and action this is the tabular softmax, whose Fisher matrix is singular
everywhere: adding a constant to all logits of a state changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["LogLinearPolicy"]


class LogLinearPolicy:
    """A softmax policy with linear logits.

    Args:
        features: ``(S, A, d)``, floating point.

    Raises:
        ValueError: for features that are no ``(S, A, d)`` table of finite numbers.
    """

    def __init__(self, features: Tensor) -> None:
        if features.ndim != 3 or not features.is_floating_point():
            raise ValueError(
                f"features must be a floating-point (S, A, d), got {tuple(features.shape)}"
            )
        if not bool(features.isfinite().all()):
            raise ValueError("features must be finite")
        self.features = features

    @classmethod
    def tabular(
        cls,
        states: int,
        actions: int,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> LogLinearPolicy:
        """The tabular softmax, one parameter for each pair.

        Args:
            states: number of states.
            actions: number of actions.
            dtype: floating-point type.
            device: where the features live.

        Returns:
            A policy with ``d = states * actions``.
        """
        pairs = states * actions
        return cls(torch.eye(pairs, dtype=dtype, device=device).view(states, actions, pairs))

    def log_probabilities(self, theta: Tensor) -> Tensor:
        """Log-probabilities of all actions.

        Args:
            theta: ``(..., d)``.

        Returns:
            ``(..., S, A)``.

        Raises:
            ValueError: if the parameters do not fit the features.
        """
        if theta.shape[-1:] != self.features.shape[-1:]:
            raise ValueError(
                f"theta must end in {self.features.shape[-1]} parameters, got {tuple(theta.shape)}"
            )
        return torch.einsum("sad,...d->...sa", self.features, theta).log_softmax(-1)

    def probabilities(self, theta: Tensor) -> Tensor:
        """Probabilities of all actions, ``(..., d)`` to ``(..., S, A)``."""
        return self.log_probabilities(theta).exp()

    def score(self, theta: Tensor) -> Tensor:
        """Gradients of all log-probabilities, ``(..., d)`` to ``(..., S, A, d)``."""
        mean = torch.einsum("...sa,sad->...sd", self.probabilities(theta), self.features)
        return self.features - mean.unsqueeze(-2)

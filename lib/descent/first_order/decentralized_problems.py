r"""Sums of strongly convex functions spread over nodes, for many independent instances at once.

An instance has ``n`` nodes; node :math:`i` of instance :math:`b` is number :math:`bn+i`. Least
squares in the convention of the authors' code, :math:`f_i(x)=\frac1m\|A_ix-b_i\|^2`, and logistic
regression with a ridge.

Source: experimental setting of Nabli and Oyallon (ICML 2023), as in the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["LogisticSum", "QuadraticSum", "random_classification", "random_regression"]


class QuadraticSum:
    r""":math:`f_i(x)=\frac12x^\top H_ix-h_i^\top x` at every node of every instance.

    Args:
        hessians: :math:`H_i`, symmetric positive definite, shape ``(instances, n, d, d)``.
        linear: :math:`h_i`, shape ``(instances, n, d)``.

    Attributes:
        mu: smallest eigenvalue over the nodes of each instance, shape ``(instances,)``.
        smoothness: largest eigenvalue, shape ``(instances,)``.
        minimiser: :math:`x^*` of the sum over the nodes of each instance, shape ``(instances, d)``.
    """

    def __init__(self, hessians: Tensor, linear: Tensor) -> None:
        if hessians.shape != (*linear.shape, linear.shape[-1]):
            raise ValueError(
                f"hessians {tuple(hessians.shape)} and linear {tuple(linear.shape)} do not match"
            )
        eigenvalues = torch.linalg.eigvalsh(hessians)
        self.mu, self.smoothness = eigenvalues.amin((1, 2)), eigenvalues.amax((1, 2))
        if not bool((self.mu > 0).all()):
            raise ValueError("every function must be strongly convex")
        self.instances, self.n, self.dim = linear.shape
        self.minimiser = torch.linalg.solve(hessians.sum(1), linear.sum(1))
        self._hessians = hessians.flatten(0, 1)
        self._inverses = torch.linalg.inv(self._hessians)
        self._linear = linear.flatten(0, 1)

    @classmethod
    def least_squares(cls, features: Tensor, targets: Tensor) -> QuadraticSum:
        r""":math:`f_i(x)=\frac1m\|A_ix-b_i\|^2`.

        Args:
            features: :math:`A_i`, shape ``(instances, n, m, d)``.
            targets: :math:`b_i`, shape ``(instances, n, m)``.
        """
        weight = 2 / features.shape[2]
        return cls(
            weight * features.mT @ features, weight * (features.mT @ targets[..., None])[..., 0]
        )

    def gradient(self, nodes: Tensor, points: Tensor) -> Tensor:
        r""":math:`\nabla f_i` of the given nodes, each at its own point, shape ``(k, d)``."""
        return torch.bmm(self._hessians[nodes], points[..., None])[..., 0] - self._linear[nodes]

    def dual_gradient(self, nodes: Tensor, slopes: Tensor) -> Tensor:
        r""":math:`\nabla f_i^*(y)=H_i^{-1}(y+h_i)`, the point where the slope is ``y``: a linear solve."""
        return torch.bmm(self._inverses[nodes], (slopes + self._linear[nodes])[..., None])[..., 0]

    def to(
        self, device: torch.device | str, kind: type[QuadraticSum] | None = None
    ) -> QuadraticSum:
        """The same functions on another device, or as a subclass."""
        shape = (self.instances, self.n)
        return (kind or QuadraticSum)(
            self._hessians.unflatten(0, shape).to(device),
            self._linear.unflatten(0, shape).to(device),
        )

    def repeated(self, times: int) -> QuadraticSum:
        """The same instances ``times`` over, one block after the other."""
        hessians = self._hessians.unflatten(0, (self.instances, self.n))
        linear = self._linear.unflatten(0, (self.instances, self.n))
        return QuadraticSum(hessians.repeat(times, 1, 1, 1), linear.repeat(times, 1, 1))


class LogisticSum:
    r""":math:`f_i(x)=\frac1m\sum_j\log(1+e^{-b_{ij}\langle a_{ij},x\rangle})+\frac\mu2\|x\|^2`.

    Args:
        features: :math:`a_{ij}`, shape ``(instances, n, m, d)``.
        labels: :math:`b_{ij}=\pm1`, shape ``(instances, n, m)``.
        ridge: :math:`\mu>0`.

    Attributes:
        mu: the ridge, shape ``(instances,)``.
        smoothness: the bound :math:`\mu+\frac14\max_i\lambda_{\max}(\frac1mA_i^\top A_i)`.
        minimiser: :math:`x^*` by Newton's method to round-off, shape ``(instances, d)``.
    """

    def __init__(self, features: Tensor, labels: Tensor, ridge: float) -> None:
        if not ridge > 0:
            raise ValueError(f"the ridge must be positive, got {ridge}")
        self.instances, self.n, samples, self.dim = features.shape
        self._signed = (features * labels[..., None]).flatten(0, 1)
        self._ridge = ridge
        gram = self._signed.mT @ self._signed / samples
        largest = torch.linalg.eigvalsh(gram)[:, -1].unflatten(0, (self.instances, self.n))
        self.mu = torch.full_like(largest[:, 0], ridge)
        self.smoothness = ridge + largest.amax(1) / 4
        self.minimiser = self._newton()

    def gradient(self, nodes: Tensor, points: Tensor) -> Tensor:
        r""":math:`\nabla f_i` of the given nodes, each at its own point, shape ``(k, d)``."""
        rows = self._signed[nodes]
        weights = torch.sigmoid(-torch.bmm(rows, points[..., None]))
        return self._ridge * points - torch.bmm(rows.mT, weights)[..., 0] / rows.shape[1]

    def to(self, device: torch.device | str) -> LogisticSum:
        """The same functions on another device."""
        features = self._signed.unflatten(0, (self.instances, self.n)).to(device)
        return LogisticSum(features, torch.ones_like(features[..., 0]), self._ridge)

    def _newton(self) -> Tensor:
        point = self._signed.new_zeros(self.instances, self.dim)
        nodes = torch.arange(self.instances * self.n, device=point.device)
        identity = torch.eye(self.dim, dtype=point.dtype, device=point.device)
        for _ in range(50):
            spread = point.repeat_interleave(self.n, 0)
            slope = self.gradient(nodes, spread).unflatten(0, (-1, self.n)).mean(1)
            odds = torch.sigmoid(torch.bmm(self._signed, spread[..., None]))
            curved = self._signed.mT @ (odds * (1 - odds) * self._signed) / self._signed.shape[1]
            hessian = curved.unflatten(0, (-1, self.n)).mean(1) + self._ridge * identity
            step = torch.linalg.solve(hessian, slope)
            point = point - step
            if float(step.abs().max()) < 1e-15 * (1 + float(point.abs().max())):
                break
        return point


def random_regression(
    instances: int, n: int, samples: int, dim: int, generator: torch.Generator
) -> QuadraticSum:
    """Least squares with a different line at every node.

    Standard normal features; coefficients uniform in 0 to 100; noise of standard deviation 10; the
    targets of each node multiplied by a slope uniform in .01 to 5.

    Args:
        instances: number of independent problems.
        n: nodes of each.
        samples: rows at each node.
        dim: dimension of :math:`x`.
        generator: the random stream.
    """
    features = torch.randn(instances, n, samples, dim, generator=generator, dtype=torch.float64)
    lines = 100 * torch.rand(instances, n, dim, 1, generator=generator, dtype=torch.float64)
    noise = 10 * torch.randn(instances, n, samples, generator=generator, dtype=torch.float64)
    slopes = 0.01 + 4.99 * torch.rand(instances, n, 1, generator=generator, dtype=torch.float64)
    return QuadraticSum.least_squares(features, slopes * ((features @ lines)[..., 0] + noise))


def random_classification(
    instances: int, n: int, samples: int, dim: int, ridge: float, generator: torch.Generator
) -> LogisticSum:
    """Two classes at every node, separated along a direction of its own with 10 % of labels flipped.

    Arguments as for :func:`random_regression`, and ``ridge``, which is :math:`\\mu`.
    """
    labels = torch.randint(2, (instances, n, samples), generator=generator).double() * 2 - 1
    direction = torch.randn(instances, n, 1, dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(instances, n, samples, dim, generator=generator, dtype=torch.float64)
    flips = torch.rand(instances, n, samples, generator=generator) < 0.1
    features = 2 * noise + labels[..., None] * direction
    return LogisticSum(features, torch.where(flips, -labels, labels), ridge)

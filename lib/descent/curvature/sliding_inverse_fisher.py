r"""M-FAC, dynamic form: inverse-Fisher products over a sliding window of gradients.

When one of :math:`m` gradients is replaced, all :math:`v_i` of the static form change. But every
:math:`v_i` is a combination of the gradients, :math:`v_i=\sum_{k\le i}B_{ik}g_k`, and the
coefficients depend only on the scalar products :math:`K=GG^\top`. A replacement recomputes one row
of :math:`K` (:math:`dm` multiply-adds) and eliminates in :math:`m\times m` matrices
(:math:`O(m^3)`); nothing of size :math:`d` is rebuilt.

Source: Frantar, Kurtic and Alistarh (NeurIPS 2021), dynamic algorithm, and the authors' code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Factors", "SlidingInverseFisher", "eliminate"]


class Factors(NamedTuple):
    r"""What a product needs beyond the gradients; all rows in the order of the buffer.

    ``scalar_products`` is :math:`D` with :math:`D_{ij}=g_i^\top F_{i-1}^{-1}g_j` for
    :math:`j\ge i`, zero below, shape ``(m, m)``. ``denominators`` is :math:`q_i=m+D_{ii}`, shape
    ``(m,)``. ``coefficients`` is the lower triangular :math:`B`, shape ``(m, m)``.
    """

    scalar_products: Tensor
    denominators: Tensor
    coefficients: Tensor


def eliminate(gram: Tensor, damp: float) -> Factors:
    r"""Return :math:`D`, :math:`q` and :math:`B` from :math:`K=GG^\top`.

    .. math:: D\leftarrow K/\lambda,\qquad
              D_{jk}\leftarrow D_{jk}-\frac{D_{ij}D_{ik}}{m+D_{ii}}\quad(j,k>i),\qquad
              B_{ii}=\frac1\lambda,\qquad
              B_{i,:i}=-\sum_{j<i}\frac{D_{ji}}{q_j}B_{j,:i} .

    :math:`m^3/3` multiply-adds each. It is the :math:`LDL^\top` factorisation of
    :math:`K/\lambda+mI` without pivoting, which definiteness makes safe.

    Args:
        gram: :math:`K`, shape ``(m, m)``, symmetric positive semi-definite.
        damp: :math:`\lambda>0`.

    Returns:
        The three factors.
    """
    m = gram.shape[0]
    products = gram / damp
    products.diagonal().add_(m)  # the pivots are then the denominators
    for i in range(m - 1):
        rest = products[i : i + 1, i + 1 :]
        products[i + 1 :, i + 1 :].addmm_(rest.mT / products[i, i], rest, alpha=-1)
    denominators = products.diagonal().clone()
    products.diagonal().sub_(m)
    ratios = products.triu(1).mT / -denominators
    coefficients = torch.zeros_like(products)
    coefficients.diagonal().fill_(1 / damp)
    for i in range(1, m):
        coefficients[i : i + 1, :i] = ratios[i : i + 1, :i] @ coefficients[:i, :i]
    return Factors(products.triu(), denominators, coefficients)


class SlidingInverseFisher:
    r"""The inverse Fisher matrix of the last ``window`` gradients, kept in a ring buffer.

    The buffer starts with zero rows. They contribute nothing, but the divisor of the Fisher matrix
    is ``window`` from the start, as in the authors' code: until the window is full :math:`F` is
    under-estimated and products are longer.

    Args:
        window: :math:`m`, at least 1.
        dim: :math:`d`, at least 1.
        damp: :math:`\lambda>0`.
        dtype: floating-point dtype of the buffer.
        device: where the buffer lives.

    Raises:
        ValueError: for a window, dimension or damping that is not positive.

    Attributes:
        gradients: the ring buffer :math:`G`, shape ``(m, d)``.
        gram: :math:`K=GG^\top`, shape ``(m, m)``.
        position: the row that the next gradient overwrites.
    """

    def __init__(
        self,
        window: int,
        dim: int,
        damp: float,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        if window < 1 or dim < 1:
            raise ValueError(f"window and dim must be at least 1, got {window} and {dim}")
        if not 0 < damp < float("inf"):
            raise ValueError(f"damp must be positive and finite, got {damp}")
        self.damp = damp
        self.gradients = torch.zeros(window, dim, dtype=dtype, device=device)
        self.gram = torch.zeros(window, window, dtype=dtype, device=device)
        self.position = 0
        self._factors: Factors | None = None

    @classmethod
    def from_state(cls, state: dict[str, Any], damp: float) -> SlidingInverseFisher:
        """Wrap the tensors of :meth:`state_dict`, without a copy.

        Args:
            state: ``gradients``, ``gram`` and ``position`` of another instance.
            damp: the damping, positive.

        Returns:
            An instance that shares its buffer with ``state``.
        """
        fisher = cls.__new__(cls)
        fisher.damp = damp
        fisher.gradients, fisher.gram = state["gradients"], state["gram"]
        fisher.position = int(state["position"])
        fisher._factors = None
        return fisher

    def state_dict(self) -> dict[str, Any]:
        """Return buffer, scalar products and position; the factors are recomputed from these."""
        return {"gradients": self.gradients, "gram": self.gram, "position": self.position}

    def replace(self, slot: int, gradient: Tensor) -> None:
        """Overwrite one row of the buffer; a zero gradient removes the row's contribution.

        Args:
            slot: row of the buffer, from 0 to ``window - 1``.
            gradient: shape ``(d,)``.

        Raises:
            ValueError: for a gradient of another shape.
            IndexError: for a slot outside the buffer.
        """
        window, dim = self.gradients.shape
        if gradient.shape != (dim,):
            raise ValueError(f"gradient must have shape ({dim},), got {tuple(gradient.shape)}")
        if not 0 <= slot < window:
            raise IndexError(f"slot {slot} is outside a window of {window}")
        self.gradients[slot] = gradient
        products = self.gradients @ self.gradients[slot]
        self.gram[slot] = products
        self.gram[:, slot] = products
        self._factors = None

    def push(self, gradient: Tensor) -> None:
        """Replace the oldest gradient.

        Args:
            gradient: shape ``(d,)``.

        Raises:
            ValueError: for another shape.
        """
        self.replace(self.position, gradient)
        self.position = (self.position + 1) % self.gradients.shape[0]

    def factors(self) -> Factors:
        """Return :func:`eliminate` of the current window; kept until the window changes."""
        if self._factors is None:
            self._factors = eliminate(self.gram, self.damp)
        return self._factors

    def mul(self, vector: Tensor) -> Tensor:
        r"""Return :math:`F^{-1}x=\frac x\lambda-G^\top B^\top\bigl((BGx)/q\bigr)`.

        :math:`BGx` is the vector of :math:`v_i^\top x`. The authors' code gets it by forward
        substitution in :math:`D`, which is the same map.

        Args:
            vector: :math:`x`, shape ``(d,)``.

        Returns:
            Shape ``(d,)``.

        Raises:
            ValueError: for another shape.
        """
        dim = self.gradients.shape[1]
        if vector.shape != (dim,):
            raise ValueError(f"vector must have shape ({dim},), got {tuple(vector.shape)}")
        _, denominators, coefficients = self.factors()
        along = coefficients @ (self.gradients @ vector)
        return vector / self.damp - self.gradients.mT @ (coefficients.mT @ (along / denominators))

    def push_mul(self, gradient: Tensor) -> Tensor:
        r"""Push a gradient and return its product :math:`F^{-1}g` with the window that holds it.

        Args:
            gradient: shape ``(d,)``.

        Returns:
            Shape ``(d,)``.

        Raises:
            ValueError: for another shape.
        """
        self.push(gradient)
        return self.mul(gradient)

r"""What curvature says about a safe step at a given margin, beside what the complex zeros say.

For two classes with margin :math:`\delta` and unit slope the loss :math:`f(\delta)=\log(1+e^{-\delta})`
has :math:`f''=\sigma(\delta)\sigma(-\delta)\approx e^{-\delta}`: the step :math:`2/f''`, the stability
limit of gradient descent on the quadratic model, grows exponentially with confidence, while the
radius :math:`\sqrt{\delta^2+\pi^2}` grows linearly.

Source: Sao (arXiv 2603.13552), Section 8.5 and Appendix 5.
"""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["curvature_step", "directional_curvature", "margin_radius"]


def curvature_step(margin: Tensor) -> Tensor:
    r"""Return :math:`2/f''(\delta)=2(1+e^{-\delta})^2e^{\delta}`.

    Args:
        margin: :math:`\delta`, any shape, float64 advised.

    Returns:
        Shape of ``margin``; at least 8.
    """
    return 2 / (margin.sigmoid() * (-margin).sigmoid())


def margin_radius(margin: Tensor) -> Tensor:
    r"""Return :math:`\sqrt{\delta^2+\pi^2}`, the exact binary radius for unit spread.

    Args:
        margin: any shape.

    Returns:
        Shape of ``margin``; at least pi.
    """
    return (margin.square() + math.pi**2).sqrt()


def directional_curvature(logits: Tensor, slopes: Tensor) -> Tensor:
    r"""Return :math:`\kappa=v^\top Hv` of the mean cross-entropy if the logits are linear along ``v``.

    :math:`\kappa` is the mean over samples of the variance of the slopes under the softmax
    probabilities: exact for linear classifiers, the Gauss-Newton part for others.

    Args:
        logits: shape ``(..., samples, n)``.
        slopes: shape ``(..., samples, n)``, per unit length of ``v``.

    Returns:
        Shape ``(...)``, not negative.
    """
    p = logits.softmax(-1)
    centred = slopes - (p * slopes).sum(-1, keepdim=True)
    return (p * centred.square()).sum(-1).mean(-1)

r"""Complex zeros of the softmax partition function along a line, and the Taylor disc that they limit.

Along a line in parameter space with linear logits :math:`z_k+a_kt` the cross-entropy is
:math:`-a_yt+\log F(t)` plus a constant, with

.. math:: F(t)=\sum_k e^{z_k+a_kt}.

:math:`F>0` on the real line, but it has complex zeros, where the logarithm is singular. The distance
:math:`\rho^*` of the nearest one from the origin is the radius of convergence of the Taylor series.
All evaluations subtract the largest real exponent first, so that logits of any size are allowed.

Source: Sao (arXiv 2603.13552), Theorem 2.1, Proposition 4.2, Theorems 4.3 and 4.6; the root finder
(argument principle, then Newton) is ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "count_zeros",
    "has_zero_inside",
    "nearest_zero",
    "partition_taylor",
    "radius_binary",
    "scaled_partition",
    "taylor_errors",
    "zeros_in_disc",
]

SAFE_TURN = 2.0  # radians between neighbouring points of a circle; the winding number needs < pi


def radius_binary(margin: Tensor, spread: Tensor) -> Tensor:
    r"""Return the exact radius for two classes, :math:`\rho^*=\sqrt{\delta^2+\pi^2}/\Delta_a`.

    The zeros of :math:`1+e^{-\delta+\Delta_at}` are :math:`(\delta+(2k+1)\pi i)/\Delta_a`.

    Args:
        margin: :math:`\delta`, the difference of the two logits; only its square matters.
        spread: :math:`\Delta_a\ge0`, the absolute difference of the two slopes.

    Returns:
        Broadcast shape; infinite where the spread is 0.

    Raises:
        ValueError: for a negative spread.
    """
    if bool((spread < 0).any()):
        raise ValueError(f"spread must not be negative, got {float(spread.min())}")
    return (margin.square() + math.pi**2).sqrt() / spread


def _checked(logits: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return centred logits, centred slopes scaled to spread 1, and the spread, all in float64."""
    if logits.shape != slopes.shape or logits.ndim < 1 or logits.shape[-1] < 2:
        raise ValueError(
            "logits and slopes must share a shape (..., n) with n >= 2, "
            f"got {tuple(logits.shape)} and {tuple(slopes.shape)}"
        )
    high, low = slopes.double().amax(-1), slopes.double().amin(-1)
    spread = high - low
    if not bool((spread > 0).all()):
        raise ValueError("slopes must differ: equal slopes leave F without zeros (infinite radius)")
    middle = (high + low)[..., None] / 2
    scaled = (slopes.double() - middle) / spread[..., None]
    return logits.double() - logits.double().amax(-1, keepdim=True), scaled, spread


def _sums(logits: Tensor, slopes: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """F and F' at ``t``, both divided by the same positive number per point."""
    exponent = logits[..., None, :] + slopes[..., None, :] * t[..., None]
    terms = (exponent - exponent.real.amax(-1, keepdim=True)).exp()
    return terms.sum(-1), (terms * slopes[..., None, :]).sum(-1)


def scaled_partition(logits: Tensor, slopes: Tensor, t: Tensor) -> Tensor:
    r"""Return :math:`F(t)` divided by its largest term in absolute value.

    The phase and the zeros are those of :math:`F`; the modulus lies between 0 and ``n``.

    Args:
        logits: :math:`z`, shape ``(n,)``.
        slopes: :math:`a`, shape ``(n,)``.
        t: complex points, any shape.

    Returns:
        Complex, shape of ``t``.
    """
    exponent = logits + slopes * t[..., None]
    return (exponent - exponent.real.amax(-1, keepdim=True)).exp().sum(-1)


def _winding(logits: Tensor, slopes: Tensor, radius: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Turns of F around circles, and the largest phase step seen between neighbouring points."""
    angle = torch.arange(points, dtype=torch.float64, device=logits.device) * (math.pi / points)
    # the lower half of the circle mirrors the upper one, since F is real on the real line
    upper = torch.polar(torch.ones_like(angle), angle) * radius[..., None]
    upper = torch.cat([upper, -radius[..., None].to(upper.dtype)], -1)
    value = _sums(logits, slopes, upper)[0]
    step = torch.angle(value[..., 1:] * value[..., :-1].conj())
    return step.sum(-1) / math.pi, step.abs().amax(-1)


def count_zeros(logits: Tensor, slopes: Tensor, radius: Tensor, points: int = 512) -> Tensor:
    """Return the number of zeros of F inside circles around 0, by the argument principle.

    The number of points is doubled until neighbours differ by less than 2 radians in phase.

    Args:
        logits: shape ``(..., n)``.
        slopes: shape ``(..., n)``.
        radius: shape ``(...)``, in units of ``t``.
        points: on the upper half circle, at first.

    Returns:
        Integer counts with multiplicity, shape ``(...)``.

    Raises:
        ValueError: for shapes that differ or equal slopes.
        RuntimeError: if a circle passes too close to a zero.
    """
    z, a, spread = _checked(logits, slopes)
    scaled = torch.as_tensor(radius, dtype=torch.float64, device=z.device) * spread
    for _ in range(8):
        turns, largest = _winding(z, a, scaled, points)
        if bool((largest < SAFE_TURN).all()):
            return turns.round().long()
        points *= 2
    raise RuntimeError(
        "a circle passes too close to a zero to count what is inside; change the radius slightly"
    )


def has_zero_inside(logits: Tensor, slopes: Tensor, radius: Tensor) -> Tensor:
    """Return whether a circle may hold a zero: certain where false, a candidate where true.

    Args:
        logits: shape ``(..., n)``.
        slopes: shape ``(..., n)``.
        radius: shape ``(...)``, in units of ``t``.

    Returns:
        Booleans, shape ``(...)``.
    """
    z, a, spread = _checked(logits, slopes)
    turns, largest = _winding(z, a, radius.double() * spread, 128)
    return (turns.round() > 0) | (largest >= SAFE_TURN)


def _newton(logits: Tensor, slopes: Tensor, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Newton iterates with steps of at most 1 (zeros are at least pi apart from the real line)."""
    for _ in range(steps):
        value, derivative = _sums(logits, slopes, t)
        move = value / torch.where(derivative == 0, 1.0, derivative)
        t = t - move / move.abs().clamp(min=1.0)
    value, _ = _sums(logits, slopes, t)
    return t, value.abs() < 1e-10


def nearest_zero(logits: Tensor, slopes: Tensor) -> Tensor:
    r"""Return the zero of F nearest to the origin, in the closed upper half plane.

    Circles are grown by 15 % until the argument principle finds a zero inside; Newton's method starts
    from points of that ring; a last circle just inside the zero found must be empty.

    Args:
        logits: :math:`z`, shape ``(..., n)``; a common shift does not matter.
        slopes: :math:`a`, shape ``(..., n)``, not all equal.

    Returns:
        Complex128, shape ``(...)``; the radius :math:`\rho^*` is its absolute value. Precision is
        that of float64 for simple zeros.

    Raises:
        ValueError: for shapes that differ or equal slopes.
        RuntimeError: if the certificate fails.
    """
    z, a, spread = _checked(logits, slopes)
    shape = spread.shape
    z, a = z.reshape(-1, z.shape[-1]), a.reshape(-1, a.shape[-1])
    ones = torch.ones(len(z), dtype=torch.float64, device=z.device)
    radius, found = 0.9 * math.pi * ones, torch.zeros_like(ones, dtype=torch.bool)
    for _ in range(60):
        turns, _ = _winding(z, a, radius, 512)
        found |= turns.round() > 0
        if bool(found.all()):
            break
        radius = torch.where(found, radius, 1.15 * radius)
    else:
        raise RuntimeError("no zero found within the search radius")
    for starts, circles in ((32, (0.88, 1.0)), (128, (0.86, 0.9, 0.94, 0.98, 1.02))):
        angle = torch.linspace(0.02, math.pi - 0.02, starts, dtype=torch.float64, device=z.device)
        ring = torch.polar(torch.ones_like(angle), angle)
        guesses = torch.cat([ring * (radius * f)[:, None] for f in circles], 1)
        root, good = _newton(z, a, guesses, 25)
        size = torch.where(good, root.abs(), math.inf)
        best = root.gather(1, size.argmin(1, keepdim=True))[:, 0]
        best = _newton(z, a, best[:, None], 8)[0][:, 0]  # the smallest root may be a late arrival
        best = torch.complex(best.real, best.imag.abs())
        if bool(good.any(1).all()) and not bool((count_zeros(z, a, 0.99 * best.abs()) > 0).any()):
            return (best / spread.reshape(-1)).reshape(shape)
    raise RuntimeError("Newton's method missed the nearest zero")


def zeros_in_disc(logits: Tensor, slopes: Tensor, radius: float) -> Tensor:
    """Return all zeros of F with ``|t| < radius``, checked by the argument principle.

    Args:
        logits: shape ``(n,)``.
        slopes: shape ``(n,)``, not all equal.
        radius: of the disc, positive.

    Returns:
        Complex128, sorted by distance, both members of each conjugate pair. Zeros closer to each
        other than a millionth of the inverse spread count as one.

    Raises:
        ValueError: for wrong shapes or equal slopes.
        RuntimeError: if the number found differs from the count (multiple zeros, for instance).
    """
    z, a, spread = _checked(logits, slopes)
    if z.ndim != 1:
        raise ValueError(f"zeros_in_disc takes one instance of shape (n,), got {tuple(z.shape)}")
    reach = float(radius) * float(spread)
    count = int(count_zeros(z, a, torch.tensor(reach)))
    side = 24
    for _ in range(4):
        x = torch.linspace(-reach, reach, side, dtype=torch.float64, device=z.device)
        y = torch.linspace(math.pi / 2, max(reach, math.pi), side // 2, dtype=torch.float64)
        grid = torch.complex(*torch.meshgrid(x, y.to(z.device), indexing="ij")).reshape(-1)
        grid = grid[grid.abs() < 1.1 * reach]
        root, good = _newton(z, a, grid, 40)
        root = root[good & (root.abs() < reach) & (root.imag > 0)]
        kept: list[complex] = []
        for value in root[root.abs().argsort()].tolist():
            if all(abs(value - other) > 1e-6 for other in kept):
                kept.append(value)
        if 2 * len(kept) == count:
            both = [w for value in kept for w in (value, value.conjugate())]
            return torch.tensor(both, dtype=torch.complex128, device=z.device) / spread
        side *= 2
    raise RuntimeError(f"found {2 * len(kept)} zeros where the argument principle counts {count}")


def partition_taylor(logits: Tensor, slopes: Tensor, order: int) -> Tensor:
    r"""Return the Taylor coefficients of :math:`L(t)=\log F(t)` at 0.

    With :math:`f_k=\sum_jw_ja_j^k/k!` and :math:`w=\mathrm{softmax}(z)`, :math:`L_0=\log F(0)` and
    :math:`L_n=\bigl(nf_n-\sum_{k=1}^{n-1}kL_kf_{n-k}\bigr)/n`. The recursion runs in the variable
    :math:`t\Delta_a` with centred slopes; rounding errors grow like the inverse powers of the
    radius, so orders beyond about 60 are of little use.

    Args:
        logits: shape ``(..., n)``.
        slopes: shape ``(..., n)``, not all equal.
        order: highest power, at least 1.

    Returns:
        Float64, shape ``(..., order + 1)``.

    Raises:
        ValueError: for wrong shapes, equal slopes or an order below 1.
    """
    if order < 1:
        raise ValueError(f"order must be at least 1, got {order}")
    z, a, spread = _checked(logits, slopes)
    weights = z.softmax(-1)
    f, power = [], weights
    for k in range(order + 1):
        f.append(power.sum(-1))
        power = power * a / (k + 1)
    series = [torch.zeros_like(f[0])]
    for n in range(1, order + 1):
        inner = sum((k * series[k] * f[n - k] for k in range(1, n)), torch.zeros_like(f[0]))
        series.append((n * f[n] - inner) / n)
    scale = spread[..., None] ** torch.arange(order + 1, device=z.device)
    result = torch.stack(series, -1) * scale
    result[..., 0] = logits.double().logsumexp(-1)
    result[..., 1] += (slopes.double().amax(-1) + slopes.double().amin(-1)) / 2
    return result


def taylor_errors(logits: Tensor, slopes: Tensor, lengths: Tensor, order: int) -> Tensor:
    r"""Return the errors of the Taylor polynomials of :math:`\log F` up to an order.

    Args:
        logits: shape ``(..., n)``.
        slopes: shape ``(..., n)``, not all equal.
        lengths: real :math:`t`, shape ``(...)``.
        order: highest power, at least 1.

    Returns:
        Absolute errors of the polynomials of orders 0 to ``order``, shape ``(..., order + 1)``.
    """
    z, a, spread = _checked(logits, slopes)
    t = lengths.double() * spread
    powers = t[..., None] ** torch.arange(order + 1, dtype=torch.float64, device=z.device)
    partial = (partition_taylor(z, a, order) * powers).cumsum(-1)
    return (partial - (z + t[..., None] * a).logsumexp(-1)[..., None]).abs()

"""Hit rates and their ratio to the rate of a primary screen, with intervals that hold for few hits."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import betaincinv, ndtri

from phenohit.errors import ConfigError

__all__ = ["Primary", "clopper_pearson", "enrichment_interval", "koopman", "rate"]


def clopper_pearson(
    hits: ArrayLike, tested: ArrayLike, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exact binomial interval of a share.

    Parameters
    ----------
    hits, tested : int arrays of one shape
    confidence : float
        Least coverage; with few hits it covers more often.

    Returns
    -------
    low, high : float64 arrays
        0 and 1 where nothing was tested.

    References
    ----------
    Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404.

    Examples
    --------
    >>> [round(float(v), 3) for v in clopper_pearson(141, 342)]
    [0.36, 0.466]
    """
    k, n = np.broadcast_arrays(np.asarray(hits, np.float64), np.asarray(tested, np.float64))
    side = (1 - confidence) / 2
    low = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, side), 0.0)
    high = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), 1 - side), 1.0)
    return low, high


def rate(hits: int, tested: int, confidence: float = 0.95) -> dict[str, Any]:
    """Return ``hits, tested, rate, low, high`` of one group; the rate is None where nothing was tested."""
    low, high = clopper_pearson(hits, tested, confidence)
    share = hits / tested if tested else None
    return {"hits": int(hits), "tested": int(tested), "rate": share, "low": float(low), "high": float(high)}


def koopman(hits: int, tested: int, hits0: int, tested0: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of the ratio of two binomial rates.

    Parameters
    ----------
    hits, tested : int
        Of the rate above.
    hits0, tested0 : int
        Of the rate below, e.g. a primary screen.
    confidence : float

    Returns
    -------
    low, high : float
        0 where `hits` is 0; infinite where `hits0` is 0.

    Notes
    -----
    A ratio is in the interval if the score test does not reject it. Unlike intervals on the logarithm
    (Katz) it needs no correction for 0 hits, and it keeps its coverage for small rates.

    References
    ----------
    Koopman 1984, Biometrics 40, 513, doi:10.2307/2531405.

    Examples
    --------
    >>> [round(v, 2) for v in koopman(36, 40, 16, 80)]  # Koopman's own example
    [2.94, 7.15]
    """
    limit = float(ndtri((1 + confidence) / 2)) ** 2
    if not tested or not tested0 or (not hits and not hits0):
        return 0.0, math.inf

    def excess(log_ratio: float) -> float:
        return _score(math.exp(log_ratio), hits, tested, hits0, tested0) - limit

    # Where one count is 0 the estimate lies at the edge, and one side is open.
    estimate = math.log(max(hits, 0.5) / tested) - math.log(max(hits0, 0.5) / tested0)
    low = 0.0 if not hits else math.exp(brentq(excess, *_bracket(excess, estimate, -1.0), xtol=1e-12))
    high = math.inf if not hits0 else math.exp(brentq(excess, *_bracket(excess, estimate, 1.0), xtol=1e-12))
    return low, high


def _bracket(excess: Any, start: float, step: float) -> tuple[float, float]:
    """Walk from inside the interval until outside; (lower, upper) end of a stretch with one crossing."""
    inside = start
    while excess(inside) > 0:  # a count of 0: the guessed estimate may lie outside
        inside -= step
    outside = inside + step
    while excess(outside) <= 0:
        inside, outside, step = outside, outside + 2 * step, 2 * step
    return (inside, outside) if inside < outside else (outside, inside)


def _score(ratio: float, x: int, n: int, y: int, m: int) -> float:
    """Chi-square of the score test that the rates have this ratio (Koopman 1984)."""
    b = ratio * (n + y) + x + m
    root = math.sqrt(max(b * b - 4 * ratio * (n + m) * (x + y), 0.0))
    # The smaller root, written so that no digits cancel.
    p = 2 * ratio * (x + y) / (b + root)
    chi = 0.0
    for k, size, share in ((x, n, p), (y, m, p / ratio)):
        share = min(max(share, 1e-300), 1 - 1e-15)
        chi += (k - size * share) ** 2 / (size * share * (1 - share))
    return chi


class Primary:
    """The primary screen: actives among tested, or a rate that is taken as known.

    Parameters
    ----------
    text : str
        ``34/4690`` or ``0.725%``.
    source : str
        Where it comes from, in words.

    Raises
    ------
    ConfigError
        If it is neither.
    """

    def __init__(self, text: str, source: str = "given") -> None:
        counts = re.fullmatch(r"\s*([\d,]+)\s*/\s*([\d,]+)\s*", text)
        share = re.fullmatch(r"\s*(\d*\.?\d+)\s*%\s*", text)
        self.source, self.hits, self.tested = source, -1, -1
        if counts:
            self.hits, self.tested = (int(v.replace(",", "")) for v in counts.groups())
            self.rate = self.hits / self.tested if self.tested else math.nan
        elif share:
            self.rate = float(share[1]) / 100
        if not (counts or share) or not 0 <= self.rate < 1 or self.hits > self.tested:
            raise ConfigError(
                f"--primary is '{text}'. Expected actives and tested compounds of the primary screen, such as 34/4690, "
                "or its hit rate, such as 0.725%."
            )

    @property
    def counted(self) -> bool:
        """Whether the counts are known."""
        return self.tested > 0


def enrichment_interval(hits: int, tested: int, primary: Primary, confidence: float = 0.95) -> dict[str, Any]:
    """Compare a hit rate with that of the primary screen.

    Returns
    -------
    dict
        ``fold`` (None where it cannot be had), ``low, high`` (None where open), ``method`` in words.
    """
    share = hits / tested if tested else math.nan
    fold = share / primary.rate if primary.rate > 0 else math.nan
    if primary.counted:
        low, high = koopman(hits, tested, primary.hits, primary.tested, confidence)
        method = "score interval of a ratio of two binomial rates (Koopman 1984)"
    else:
        low, high = (
            float(v) / primary.rate if primary.rate > 0 else math.inf for v in clopper_pearson(hits, tested, confidence)
        )
        method = "exact binomial interval over the primary rate, which is taken as known without error"
    known = [None if math.isnan(v) or math.isinf(v) else v for v in (fold, low, high)]
    return {"fold": known[0], "low": known[1], "high": known[2], "method": method}

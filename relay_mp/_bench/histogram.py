"""Latencies in nanoseconds, in logarithmic bins of 1.2 %: percentiles to 1 in 10,000 without keeping every sample."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from relay_mp._bench.bins import BINS_A_DECADE

PER_DECADE = 200
DECADES = 11  # 1 ns to 100 s
COARSE = PER_DECADE // BINS_A_DECADE  # so many of them are one bin of a row
PERCENTILES = {"median": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9, "p9999": 99.99}


class Histogram:
    """Counts of latencies, and the exact maximum."""

    def __init__(self, nanoseconds: NDArray[np.int64] | None = None) -> None:
        self.counts = np.zeros(PER_DECADE * DECADES, np.int64)
        self.maximum = 0
        if nanoseconds is not None:
            self.add(nanoseconds)

    def add(self, nanoseconds: NDArray[np.int64]) -> None:
        """Counts samples. What is below 1 ns, as after the clock's own time was taken off, counts as 1 ns."""
        if len(nanoseconds) == 0:
            return
        at_least_one = np.maximum(nanoseconds, 1)
        bins = (np.log10(at_least_one) * PER_DECADE).astype(np.int64)
        self.counts += np.bincount(np.minimum(bins, len(self.counts) - 1), minlength=len(self.counts))
        self.maximum = max(self.maximum, int(at_least_one.max()))

    def merge(self, other: Self) -> Self:
        """Adds another's samples."""
        self.counts += other.counts
        self.maximum = max(self.maximum, other.maximum)
        return self

    @property
    def count(self) -> int:
        return int(self.counts.sum())

    def percentile(self, percent: float) -> float:
        """In nanoseconds: the middle of the bin that holds it."""
        rank = np.searchsorted(np.cumsum(self.counts), max(self.count * percent / 100, 1))
        return min(float(10 ** ((rank + 0.5) / PER_DECADE)), float(self.maximum))

    def figures(self) -> dict[str, Any]:
        """Of a row: percentiles as far as there are samples for them, the maximum, and the coarse bins."""
        known = {
            name: percent
            for name, percent in PERCENTILES.items()
            if percent <= 90 or self.count * (100 - percent) >= 100
        }
        return {
            **{name: round(self.percentile(percent), 1) for name, percent in known.items()},
            "max": self.maximum,
            "count": self.count,
            "bins": self._coarse(),
        }

    def _coarse(self) -> dict[str, Any]:
        """{"first": the number of the first bin, "counts"}; bin n is from 10 ** (n / 20) ns on."""
        coarse = self.counts.reshape(-1, COARSE).sum(axis=1)
        used = np.flatnonzero(coarse)
        if len(used) == 0:
            return {"first": 0, "counts": []}
        return {"first": int(used[0]), "counts": coarse[used[0] : used[-1] + 1].tolist()}


def merged(histograms: list[Histogram]) -> Histogram:
    """All samples of all of them."""
    result = Histogram()
    for histogram in histograms:
        result.merge(histogram)
    return result

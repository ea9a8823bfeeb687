"""Percentiles out of bins are those of the samples, and are said only where there are enough of them."""

import numpy as np
import pytest

from relay_mp._bench.histogram import Histogram, merged


def test_histogram_agrees_with_numpy():
    samples = np.random.default_rng(1).lognormal(8, 2, 200_000).astype(np.int64) + 1
    histogram = merged([Histogram(samples[:1000]), Histogram(samples[1000:])])
    assert histogram.count == len(samples)
    assert histogram.maximum == samples.max()
    for percent in (1, 50, 90, 99, 99.9, 99.99):
        assert histogram.percentile(percent) == pytest.approx(np.percentile(samples, percent), rel=0.013)


def test_histogram_says_no_percentile_that_it_has_too_few_samples_for():
    figures = Histogram(np.arange(1, 100)).figures()
    assert "p99" not in figures
    assert figures["max"] == 99
    assert "p99" in Histogram(np.arange(1, 101)).figures()

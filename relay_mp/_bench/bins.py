"""The bins of a row, in which times of calls are counted: logarithmic, as an axis shows them."""

BINS_A_DECADE = 20
"""Bin n is from 10 ** (n / BINS_A_DECADE) nanoseconds on."""


def decade_name(decade: int) -> str:
    """Of 10 ** decade nanoseconds: "1 ns", "10 µs", "100 ms"."""
    thousands, rest = divmod(decade, 3)
    return f"{10**rest} {('ns', 'µs', 'ms', 's')[thousands]}"

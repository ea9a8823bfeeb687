"""Numbers as people read them, each with its unit."""

from collections.abc import Mapping

_SHORT = ((1_000_000, "s"), (1_000, "ms"))


def duration(microseconds: float) -> str:
    """Three digits: "850 µs", "12.3 ms", "1.50 s"; from a minute on "2 m 05 s", "3 h 07 m"."""
    if microseconds >= 60_000_000:
        minutes, seconds = divmod(round(microseconds / 1_000_000), 60)
        hours, rest = divmod(minutes, 60)
        return f"{hours} h {rest:02} m" if hours else f"{minutes} m {seconds:02} s"
    for size, unit in _SHORT:
        if microseconds >= size * 0.9995:
            return f"{_three_digits(microseconds / size)} {unit}"
    return f"{_three_digits(microseconds) if microseconds % 1 else int(microseconds)} µs"


def _three_digits(value: float) -> str:
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"


def count(number: float) -> str:
    """With separators: "1,234,567"."""
    return f"{number:,.0f}"


def size(number_bytes: float) -> str:
    """ "512 B", "1.50 KiB", "16.0 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number_bytes < 1023.5 or unit == "GiB":
            break
        number_bytes /= 1024
    return f"{number_bytes:.0f} B" if unit == "B" else f"{_three_digits(number_bytes)} {unit}"


def money(costs: Mapping[str, float]) -> str:
    """Of each currency the sum: "$0.0123"; "" of nothing."""
    return ", ".join(
        f"${total:,.4f}" if currency == "USD" else f"{total:,.4f} {currency}" for currency, total in costs.items()
    )


def plural(number: int, one: str, many: str = "") -> str:
    """ "1 event", "2,000 events"."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"

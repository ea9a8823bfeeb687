"""A recorded run for a command: read with progress, and with a word on what could not be read."""

from collections.abc import Iterator, Sequence

from relay_mp import pricing
from relay_mp._runs.reading import RecordedEvent, Recording
from relay_mp._runs.run import Run
from relay_mp.cli.exits import CommandError, Exit
from relay_mp.cli.progress import Progress
from relay_mp.cli.terminal import Terminal
from relay_mp.cli.units import plural

PRICES_HELP = "a table of prices, or genai-prices: for calls whose provider reports no cost (default: RELAY_MP_PRICES)"


def set_prices(source: str | None) -> None:
    """Prices for this command, where they are given.

    Raises:
        ConfigurationError: the table cannot be read.
    """
    if source is not None:
        pricing.configure(source)


def events_of(paths: Sequence[str], terminal: Terminal) -> Iterator[RecordedEvent]:
    """The events of files, one after another.

    Raises:
        OSError: a file cannot be read.
        CommandError: there is not a single event in them.
    """
    recording = Recording(paths)
    count = 0
    with Progress(terminal, f"reading {_named(recording.paths)}", recording.size_bytes) as progress:
        recording.on_progress = progress.update
        for event in recording:
            count += 1
            yield event
    bad = recording.bad
    if not count:
        found = f"{plural(bad.count, 'line')}, the first {bad.first[0]}" if bad.count else "it is empty"
        raise CommandError(
            Exit.INPUT,
            f"there is no event in {_named(recording.paths)} ({found}); expected ATOF JSON lines, as "
            "relay_mp.AtofExporter writes them",
        )
    if bad.count:
        are = "is not an event" if bad.count == 1 else "are not events"
        terminal.note(f"{plural(bad.count, 'line')} {are} and left out; the first: {bad.first[0]}")


def load(paths: Sequence[str], terminal: Terminal) -> Run:
    """The run that is in files; see `events_of`."""
    return Run.of(events_of(paths, terminal))


def _named(paths: Sequence[str]) -> str:
    named = "standard input" if paths[0] == "-" else paths[0]
    return named if len(paths) == 1 else f"{named} and {plural(len(paths) - 1, 'other file')}"

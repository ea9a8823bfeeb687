"""Exporters of components: installed, exchanged for others, waited for, and told of in reports.

    one configuration ──▶ another: alike in both    goes on, and loses or doubles no event
                                   else             ends, flushed; begins; at one place in the stream

They are the session's, and run where its dispatcher runs: the session's owner alone installs and removes them.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from relay_mp._deliver.replacement import Named
from relay_mp._deliver.reports import FAILING, ExporterReport
from relay_mp._log import logger
from relay_mp._native import core
from relay_mp._plugins.context import ExporterSpec
from relay_mp._session.exporting import FLUSH_TIMEOUT_SECONDS, is_closed, wait, wait_async
from relay_mp._session.membership import current_session
from relay_mp._session.session import Session
from relay_mp.errors import FlushError, FlushTimeoutError, RelayError
from relay_mp.types import JsonObject

__all__ = ["await_ended", "await_ended_async", "described", "exchange", "lost", "reports", "troubles"]


Trouble = tuple[str, str, str, int, str]
"""Of a runtime diagnostic: code, component, message, count, field."""


def _definition(spec: ExporterSpec) -> Named:
    return Named(spec.name, spec.target, spec.arguments)


def exchange(session: Session | None, old: Sequence[ExporterSpec], new: Sequence[ExporterSpec]) -> list[ExporterSpec]:
    """Ends exporters, and begins others; those that are alike go on.

    Returns:
        Those that end and have no successor of their name.

    Raises:
        SubscriberError, SessionError, FlushTimeoutError: see Session.replace.
    """
    if session is None or not session.is_open or not session.is_owner:
        return []
    running = {spec.name: _definition(spec) for spec in old}
    wanted = {spec.name: _definition(spec) for spec in new}
    removed = [name for name, definition in running.items() if wanted.get(name) != definition]
    added = [definition for name, definition in wanted.items() if running.get(name) != definition]
    for spec in new:
        if spec.name not in running:
            _prepare(spec)
    if removed or added:
        session.replace(removed, added)
    return [spec for spec in old if spec.name not in wanted]


def _prepare(spec: ExporterSpec) -> None:
    try:
        if spec.prepare is not None:
            spec.prepare()
    except (OSError, RelayError) as error:
        logger.info("exporter %s may not be able to start: %s", spec.local_name, error)


# ------------------------------------------------------------------------------------------------ waiting


def _session_to_wait_in(ended: Sequence[ExporterSpec]) -> Session | None:
    session = current_session()
    usable = ended and session is not None and session.is_open and not core.is_dispatching()
    return session if usable else None


def await_ended(ended: Sequence[ExporterSpec]) -> None:
    """Returns when they have exported all they were given, or at the deadline. Inside a callback, at once."""
    session = _session_to_wait_in(ended)
    if session is not None:
        deadline = time.monotonic() + FLUSH_TIMEOUT_SECONDS
        try:
            session.flush(FLUSH_TIMEOUT_SECONDS)
            wait(session, [spec.name for spec in ended], deadline, is_closed)
        except (FlushError, FlushTimeoutError) as error:
            logger.warning("exporters that end have not all been waited for: %s", error)


async def await_ended_async(ended: Sequence[ExporterSpec]) -> None:
    """`await_ended` for a running event loop."""
    session = _session_to_wait_in(ended)
    if session is not None:
        deadline = time.monotonic() + FLUSH_TIMEOUT_SECONDS
        try:
            await session.flush_async(FLUSH_TIMEOUT_SECONDS)
            await wait_async(session, [spec.name for spec in ended], deadline, is_closed)
        except (FlushError, FlushTimeoutError) as error:
            logger.warning("exporters that end have not all been waited for: %s", error)


# ------------------------------------------------------------------------------------------------ reports


def reports(session: Session | None, specs: Sequence[ExporterSpec]) -> dict[str, ExporterReport]:
    """What they say of themselves, by the name they are registered under."""
    if session is None or not specs:
        return {}
    try:
        found = session.exporter_reports()
    except RelayError:  # this process has left the session
        return {}
    return {spec.name: found[spec.name] for spec in specs if spec.name in found}


def described(specs: Sequence[ExporterSpec], found: Mapping[str, ExporterReport]) -> dict[str, JsonObject]:
    """The reports as JSON objects, by the component's own name for the exporter."""
    return {spec.local_name: _described(spec, found[spec.name]) for spec in specs if spec.name in found}


def _described(spec: ExporterSpec, report: ExporterReport) -> JsonObject:
    more: dict[str, Any] = {"subscriber": spec.name, "field": spec.field}
    return {**more, **report.to_dict(), "dropped": report.dropped, "lost": report.lost}


def troubles(specs: Sequence[ExporterSpec], found: Mapping[str, ExporterReport]) -> Iterator[Trouble]:
    """What there is to say against them now."""
    for spec in specs:
        report, kind = found.get(spec.name), spec.kind
        if report is None:
            message = f"{spec.local_name} is not installed: the session's owner, another process, has not configured it"
            yield f"{kind}.exporter_not_installed", kind, message, 1, spec.field
            continue
        if report.state == FAILING:
            message = f"{spec.local_name}: {report.last_error}"
            yield f"{kind}.exporter_failing", kind, message, report.failures, spec.field
        yield from _losses(spec, report)


def lost(ended: Sequence[ExporterSpec]) -> Iterator[Trouble]:
    """What those that have ended have lost."""
    found = reports(current_session(), ended)
    for spec in ended:
        if spec.name in found:
            yield from _losses(spec, found[spec.name])


def _losses(spec: ExporterSpec, report: ExporterReport) -> Iterator[Trouble]:
    if report.lost:
        causes = {**report.drops, **({"unconfirmed": report.unconfirmed} if report.unconfirmed else {})}
        listed = ", ".join(f"{cause} {count}" for cause, count in causes.items())
        yield f"{spec.kind}.events_lost", spec.kind, f"{spec.local_name}: {listed}", report.lost, spec.field

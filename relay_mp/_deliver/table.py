"""The table of subscribers in the segment: what a successor of the dispatcher needs, and what all may read.

Two things in one: the registrations of named subscribers, from which a dispatcher process that is
started again makes them anew, and the reports of exporters, for `session.stats()` in any process. A list
of rows: one a registration, and one of three fields, ["reports", events delivered so far, reports by name].

The segment is not trusted: what is not a row is passed over, for an error would end each successor too.
"""

from typing import Any

import msgpack  # type: ignore[import-untyped]

from relay_mp._deliver import named
from relay_mp._deliver.absent import Absent
from relay_mp._deliver.allowed import Allowed
from relay_mp._deliver.reports import CLOSED, ExporterReport
from relay_mp._deliver.subscriptions import Subscription, Subscriptions
from relay_mp._log import logger
from relay_mp._native.segments import Segment
from relay_mp.errors import SubscriberError

_READS = 3
"""A reader that is overtaken by two writes finds neither copy whole; it looks again."""

_ROW_FIELDS = 7
_REPORTS = "reports"
_PROCESS_LIMITS = 1 << 32, 1 << 64, 1 << 64  # pid, start time, pid namespace


def save(segment: Segment, subscriptions: Subscriptions, *, has_successor: bool = True) -> None:
    """Writes the table. Registrations are left out if nobody would take them over.

    Raises:
        SessionError: it does not fit.
    """
    rows: list[list[Any]] = [
        [s.name, s.target, s.arguments, s.scope, s.since, s.until, s.process]
        for s in subscriptions.all()
        if s.target and has_successor
    ]
    read_position = segment.read_pos
    if not has_successor or all(s.taken <= read_position for s in subscriptions.all()):
        subscriptions.saved_reports = segment.events_delivered if has_successor else 0, subscriptions.reports()
    # else: what a successor will deliver is among their counts already; those of before go with what was delivered then
    delivered, reports = subscriptions.saved_reports
    if reports:
        rows.append([_REPORTS, delivered, {name: report.to_dict() for name, report in reports.items()}])
    segment.store_subscriptions(msgpack.packb(rows))


def restore(segment: Segment, subscriptions: Subscriptions, allowed: Allowed | None = None) -> None:
    """Takes over the registrations that an earlier dispatcher has left, as far as `allowed` has them (default:
    anything). What is not allowed is told in the log. What cannot be made again is Absent."""
    allowed = allowed or Allowed()
    rows = _rows(segment)
    reports = _after_kill(segment, rows)
    rows = [row for row in rows if not _is_reports(row)]
    found, damaged = [], sum(not _is_row(row) for row in rows)
    if damaged:
        logger.error("the table of named subscribers is damaged: %d of its rows are passed over", damaged)
    for name, target, arguments, scope, since, until, process in filter(_is_row, rows):
        try:
            allowed.require(target, arguments)
        except SubscriberError:
            logger.exception("subscriber %r is not there any more after a restart of the dispatcher", name)
            continue
        try:
            callback = named.resolve(target, arguments)
        except SubscriberError as error:
            logger.exception("subscriber %r could not be made again after a restart of the dispatcher", name)
            callback = Absent(name, target, arguments, str(error), is_exporter=name in reports)
        owner = tuple(process) if process else None
        found.append(Subscription(name, callback, scope, since, until, target, arguments, process=owner))
    subscriptions.restore(found, reports)
    subscriptions.saved_reports = segment.events_delivered, subscriptions.reports()


def _after_kill(segment: Segment, rows: list[Any]) -> dict[str, ExporterReport]:
    delivered, reports = _reports(rows)
    # A dispatcher that is a thread has no successor, and saves no number.
    since = max(segment.events_delivered - delivered, 0) if reports and segment.dispatcher_is_process else 0
    return {name: r if r.state == CLOSED else r.after_kill(since) for name, r in reports.items()}


def load_reports(segment: Segment) -> dict[str, ExporterReport]:
    """The exporters' reports as last published, by subscriber's name. Any process."""
    return _reports(_rows(segment))[1]


def load_last_reports(segment: Segment) -> dict[str, ExporterReport]:
    """The same once the dispatcher has ended: what an exporter still had then is not confirmed any more."""
    return _after_kill(segment, _rows(segment))


def _rows(segment: Segment) -> list[Any]:
    for _ in range(_READS):
        table = segment.load_subscriptions()
        if table:
            try:
                rows = msgpack.unpackb(table)
            except ValueError:
                return [None]
            return rows if isinstance(rows, list) else [None]
    return []


def _is_row(row: Any) -> bool:
    if not isinstance(row, list) or len(row) != _ROW_FIELDS:
        return False
    name, target, arguments, scope, since, until, process = row
    return (
        isinstance(name, str)
        and isinstance(target, str)
        and (arguments is None or isinstance(arguments, dict))
        and (scope is None or isinstance(scope, bytes))
        and type(since) is int
        and type(until) is int
        and (process is None or _is_process(process))
    )


def _is_process(found: Any) -> bool:
    return (
        isinstance(found, list)
        and len(found) == 3
        and all(
            type(number) is int and 0 <= number < limit for number, limit in zip(found, _PROCESS_LIMITS, strict=True)
        )
    )


def _is_reports(row: Any) -> bool:
    return (
        isinstance(row, list)
        and len(row) == 3
        and row[0] == _REPORTS
        and type(row[1]) is int
        and isinstance(row[2], dict)
        and all(isinstance(name, str) and isinstance(report, dict) for name, report in row[2].items())
    )


def _reports(rows: list[Any]) -> tuple[int, dict[str, ExporterReport]]:
    for row in rows:
        if _is_reports(row):
            return row[1], {name: ExporterReport.from_dict(report) for name, report in row[2].items()}
    return 0, {}

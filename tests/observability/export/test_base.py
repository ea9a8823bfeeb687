"""What all exporters share: kinds, reports, bounds, retries."""

import threading

import pytest
from receiver import WAIT_SECONDS

import relay_mp
from relay_mp import AtofExporter, AtofExporterConfig, scope
from relay_mp._deliver.reports import ExporterReport
from relay_mp._deliver.subscriptions import Subscription, Subscriptions
from relay_mp.observability import Exporter, exporter
from relay_mp.observability.component import config as component_config
from relay_mp.observability.export.batch_queue import BatchQueue, Limits, Retryable, TooLarge
from relay_mp.observability.export.sink import Sink

BOTH = pytest.mark.parametrize("session", ["thread", "process"], indirect=True)


# ---- kinds ----


@BOTH
def test_an_exporter_is_found_by_its_kind(session, tmp_path):
    found = exporter("atof_file", path=str(tmp_path / "e.jsonl"))
    found.register("x")
    scope.event("m")
    assert found.force_flush() is True
    assert found.report()["x"].exported == 1
    found.shutdown()
    assert len((tmp_path / "e.jsonl").read_text().splitlines()) == 1


def test_an_unknown_kind_says_which_there_are(session):
    with pytest.raises(relay_mp.SubscriberError, match="no exporter 'nope'; there are atif, atof_file, atof_stream, o"):
        exporter("nope").register("x")


@pytest.mark.parametrize("sink", ["names:Names", ("names:Names",), ("names:Names", ["out.txt"]), (len, {})])
def test_a_sink_that_is_not_a_pair_is_refused_with_an_example(sink):
    with pytest.raises(TypeError, match="a sink is .*; expected a pair of its factory and its arguments, such as"):
        Exporter([("names:Names", {}), sink])


@pytest.mark.parametrize(
    "config",
    [
        AtofExporterConfig(),
        relay_mp.OpenTelemetryConfig("full"),
        relay_mp.OpenTelemetryLogConfig(),
        relay_mp.OpenTelemetryMetricConfig(),
        Limits(),
        relay_mp.plugin.PluginConfig(),
        component_config.ObservabilityConfig(),
        component_config.ComponentSpec({}),
        component_config.ConfigPolicy(),
        component_config.AtofConfig(),
        component_config.AtofFileSinkConfig(),
        component_config.AtofStreamSinkConfig("http://127.0.0.1:1"),
        component_config.AtifConfig(),
        component_config.HttpStorageConfig("http://127.0.0.1:1"),
        component_config.PerfettoConfig(),
        component_config.PrometheusConfig(),
        component_config.ExporterConfig("perfetto"),
        component_config.OpenTelemetrySectionConfig(),
        component_config.OpenTelemetryEndpointConfig("full", ""),
        component_config.OpenTelemetryLogSectionConfig(),
        component_config.OpenTelemetryMetricSectionConfig(),
        component_config.OpenTelemetrySignalEndpointConfig(""),
    ],
    ids=lambda config: type(config).__name__,
)
def test_a_misspelt_attribute_of_a_configuration_is_refused(config):
    with pytest.raises(AttributeError, match="file_name"):
        config.file_name = "events.jsonl"


def test_a_kind_may_be_any_installed_packages(session, tmp_path, monkeypatch):
    package = tmp_path / "acme-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[relay_mp.exporters]\nacme = acme_exporter:make\n")
    code = "seen = []\ndef make(start):\n    return lambda event: seen.append(start)\n"
    (tmp_path / "acme_exporter.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = exporter("acme", start=7)
    found.register("x")
    scope.event("m")
    found.force_flush()
    found.shutdown()
    import acme_exporter

    assert acme_exporter.seen == [7]
    assert session.stats().exporters == {}  # a plain callback has nothing to report


def test_the_rest_is_registered_or_none(session, tmp_path):
    scope_taken = exporter("atof_file", path=str(tmp_path / "0.jsonl"))
    scope_taken.register("x.2")
    configs = []
    for n in (1, 2):
        config = AtofExporterConfig()
        config.output_directory, config.filename = str(tmp_path), f"{n}.jsonl"
        configs.append(config)
    with pytest.raises(relay_mp.SubscriberError, match=r"'x\.2' is already registered"):
        AtofExporter(configs).register("x")
    scope_taken.shutdown()
    assert session._segment.subscribers == 0


# ---- reports ----


def test_a_worker_sees_the_reports(session, tmp_path, run_script):
    found = exporter("atof_file", path=str(tmp_path / "e.jsonl"))
    found.register("x")
    scope.event("m")
    found.force_flush()
    out = run_script(
        "import sys, relay_mp; print(relay_mp.attach(sys.argv[1]).stats().exporters['x'].exported)", session.path
    ).stdout
    assert out == "1\n"
    found.shutdown()


@BOTH
def test_a_report_stays_after_the_end_and_goes_on_under_the_same_name(session, tmp_path):
    for n in (1, 2):
        found = exporter("atof_file", path=str(tmp_path / f"{n}.jsonl"))
        found.register("x")
        scope.event("m")
        found.shutdown()
        report = session.stats().exporters["x"]
        assert (report.state, report.exported) == ("closed", n)


@BOTH
def test_an_exporter_of_the_same_name_that_was_given_nothing_ends_at_once(session, tmp_path, caplog):
    """Its last report is the same as that of its predecessor, and yet it is published."""
    for _ in range(5):
        found = exporter("atof_file", path=str(tmp_path / "e.jsonl"))
        found.register("x")
        found.shutdown()
        assert session.stats().exporters["x"].state == "closed"
    assert "has not sent everything in time" not in caplog.text


class Reporting:
    """An exporter's sink that says what it has taken."""

    taken = 0

    def __call__(self, event):
        raise NotImplementedError

    def report(self):
        return ExporterReport(taken=self.taken, exported=self.taken)


def test_a_report_that_could_not_be_saved_is_published_later_though_it_has_not_changed():
    """While a callback has taken events ahead, what is saved are the reports of before."""
    published = []
    is_ahead = False

    def save():
        if not is_ahead:
            subscriptions.saved_reports = 0, subscriptions.reports()
        published.append(subscriptions.saved_reports[1]["x"].taken)

    subscriptions = Subscriptions(lambda subscribers, scope_locals: None, save)
    sink = Reporting()
    subscriptions.add(Subscription("x", sink, None, target="m:Reporting", arguments={}), lambda: 0)
    sink.taken, is_ahead = 5, True
    subscriptions.publish_reports()
    assert published[-1] == 0
    is_ahead = False
    subscriptions.publish_reports()
    assert published[-1] == 5
    saved = len(published)
    subscriptions.publish_reports()
    assert len(published) == saved


def test_reports_add_up():
    earlier = ExporterReport(taken=5, exported=3, drops={"full": 2}, failures=1, last_error="old")
    now = ExporterReport(taken=4, exported=2, drops={"full": 1, "refused": 1}, queued=1)
    both = now.after(earlier)
    assert (both.taken, both.exported, both.dropped, both.failures, both.queued) == (9, 5, 4, 1, 0 + now.queued)
    assert both.drops == {"full": 3, "refused": 1}
    assert both.last_error == "old"
    assert ExporterReport.from_dict({**both.to_dict(), "of a later version": 1}) == both


@pytest.mark.parametrize(("buffers", "exported", "unconfirmed"), [(True, 5, 6), (False, 9, 0)])
def test_what_a_killed_dispatcher_had_is_accounted_for(buffers, exported, unconfirmed):
    report = ExporterReport(taken=7 if buffers else 5, exported=5, queued=2, buffers=buffers).after_kill(4)
    assert (report.exported, report.unconfirmed, report.queued) == (exported, unconfirmed, 0)
    assert report.taken == exported + unconfirmed


# ---- queue ----


class Counting(Sink):
    """A sink whose events are put by the test."""

    def take(self, queue, payload, size_bytes=1):
        self._counts.taken += 1
        return queue.put(payload, size_bytes)


QUICK = {"retry_initial_seconds": 0.001, "retry_max_seconds": 0.002, "schedule_delay_seconds": 0.0}


@pytest.fixture
def make_queue():
    made = []

    def make(send, **limits):
        sink = Counting()
        queue = BatchQueue(sink, send, Limits(**{**QUICK, **limits}))
        made.append(queue)
        return sink, queue

    yield make
    for queue in made:
        queue.close()


class Latch:
    """A receiver that holds its first batch until it is opened."""

    def __init__(self):
        self.entered, self.open = threading.Event(), threading.Event()
        self.batches = []

    def __call__(self, batch, _seconds):
        self.batches.append(list(batch))
        self.entered.set()
        assert self.open.wait(WAIT_SECONDS)


def test_the_queue_is_bounded_in_items(make_queue):
    latch = Latch()
    sink, queue = make_queue(latch, max_queue_items=3)
    sink.take(queue, 0)
    assert latch.entered.wait(WAIT_SECONDS)
    assert [sink.take(queue, n) for n in range(1, 5)] == [True, True, False, False]
    assert sink.report().drops == {"full": 2}
    latch.open.set()
    queue.close()
    assert latch.batches == [[0], [1, 2]]
    assert sink.report().exported == 3


def test_the_queue_is_bounded_in_bytes(make_queue):
    latch = Latch()
    sink, queue = make_queue(latch, max_queue_bytes=10)
    sink.take(queue, 0, 4)
    assert latch.entered.wait(WAIT_SECONDS)
    assert [sink.take(queue, n, 3) for n in range(3)] == [True, True, False]
    latch.open.set()


def test_of_things_that_are_queued_at_once_each_counts_by_itself(make_queue):
    latch = Latch()
    sink, queue = make_queue(latch, max_queue_items=4, max_queue_bytes=10)
    sink.take(queue, 0)
    assert latch.entered.wait(WAIT_SECONDS)
    sink._counts.taken += 6
    # The second is too long, the fourth fits again, for the fifth there is no place.
    sizes = [("a", 3), ("b", 7), ("c", 3), ("d", 2), ("e", 1)]
    assert queue.put_all([(name, n, size, n) for n, (name, size) in enumerate(sizes, 1)]) == 3
    assert sink.report().drops == {"full": 2 + 5}
    latch.open.set()
    queue.close()
    assert latch.batches == [[0], ["a", "c", "d"]]
    assert queue.put_all([("f", 1, 1, 1)]) == 0  # it is finished


@pytest.mark.parametrize("puts", [[3], [1, 2], [2, 1], [1, 1, 1], [4]])
def test_a_batch_that_is_full_is_sent_at_once(make_queue, puts):
    latch = Latch()
    latch.open.set()
    sink, queue = make_queue(latch, max_batch_items=3, schedule_delay_seconds=3600.0)
    for count in puts:
        assert not latch.batches
        sink._counts.taken += count
        assert queue.put_all([(n, 1, 1, 0) for n in range(count)]) == count
    assert latch.entered.wait(WAIT_SECONDS)
    queue.close()
    assert sum(map(len, latch.batches)) == sink.report().exported == sum(puts)


@pytest.mark.parametrize("sizes", [[60, 60], [30, 30, 90]])
def test_a_batch_that_is_full_in_bytes_is_sent_at_once(make_queue, monkeypatch, sizes):
    latch, gathering = Latch(), threading.Event()
    latch.open.set()
    sink, queue = make_queue(latch, max_batch_bytes=100, schedule_delay_seconds=3600.0)
    wait = queue._changed.wait

    def say(seconds=None):
        if seconds is not None:
            gathering.set()
        return wait(seconds)

    monkeypatch.setattr(queue._changed, "wait", say)
    for n, size in enumerate(sizes):
        assert not latch.batches
        assert sink.take(queue, n, size)
        assert n or gathering.wait(WAIT_SECONDS)
    assert latch.entered.wait(WAIT_SECONDS)


@pytest.mark.parametrize(
    ("limits", "batches"), [({"max_batch_items": 2}, [[1, 2], [3, 4]]), ({"max_batch_bytes": 3}, [[1, 2, 3], [4]])]
)
def test_batches_are_bounded(make_queue, limits, batches):
    latch = Latch()
    sink, queue = make_queue(latch, **limits)
    sink.take(queue, 0)
    assert latch.entered.wait(WAIT_SECONDS)
    for n in range(1, 5):
        sink.take(queue, n)
    latch.open.set()
    queue.close()
    assert latch.batches == [[0], *batches]


def test_what_is_flushed_is_in_order(make_queue):
    latch = Latch()
    sink, queue = make_queue(latch)
    sink.take(queue, 0)
    assert latch.entered.wait(WAIT_SECONDS)
    sink.take(queue, 1)
    assert queue.flushed(sink.taken) == 0
    latch.open.set()
    queue.close()
    assert queue.flushed(sink.taken) == 2


def test_an_item_takes_more_events_while_it_waits(make_queue):
    latch = Latch()
    sink, queue = make_queue(latch)
    assert not queue.add()
    sink.take(queue, 0)
    assert latch.entered.wait(WAIT_SECONDS)
    assert not queue.add()  # it is on its way
    for n in (1, 2):
        sink.take(queue, n)
    sink._counts.taken += 1
    assert queue.add()
    assert queue.flushed(sink.taken) == 0
    latch.open.set()
    queue.close()
    assert latch.batches == [[0], [1, 2]]
    assert (sink.report().exported, queue.flushed(sink.taken)) == (4, 4)


def test_an_item_without_events_is_waited_for_by_nobody(make_queue):
    latch = Latch()
    latch.open.set()
    sink, queue = make_queue(latch, schedule_delay_seconds=3600.0)
    sink._counts.taken = 5
    queue.put("quiet", 0, events=0)
    queue.request_flush()
    assert queue.flushed(sink.taken) == 5
    sink._counts.taken += 1
    assert queue.add()
    assert queue.flushed(sink.taken) == 5
    queue.request_flush()
    assert latch.entered.wait(WAIT_SECONDS)
    queue.close()
    assert (latch.batches, sink.report().exported, queue.flushed(sink.taken)) == ([["quiet"]], 1, 6)


def test_retries_end_at_their_deadline(make_queue):
    attempts = []

    def send(batch, seconds):
        attempts.append(seconds)
        raise Retryable("busy")

    sink, queue = make_queue(send, retry_deadline_seconds=0.05, timeout_seconds=60.0)
    sink.take(queue, 0)
    while sink.report().queued:
        threading.Event().wait(0.001)
    report = sink.report()
    assert report.drops == {"deadline": 1}
    assert report.failures == len(attempts) >= 2
    assert max(attempts) <= 0.05  # no attempt may take longer than what is left
    assert (report.state, report.last_error) == ("failing", "Retryable: busy")


def test_what_is_too_large_goes_in_halves_and_alone_is_given_up():
    """In their order, behind one another; what fails for the moment in between is only repeated."""
    sent, given_up = [], []
    troubles = [Retryable("busy"), OSError("gone")]

    def send(batch, _seconds):
        if sum(batch) > 10:
            raise TooLarge(f"{sum(batch)} of 10")
        if troubles:
            raise troubles.pop()
        sent.append(batch)

    sink, limits = Counting(), Limits(**{**QUICK, "schedule_delay_seconds": WAIT_SECONDS})
    queue = BatchQueue(sink, send, limits, given_up=given_up.append)
    for number in [4, 6, 11, 1, 10, 3, 4, 3]:
        sink.take(queue, number, number)
    queue.close()
    report = sink.report()
    assert sent == [[4, 6], [1], [10], [3], [4, 3]]
    assert given_up == [11]
    assert (report.exported, report.drops) == (7, {"too_large": 1})


def test_a_queue_puts_no_more_into_a_batch_than_half_of_what_was_too_large(make_queue):
    sent = []

    def send(batch, _seconds):
        if sum(batch) > 10:
            raise TooLarge("more than 10")
        sent.append(batch)

    sink, queue = make_queue(send, schedule_delay_seconds=WAIT_SECONDS)
    for number in range(30):
        sink.take(queue, 2, 2)
        if number in (5, 29):
            queue.request_flush()
            while queue.flushed(sink.taken) < sink.taken:
                threading.Event().wait(0.001)
    assert sent == [[2] * 3] * 10
    assert sink.report().failures == 1


def test_what_send_raises_by_mistake_is_a_refusal_and_the_thread_lives(make_queue):
    sent = []

    def send(batch, _seconds):
        if batch == [0]:
            raise KeyError("bug")
        sent.extend(batch)

    sink, queue = make_queue(send, max_batch_items=1)
    sink.take(queue, 0)
    sink.take(queue, 1)
    queue.close()
    assert sent == [1]
    assert sink.report().drops == {"refused": 1}


@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("max_queue_items", 0, ValueError, "max_queue_items is 0; expected 1 to"),
        ("max_batch_bytes", 1.5, TypeError, "max_batch_bytes is 1.5; expected an int"),
        ("timeout_seconds", -1, ValueError, "timeout_seconds is -1; expected 0 to"),
        ("timeout_seconds", float("nan"), ValueError, "timeout_seconds is nan"),
        ("retry_max_seconds", "1", TypeError, "retry_max_seconds is '1'; expected a number of seconds"),
    ],
)
def test_a_bound_that_is_none_is_refused(name, value, error, said):
    with pytest.raises(error, match=said):
        Limits(**{name: value})

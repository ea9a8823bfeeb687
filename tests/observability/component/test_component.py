"""The observability component: all exporters from one configuration, none of which can harm another."""

import asyncio
import json
import logging
import os
import re
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

import agents
import psutil
import pytest
from otlp_receiver import PROTOCOLS, OtlpReceiver
from receiver import WAIT_SECONDS, Receiver, closed_port

import relay_mp
from relay_mp import PluginError, ScopeType, plugin, scope, subscribers
from relay_mp._plugins import files
from relay_mp.observability import (
    AtifConfig,
    AtofConfig,
    AtofFileSinkConfig,
    AtofStreamSinkConfig,
    ComponentSpec,
    ExporterConfig,
    HttpStorageConfig,
    ObservabilityConfig,
    OpenTelemetryEndpointConfig,
    OpenTelemetryLogSectionConfig,
    OpenTelemetryMetricSectionConfig,
    OpenTelemetrySectionConfig,
    PerfettoConfig,
    PrometheusConfig,
)
from relay_mp.observability.export import checks
from relay_mp.observability.export.findings import Where

BOTH = pytest.mark.parametrize("session", ["thread", "process"], indirect=True)
QUICK = {
    "retry_initial_seconds": 0.001,
    "retry_max_seconds": 0.002,
    "schedule_delay_seconds": 0.0,
    "shutdown_timeout_seconds": 0.1,
}


@pytest.fixture(autouse=True)
def _own_configuration(tmp_path, monkeypatch, session):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(files, "SYSTEM_FILE", tmp_path / "etc" / "plugins.toml")
    monkeypatch.chdir(tmp_path)
    yield
    if session.is_open:
        plugin.clear()


def activate(**sections):
    return plugin.activate(plugin.PluginConfig(components=[ComponentSpec(ObservabilityConfig(**sections))]))


def atof(*sinks):
    return AtofConfig(enabled=True, sinks=list(sinks))


def file(filename, **settings):
    return AtofFileSinkConfig(filename=filename, **settings)


def names(path):
    return [json.loads(line)["name"] for line in Path(path).read_text().splitlines()]


def report():
    """Of the exporters by name, all that they were given counted: flushed, and asked to flush."""
    session = relay_mp._session.membership.current_session()
    subscribers.flush()
    for each in (plugin.report() or {}).get("exporters", {}).values():
        session.request_exporter_flush(each["subscriber"])
    return plugin.report()


def exporters():
    return report()["exporters"]


def codes():
    return {(each["code"], each.get("field")) for each in report()["runtime_diagnostics"]}


def await_state(name, state):
    """Waits for an exporter that tries again."""
    for _ in range(WAIT_SECONDS * 100):
        found = exporters()[name]
        if found["state"] == state:
            return found
        asyncio.run(asyncio.sleep(0.01))
    raise AssertionError(f"{name} is not {state}: {found}")


# ---- every section ----


@BOTH
def test_every_section_exports_the_stream(session, tmp_path):
    with Receiver() as stream, Receiver() as storage:
        activate(
            atof=atof(file("events.jsonl"), AtofStreamSinkConfig(stream.url, transport="ndjson")),
            atif=AtifConfig(True, output_directory="atif", storage=[HttpStorageConfig(storage.url)]),
            perfetto=PerfettoConfig(True, path="trace.json"),
            prometheus=PrometheusConfig(True),
            exporters=[ExporterConfig("atof_file", {"path": str(tmp_path / "more.jsonl")}, name="more")],
        )
        agents.work(0, 2)
        expected = 2 * agents.EVENTS_PER_AGENT
        found = exporters()
        assert {name.split(":")[0] for name in found} == {"atof", "atif", "perfetto", "prometheus", "more"}
        (place,) = [each["place"] for each in found.values() if each["place"]]
        with urllib.request.urlopen(place, timeout=WAIT_SECONDS) as metrics:
            assert b"relay_mp_scopes_started" in metrics.read()
        plugin.clear()
        assert len(names("events.jsonl")) == len(names("more.jsonl")) == len(stream.names) == expected
        assert len(list((tmp_path / "atif").iterdir())) == len(storage.bodies) == 2
        assert json.loads((tmp_path / "trace.json").read_text())
    stats = session.stats().exporters
    assert len(stats) == 7  # ATIF has two: files, and storage
    assert all(each.state == "closed" and each.lost == 0 and each.taken == expected for each in stats.values())
    assert session._segment.subscribers == 0
    assert plugin.report() is None


def test_a_disabled_section_and_a_disabled_component_export_nothing(session):
    activate(atof=AtofConfig(False, [file("a.jsonl")]), exporters=[ExporterConfig("atof_file", {}, enabled=False)])
    assert exporters() == {}
    config = ObservabilityConfig(atof=atof(file("a.jsonl")))
    plugin.activate({"components": [ComponentSpec(config, enabled=False).to_dict()]})
    assert exporters() == {}
    assert not Path("a.jsonl").exists()


def test_report_and_statistics_say_the_same(session):
    activate(atof=atof(file("a.jsonl", name="mine")))
    scope.event("m")
    (found,) = exporters().items()
    name, told = found
    assert name == "atof:mine"
    assert told["subscriber"] == "relay-mp-plugin.v1.observability:1:atof:mine"
    assert told["field"] == "atof.sinks[0]"
    counted = session.stats().exporters[told["subscriber"]]
    assert {key: told[key] for key in counted.to_dict()} == counted.to_dict()
    assert (told["state"], told["taken"], told["exported"], told["dropped"], told["lost"]) == ("running", 1, 1, 0, 0)


def test_overwriting_happens_once(session):
    Path("a.jsonl").write_text('{"atof_version":"0.1","name":"old"}\n')
    activate(atof=atof(file("a.jsonl", mode="overwrite")))
    scope.event("1")
    activate(atof=atof(file("a.jsonl", mode="overwrite"), file("b.jsonl")))
    scope.event("2")
    activate(atof=atof(file("a.jsonl", mode="overwrite", fsync="flush"), file("b.jsonl")))  # changed: goes on behind
    scope.event("3")
    plugin.clear()
    assert names("a.jsonl") == ["1", "2", "3"]


def test_a_file_of_configuration_as_a_new_user_writes_it(session, tmp_path):
    path = tmp_path / "plugins.toml"
    path.write_text(
        """
        [[components]]
        kind = "observability"

        [components.config.atof]
        enabled = true

        [[components.config.atof.sinks]]
        type = "file"
        filename = "events.jsonl"
        rotated = 3

        [components.config.perfetto]
        enabled = true
        path = "trace.json"
        """
    )
    found = asyncio.run(plugin.initialize({}, path))
    assert [(each["code"], each.get("field")) for each in found["diagnostics"]] == [
        ("observability.unknown_field", "sinks[0].rotated"),
    ]
    scope.event("m")
    plugin.clear()
    assert names("events.jsonl") == ["m"]
    assert json.loads(Path("trace.json").read_text())


def test_code_and_file_together_are_one_configuration(session, tmp_path):
    path = tmp_path / "plugins.toml"
    path.write_text('components = [{kind = "observability", config = {perfetto = {enabled = true, path = "t.json"}}}]')
    config = ObservabilityConfig(atof=atof(file("a.jsonl")))
    plugin.activate(plugin.PluginConfig(components=[ComponentSpec(config)]), path)
    assert sorted(name.split(":")[0] for name in exporters()) == ["atof", "perfetto"]


@pytest.mark.parametrize("use", ["initialize", "plugin"])
def test_a_running_loop_is_not_blocked(session, use):
    """What is at work meanwhile goes on: it is what lets the receiver answer."""

    async def run():
        with Receiver(["stall"]) as receiver:
            config = plugin.PluginConfig(
                components=[
                    ComponentSpec(
                        ObservabilityConfig(atof=atof(AtofStreamSinkConfig(receiver.url, timeout_millis=30_000)))
                    )
                ]
            )

            async def release():
                await asyncio.to_thread(receiver.await_request)
                receiver.release.set()

            async with plugin.plugin(config, clear_on_exit=use == "plugin"):
                scope.event("m")
                releasing = asyncio.create_task(release())
            if use == "initialize":
                await plugin.initialize({})
            await releasing
            assert receiver.names == ["m"]

    asyncio.run(run())


# ---- what cannot be ----


def errors(config):
    found = plugin.validate({"components": [{"kind": "observability", "config": config}]})["diagnostics"]
    return [
        (each["code"].removeprefix("observability."), each.get("field")) for each in found if each["level"] == "error"
    ]


def test_what_cannot_work_is_refused_before_anything_is_made(session):
    activate(atof=atof(file("old.jsonl")))
    with pytest.raises(PluginError, match=r"atof.sinks\[1\].timeout_millis is 0; expected at least 1"):
        activate(atof=atof(file("new.jsonl"), AtofStreamSinkConfig("http://h", timeout_millis=0)))
    scope.event("m")
    assert list(exporters()) == [f"atof:{os.getcwd()}/old.jsonl"]
    assert not Path("new.jsonl").exists()


def test_a_missing_extra_is_named(session, monkeypatch):
    real = checks._has_module
    monkeypatch.setattr(checks, "_has_module", lambda name: "prom" not in name and real(name))
    with pytest.raises(PluginError, match=re.escape("pip install 'relay_mp[prometheus]'")):
        activate(prometheus=PrometheusConfig(True))
    assert errors({"prometheus": {"enabled": True}}) == [("missing_extra", None)]
    assert errors({"prometheus": {"enabled": False}}) == []


def test_two_exporters_of_one_file_are_refused(session, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    path = str(tmp_path / "link" / "a.jsonl")
    both = {
        "atof": {"enabled": True, "sinks": [{"type": "file", "filename": "a.jsonl"}]},
        "exporters": [{"kind": "atof_file", "arguments": {"path": path}}],
    }
    assert errors(both) == [("duplicate_destination", "[0]")]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"exporters": [{"kind": "nope"}]}, [("unknown_exporter", "[0].kind")]),
        ({"prometheus": {"port": 65536}}, [("unsupported_value", "port")]),
        ({"prometheus": {"port": 65535, "max_names": 1, "buckets": [0.1, 1]}}, []),
        (
            {"prometheus": {"max_names": 0, "buckets": [1, 1]}},
            [("unsupported_value", "max_names"), ("unsupported_value", "buckets")],
        ),
        ({"perfetto": {"max_open_scopes": 0}}, [("unsupported_value", "max_open_scopes")]),
        ({"perfetto": {"max_open_bytes": 0}}, [("unsupported_value", "max_open_bytes")]),
        ({"atif": {"max_open_bytes": 0}}, [("unsupported_value", "max_open_bytes")]),
        ({"atif": {"max_trajectory_events": 0}}, [("unsupported_value", "max_trajectory_events")]),
        ({"atif": {"limits": {"max_queue_items": 0}}}, [("unsupported_value", "limits")]),
        (
            {"atof": {"sinks": [{"type": "stream", "url": "http://h", "limits": {"x": 1}}]}},
            [("unsupported_value", "sinks[0].limits")],
        ),
        ({"atof": {"sinks": [{"type": "file", "rotate_bytes": -1}]}}, [("unsupported_value", "sinks[0].rotate_bytes")]),
        (
            {"atof": {"enabled": True, "sinks": [{"type": "stream", "url": "http://h:99999"}]}},
            [("unsupported_value", "sinks[0].url")],
        ),
        ({"exporters": [{"kind": "atif", "name": 3}]}, [("invalid_plugin_config", "[0].name")]),
    ],
)
def test_the_sections_of_this_package_are_checked_too(session, config, expected):
    assert errors(config) == expected


def test_what_the_policy_lets_pass_is_left_out_and_the_rest_runs(session):
    config = {
        "policy": {"unsupported_value": "warn"},
        "atof": {
            "enabled": True,
            "sinks": [{"type": "file", "filename": "a", "mode": "x"}, {"type": "file", "filename": "b"}],
        },
    }
    found = plugin.activate({"components": [{"kind": "observability", "config": config}]})
    assert [(each["level"], each["field"]) for each in found["diagnostics"]] == [("warning", "sinks[0].mode")]
    scope.event("m")
    assert [each["field"] for each in exporters().values()] == ["atof.sinks[1]"]
    assert names("b") == ["m"]


# ---- what fails harms nobody else ----


@BOTH
def test_exporters_that_cannot_start_stop_nobody_and_start_when_they_can(session, tmp_path):
    """A port that is taken, a directory that is a file, a receiver that is down."""
    (tmp_path / "taken").write_text("")
    down = closed_port()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        stream = AtofStreamSinkConfig(f"http://127.0.0.1:{down}/", name="down", limits=QUICK)
        found = activate(
            atof=atof(file("good.jsonl"), file("a.jsonl", output_directory="taken", name="late"), stream),
            prometheus=PrometheusConfig(True, port=port),
        )
        assert [(each["code"], each["field"]) for each in found["diagnostics"]] == [
            ("observability.unusable_directory", "sinks[1]")
        ]
        scope.event("m")
        for name in ("atof:late", "atof:down"):  # a receiver that is down is found so by a thread of its own
            await_state(name, "failing")
        assert {("observability.exporter_failing", f"atof.sinks[{n}]") for n in (1, 2)} <= codes()
        failing = {name: each for name, each in exporters().items() if each["state"] == "failing"}
        assert sorted(failing) == ["atof:down", "atof:late", f"prometheus:127.0.0.1:{port}"]
        assert all(each["queued"] == 1 and each["last_error"] for each in failing.values())
        assert names("good.jsonl") == ["m"]
        stats = session.stats()
        assert stats.subscriber_errors == stats.lost == 0
        assert all(stats.exporters[each["subscriber"]].state == "failing" for each in failing.values())
    (tmp_path / "taken").unlink()
    assert await_state("atof:late", "running")["exported"] == 1
    assert await_state(f"prometheus:127.0.0.1:{port}", "running")["exported"] == 1
    scope.event("n")
    subscribers.flush()
    assert names("taken/a.jsonl") == ["m", "n"]


@BOTH
def test_what_is_lost_is_told_by_both_reports_and_the_others_have_all(session, capfd):
    plan = [400, 503, 429, "cut"]
    with Receiver(plan) as receiver:
        limits = {**QUICK, "retry_deadline_seconds": 30.0}
        activate(
            atof=atof(
                AtofStreamSinkConfig(receiver.url, name="bad", limits=limits),
                AtofStreamSinkConfig(
                    f"http://127.0.0.1:{closed_port()}/", name="down", limits={**QUICK, "retry_deadline_seconds": 0.0}
                ),
                file("good.jsonl"),
            )
        )
        for number in range(4):
            scope.event(f"{number}")
        good = await_all("atof:bad")
        down = await_all("atof:down")
        assert (good["drops"], good["exported"]) == ({"refused": 1}, 3)
        assert (down["drops"], down["exported"]) == ({"deadline": 4}, 0)
        assert receiver.names == ["1", "2", "3"]
        assert names("good.jsonl") == ["0", "1", "2", "3"]
        assert {
            ("observability.events_lost", "atof.sinks[0]"),
            ("observability.events_lost", "atof.sinks[1]"),
        } <= codes()
        for name, lost in (("bad", 1), ("down", 4)):
            assert session.stats().exporters[f"relay-mp-plugin.v1.observability:1:atof:{name}"].lost == lost
        plugin.clear()
    left = {each["field"]: each["count"] for each in plugin.report()["runtime_diagnostics"]}
    assert left == {"atof.sinks[0]": 1, "atof.sinks[1]": 4}
    plugin.clear()
    assert plugin.report() is None
    capfd.readouterr()


def await_all(name):
    for _ in range(WAIT_SECONDS * 100):
        found = exporters()[name]
        if not found["queued"]:
            return found
        asyncio.run(asyncio.sleep(0.01))
    raise AssertionError(f"{name} still has some: {found}")


@BOTH
def test_a_directory_that_is_removed_costs_that_exporter_only(session, tmp_path):
    activate(atof=atof(file("a.jsonl", output_directory="gone", name="a"), file("b.jsonl", name="b")))
    scope.event("1")
    subscribers.flush()
    os.rename("gone", "away")
    (tmp_path / "away" / "a.jsonl").unlink()
    for number in range(600):
        scope.event(f"{number}")
    plugin.clear()
    assert len(names("b.jsonl")) == 601
    lost = session.stats().exporters["relay-mp-plugin.v1.observability:1:atof:a"].drops["removed"]
    assert len(names("gone/a.jsonl")) + lost == 601
    (told,) = plugin.report()["runtime_diagnostics"]
    assert (told["code"], told["count"], told["field"]) == ("observability.events_lost", lost, "atof.sinks[0]")


def test_a_full_disk_is_counted_by_those_it_concerns(session, small_disk, capfd):
    activate(
        atof=atof(file("a.jsonl", output_directory=str(small_disk), name="full"), file("b.jsonl", name="b")),
        atif=AtifConfig(True, output_directory=str(small_disk / "atif")),
        perfetto=PerfettoConfig(True, path="trace.json"),
    )
    for number in range(200):
        with scope.scope(f"{number}", ScopeType.Agent):
            pass
    found = exporters()
    full, atif = found["atof:full"], found[f"atif:{small_disk}/atif"]
    assert (full["state"], full["exported"] + full["drops"]["unwritten"]) == ("failing", 400)
    assert atif["drops"]["unwritten"] + atif["exported"] == 400
    assert {"atof.sinks[0]", "atif"} <= {field for code, field in codes() if code == "observability.events_lost"}
    assert len(names("b.jsonl")) == 400
    assert found[f"perfetto:{os.getcwd()}/trace.json"]["exported"] == 400
    plugin.clear()
    capfd.readouterr()


def test_at_shutdown_one_that_hangs_holds_up_none_of_the_others(session, capfd):
    with Receiver(["stall"]) as receiver:
        limits = {"shutdown_timeout_seconds": 0.1, "timeout_seconds": 30.0}
        activate(
            atof=atof(AtofStreamSinkConfig(receiver.url, name="hangs", limits=limits), file("a.jsonl")),
            perfetto=PerfettoConfig(True, path="trace.json"),
        )
        scope.event("m")
        receiver.await_request()
        session.close()
    assert names("a.jsonl") == ["m"]
    assert json.loads(Path("trace.json").read_text())
    stats = session.stats().exporters
    assert stats["relay-mp-plugin.v1.observability:1:atof:hangs"].drops == {"shutdown": 1}
    assert plugin.report()["exporters"]["atof:hangs"]["drops"] == {"shutdown": 1}
    assert "exporter 'relay-mp-plugin.v1.observability:1:atof:hangs' lost 1 of 1 (shutdown 1)" in capfd.readouterr().err
    plugin.clear()


@pytest.mark.parametrize("session", ["process"], indirect=True)
def test_a_killed_dispatcher_is_succeeded_by_one_with_all_exporters(session, tmp_path):
    (tmp_path / "taken").write_text("")
    activate(atof=atof(file("a.jsonl", name="a"), file("b.jsonl", output_directory="taken", name="late")))
    scope.event("1")
    subscribers.flush()
    pid = session._segment.lease()[1]
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=WAIT_SECONDS)
    scope.event("2")
    subscribers.flush()
    (tmp_path / "taken").unlink()
    await_state("atof:late", "running")
    scope.event("3")
    plugin.clear()
    assert names("a.jsonl") == ["1", "2", "3"]
    assert names("taken/b.jsonl") == ["2", "3"]  # what waited in the memory of the one that was killed is gone
    assert session.stats().exporters["relay-mp-plugin.v1.observability:1:atof:late"].lost == 1


# ---- one configuration after another ----


def numbers(path):
    found = {}
    for line in Path(path).read_text().splitlines():
        event = json.loads(line)
        if event["name"] == "n":
            worker, number = event["data"]
            found.setdefault(worker, []).append(number)
    return found


STREAM = """
import itertools, sys, relay_mp
from relay_mp import scope
relay_mp.attach(sys.argv[1])
print("going", flush=True)
for number in itertools.count():
    scope.event("n", data=[int(sys.argv[2]), number])
    if number % 64 == 0 and sys.stdin in __import__("select").select([sys.stdin], [], [], 0)[0]:
        break
print(number + 1, flush=True)
"""


@pytest.fixture
def stream(session, tmp_path):
    """Two processes that emit numbered marks; calling it stops them, and gives how many each has emitted."""
    import sys

    workers = [
        subprocess.Popen(
            [sys.executable, "-c", STREAM, session.path, str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(2)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "going\n"

    def stop():
        counts = [int(worker.communicate("\n", timeout=WAIT_SECONDS)[0]) for worker in workers]
        return dict(enumerate(counts))

    yield stop
    for worker in workers:
        if worker.poll() is None:
            worker.kill()
        worker.wait()
        for pipe in (worker.stdin, worker.stdout):
            pipe.close()


SMALL_RING = {"ring_bytes": 64 * 1024}  # full at once, so that little is under way


@pytest.mark.parametrize(
    "session", [{"dispatcher": where, **SMALL_RING} for where in ("thread", "process")], indirect=True, ids=str
)
def test_replacing_loses_and_doubles_no_event_while_a_stream_runs_through(session, request):
    """One file stays as it is, one changes its settings each time, others come and go."""
    kept = file("kept.jsonl", name="kept")
    activate(atof=atof(kept, file("changed.jsonl", name="changed")))
    stop = request.getfixturevalue("stream")
    inode = os.stat("kept.jsonl").st_ino
    for step in range(6):
        settings = {"fsync": "flush"} if step % 2 else {"rotate_bytes": 1 << 40}
        more = [file(f"more-{step}.jsonl")] if step % 3 else []
        activate(atof=atof(*more, file("changed.jsonl", name="changed", **settings), kept))
    emitted = stop()
    subscribers.flush()
    assert set(emitted.values()) != {1}
    plugin.clear()
    first = {worker: found[0] for worker, found in numbers("kept.jsonl").items()}
    for path in ("kept.jsonl", "changed.jsonl"):
        assert numbers(path) == {worker: list(range(first[worker], count)) for worker, count in emitted.items()}, path
    assert os.stat("kept.jsonl").st_ino == inode
    reports = session.stats().exporters
    assert reports["relay-mp-plugin.v1.observability:1:atof:kept"].taken == sum(emitted.values()) - sum(first.values())
    assert all(each.state == "closed" and each.lost == 0 for each in reports.values())


def test_an_exporter_that_stays_is_the_very_one(session):
    activate(atof=atof(file("a.jsonl", name="a"), file("b.jsonl", name="b")))
    before = {each.name: each.callback for each in session._dispatch._subscriptions.all()}
    activate(atof=atof(file("c.jsonl", name="c"), file("b.jsonl", name="b")))
    after = {each.name: each.callback for each in session._dispatch._subscriptions.all() if each.is_live}
    prefix = "relay-mp-plugin.v1.observability:1:atof:"
    assert set(after) == {prefix + "b", prefix + "c"}
    assert after[prefix + "b"] is before[prefix + "b"]


@BOTH
def test_what_is_removed_is_flushed(session):
    with Receiver() as receiver:
        slow = {"schedule_delay_seconds": 30.0}
        activate(atof=atof(AtofStreamSinkConfig(receiver.url, transport="ndjson", limits=slow, name="s")))
        for number in range(10):
            scope.event(f"{number}")
        activate(atof=atof(file("a.jsonl")))
        assert receiver.names == [f"{number}" for number in range(10)]
    assert session.stats().exporters["relay-mp-plugin.v1.observability:1:atof:s"].state == "closed"


def test_a_plugin_that_fails_leaves_the_exporters_as_they_are(session):
    class Broken:
        def register(self, config, context):
            context.register_subscriber("s", "no.such:thing")

    plugin.register("broken", Broken())
    try:
        activate(atof=atof(file("a.jsonl", name="a")))
        component = ComponentSpec(ObservabilityConfig(atof=atof(file("b.jsonl", name="b"))))
        with pytest.raises(relay_mp.SubscriberError, match="no.such"):
            plugin.activate(plugin.PluginConfig(components=[component, {"kind": "broken"}]))
        scope.event("m")
        assert list(exporters()) == ["atof:a"]
        assert names("a.jsonl") == ["m"]
        assert not Path("b.jsonl").exists()
    finally:
        plugin.deregister("broken")


def test_a_name_that_is_taken_leaves_all_as_it_was(session):
    activate(atof=atof(file("a.jsonl", name="a")))
    subscribers.register("relay-mp-plugin.v1.observability:1:atof:b", print)
    with pytest.raises(relay_mp.SubscriberError, match="already registered"):
        activate(atof=atof(file("c.jsonl", name="c"), file("b.jsonl", name="b")))
    scope.event("m", data="x")
    assert list(exporters()) == ["atof:a"]
    assert names("a.jsonl") == ["m"]


def test_configurations_may_be_replaced_inside_a_callback(session):
    done = []

    def replace(event):
        if event.name == "now":
            done.append(activate(atof=atof(file("b.jsonl", name="b"), file("c.jsonl", name="c"))))

    activate(atof=atof(file("a.jsonl", name="a"), file("c.jsonl", name="c")))
    subscribers.register("replace", replace)
    scope.event("now")
    subscribers.flush()
    scope.event("then")
    subscribers.flush()
    assert len(done) == 1
    plugin.clear()
    assert names("a.jsonl") == ["now"]
    assert names("b.jsonl") == ["then"]
    assert names("c.jsonl") == ["now", "then"]


# ---- secrets ----

SECRETS = {
    "HEADER_SECRET": "sk-from-the-environment",
    "PLAIN_SECRET": "sk-in-plain-text",
    "URL_SECRET": "sk-in-the-query",
}


@BOTH
def test_secrets_are_sent_and_are_nowhere_else(tmp_path, monkeypatch, caplog, capfd, session):
    """By a receiver, too, that repeats them: it answers 401 with what it was sent."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TOKEN", SECRETS["HEADER_SECRET"])
    shown = []
    session.close()  # the dispatcher has the environment of its session's start
    with relay_mp.session(dispatcher=session.settings.dispatcher) as another, Receiver() as receiver:
        receiver.repeats = True
        url = f"{receiver.url}&key={SECRETS['URL_SECRET']}"
        section = AtofStreamSinkConfig(url, headers={"x-key": SECRETS["PLAIN_SECRET"]}, header_env={"x-token": "TOKEN"})
        storage = HttpStorageConfig(url, headers={"x-key": SECRETS["PLAIN_SECRET"]}, header_env={"x-token": "TOKEN"})
        shown += [repr(section).replace(url, ""), repr(storage).replace(url, "")]
        bad = AtofStreamSinkConfig(f"http://127.0.0.1:{closed_port()}/?key={SECRETS['URL_SECRET']}", limits=QUICK)
        activate(atof=atof(section, bad), atif=AtifConfig(True, storage=[storage]))
        with scope.scope("m", ScopeType.Agent):
            pass
        receiver.await_request()
        await_all(next(iter(exporters())))
        sent = receiver.seen_headers[0]
        assert (sent["x-token"], sent["x-key"]) == (SECRETS["HEADER_SECRET"], SECRETS["PLAIN_SECRET"])
        shown += [repr(plugin.report()), repr(another.stats()), repr(another)]
        assert "answered 401" in shown[-3]
        assert "***" in shown[-3]
        plugin.clear()
        shown += [repr(plugin.report()), repr(another.stats())]
    out, err = capfd.readouterr()
    shown += [caplog.text, out, err]
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        shown.append(path.read_text())
    for name, secret in SECRETS.items():
        assert [text for text in shown if secret in text] == [], name


@pytest.mark.parametrize(
    "settings",
    [
        {"header_env": {"x": "sk-pasted-in-place-of-a-name"}},
        {"header_env": {"x": "BROKEN"}},
        {"headers": {"x": "sk-secret\n"}},
        {"headers": {"x": "sk-secret"}, "header_env": {"X": "BROKEN"}},
        {"url": "http://user:sk-secret@127.0.0.1/"},
        {"url": "sk-secret"},
        {"timeout_millis": "sk-secret"},
        {"headers": "sk-secret"},
    ],
)
def test_diagnostics_and_errors_repeat_no_secret(session, monkeypatch, settings):
    monkeypatch.setenv("BROKEN", "sk-secret\n")
    sink = {"type": "stream", "url": "http://127.0.0.1:9/", **settings}
    document = {"components": [{"kind": "observability", "config": {"atof": {"enabled": True, "sinks": [sink]}}}]}
    found = plugin.validate(document)["diagnostics"]
    assert len(found) >= 1
    with pytest.raises(PluginError) as raised:
        plugin.activate(document)
    assert "sk-" not in repr(found) + repr(raised.value)


@pytest.mark.parametrize("session", ["process"], indirect=True)
def test_a_variable_that_the_dispatcher_does_not_have_is_a_report_not_an_end(session, monkeypatch):
    """It was set after the dispatcher's process had started."""
    monkeypatch.setenv("SET_LATE", "sk-secret")
    sink = AtofStreamSinkConfig("http://127.0.0.1:9/", header_env={"x-token": "SET_LATE"}, name="s")
    activate(atof=atof(sink, file("a.jsonl")))
    scope.event("m")
    found = exporters()["atof:s"]
    assert (found["state"], found["drops"]) == ("failing", {"not_started": 1})
    assert found["last_error"] == (
        "ValueError: the environment variable for the header 'x-token' is not set where the dispatcher runs"
    )
    assert names("a.jsonl") == ["m"]


# ---- OpenTelemetry ----


@BOTH
def test_opentelemetry_in_all_signals_and_projections(session):
    with OtlpReceiver("http/protobuf") as receiver:
        endpoints = [
            OpenTelemetryEndpointConfig(kind, receiver.endpoint, service_name="component", scheduled_delay_millis=1)
            for kind in ("full", "gen_ai", "openinference")
        ]
        section = OpenTelemetrySectionConfig(
            True,
            endpoints,
            logs=OpenTelemetryLogSectionConfig(True, minimum_severity="warning", scheduled_delay_millis=1),
            metrics=OpenTelemetryMetricSectionConfig(True),
        )
        activate(opentelemetry=section, atof=atof(file("a.jsonl")))
        kinds = sorted(name.split(":")[0] for name in exporters())
        assert kinds == ["atof", "opentelemetry.logs", "opentelemetry.metrics", *["opentelemetry.traces"] * 3]
        with scope.scope("agent", ScopeType.Agent):
            scope.event("low", severity=relay_mp.LogSeverity.Info)
            scope.event("high", severity=relay_mp.LogSeverity.Error)
            measured = relay_mp.MetricMeasurement("calls", relay_mp.MetricKind.Counter, relay_mp.MetricValueType.U64, 3)
            scope.metric("measured", [measured])
        plugin.clear()
        assert sorted(each.item.name for each in receiver.sent("traces")) == ["agent", "agent", "invoke_agent agent"]
        assert [each.item.event_name for each in receiver.sent("logs")] == ["high"]
        assert [each.item.name for each in receiver.sent("metrics")] == ["calls"]
        signals = ("traces", "logs", "metrics")
        assert {each.resource["service.name"] for s in signals for each in receiver.sent(s)} == {"component"}
    assert names("a.jsonl")[0] == "agent"


def test_opentelemetry_endpoints_have_the_settings_of_their_section(session):
    endpoint = OpenTelemetryEndpointConfig(
        "gen_ai", "http://h/v1/traces", max_queue_size=7, max_export_batch_size=3, scheduled_delay_millis=50,
        mark_projection="tool", header_env={"x": "PATH"}, resource_attributes={"a": "b"}, transport="grpc",
        event_count_limit=4, attribute_value_length_limit=0,
    )  # fmt: skip
    section = OpenTelemetrySectionConfig(
        True, [endpoint, endpoint],
        logs=OpenTelemetryLogSectionConfig(True, max_queue_size=2049, attribute_count_limit=5),
        metrics=OpenTelemetryMetricSectionConfig(True, temporality="delta", max_instruments=9),
    )  # fmt: skip
    made = [planned.make()._sinks[0][1] for planned in section.exporters(Where("opentelemetry"))]
    assert len(made) == 4  # those of the traces twice, as they are given; theirs for logs and metrics once
    traces, _, logs, metrics = made
    limits = {"max_queue_items": 7, "max_batch_items": 3, "schedule_delay_seconds": 0.05}
    assert (traces["projection"], traces["mark_projection"]) == ("gen_ai", "tool")
    assert traces["connection"]["limits"] == limits
    assert (traces["event_count_limit"], traces["attribute_value_length_limit"]) == (4, 0)
    assert (traces["attribute_count_limit"], logs["attribute_count_limit"]) == (None, 5)
    for each in made:
        connection = each["connection"]
        assert (connection["header_env"], connection["resource_attributes"]) == ({"x": "PATH"}, {"a": "b"})
        assert connection["transport"] == "grpc"
    assert logs["connection"]["endpoint"] == "http://h/v1/logs"
    assert logs["connection"]["limits"] == {"max_queue_items": 2049}
    assert metrics["connection"]["endpoint"] == "http://h/v1/metrics"
    assert (metrics["temporality"], metrics["max_instruments"]) == ("delta", 9)


@pytest.mark.parametrize("name", ["attribute_count_limit", "event_count_limit", "event_attribute_count_limit"])
def test_a_limit_of_opentelemetry_below_zero_is_refused(session, name):
    endpoint = OpenTelemetryEndpointConfig("full", "http://h", **{name: -1})
    with pytest.raises(PluginError, match=rf"opentelemetry.endpoints\[0\].{name} is -1; expected at least 0"):
        activate(opentelemetry=OpenTelemetrySectionConfig(True, [endpoint]))


def test_a_limit_of_opentelemetry_logs_below_zero_is_refused(session):
    logs = OpenTelemetryLogSectionConfig(True, attribute_value_length_limit=-1)
    endpoint = OpenTelemetryEndpointConfig("full", "http://h")
    said = "opentelemetry.logs.attribute_value_length_limit is -1; expected at least 0"
    with pytest.raises(PluginError, match=said):
        activate(opentelemetry=OpenTelemetrySectionConfig(True, [endpoint], logs=logs))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_otlp_receiver_that_refuses_or_is_down_costs_nobody_else(session, protocol, capfd):
    transport = "grpc" if protocol == "grpc" else "http_binary"
    with OtlpReceiver(protocol, ["refused"]) as receiver:
        down = f"http://127.0.0.1:{closed_port()}"
        endpoints = [
            OpenTelemetryEndpointConfig("full", place, transport=transport, timeout_millis=500)
            for place in (receiver.endpoint, down)
        ]
        activate(opentelemetry=OpenTelemetrySectionConfig(True, endpoints), atof=atof(file("a.jsonl")))
        with scope.scope("s", ScopeType.Function):
            pass
        found = {each["field"]: name for name, each in exporters().items()}
        refused = await_all(found["opentelemetry.endpoints[0]"])
        assert refused["drops"] == {"refused": refused["taken"] - refused["ignored"]}
        assert await_state(found["opentelemetry.endpoints[1]"], "failing")["last_error"]
        assert ("observability.events_lost", "opentelemetry.endpoints[0]") in codes()
        assert ("observability.exporter_failing", "opentelemetry.endpoints[1]") in codes()
        assert names("a.jsonl") == ["s", "s"]
        session.close(0.5)
    capfd.readouterr()

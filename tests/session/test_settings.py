"""Every setting, by argument and by environment, and each of its bounds at work."""

import os
import threading

import named_subscribers
import pytest

import relay_mp
from relay_mp import scope, subscribers
from relay_mp._session import settings

WAIT_SECONDS = 30

VALID = {
    "dispatcher": "process",
    "on_full": "drop",
    "block_timeout_seconds": 1.5,
    "stall_timeout_seconds": 2.5,
    "flush_timeout_seconds": 3.5,
    "ring_bytes": 131072,
    "min_ring_bytes": 131072,
    "max_event_bytes": 2048,
    "max_deliveries": 5,
    "max_restarts": 6,
    "max_producers": 7,
    "configuration_bytes": 4096,
    "allowed_subscribers": "my_app.subscribers:*, my_app.audit:Log",
    "max_open_scopes": 0,
    "max_open_bytes": 4096,
    "directory": "/tmp",
    "recovery_directory": "/var/tmp",
    "strict": True,
    "on_sigterm": "flush",
    "sigterm_timeout_seconds": 4.5,
}


def test_the_defaults_are_the_documented_ones():
    found = settings.resolve()
    assert (found.dispatcher, found.on_full) == ("thread", "block")
    assert (found.block_timeout_seconds, found.stall_timeout_seconds, found.flush_timeout_seconds) == (10.0, 0.0, 30.0)
    assert (found.ring_bytes, found.max_event_bytes, found.max_producers) == (16 << 20, 2 << 20, 1024)
    assert found.min_ring_bytes == 1 << 20
    assert (found.max_deliveries, found.max_restarts) == (3, 10)
    assert (found.directory, found.recovery_directory) == ("", "")  # looked for when they are needed


@pytest.mark.parametrize("name", VALID)
def test_each_setting_is_taken_from_the_argument(name):
    assert getattr(settings.resolve(**{name: VALID[name]}), name) == VALID[name]


@pytest.mark.parametrize("name", VALID)
def test_each_setting_is_taken_from_the_environment(name, monkeypatch):
    monkeypatch.setenv(f"RELAY_MP_{name.upper()}", str(VALID[name]))
    assert getattr(settings.resolve(), name) == VALID[name]


def test_an_argument_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("RELAY_MP_ON_FULL", "drop")
    assert settings.resolve(on_full="block").on_full == "block"


def test_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv("RELAY_MP_RING_BYTES", "")
    assert settings.resolve().ring_bytes == 16 << 20


def test_session_takes_every_setting():
    with relay_mp.session(**{**VALID, "dispatcher": "thread", "directory": None}) as session:
        for name, value in VALID.items():
            if name not in ("dispatcher", "directory"):
                assert getattr(session.settings, name) == value
    assert set(VALID) == set(settings.Settings.__dataclass_fields__)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("dispatcher", "fibre", "dispatcher='fibre'; expected one of thread, process"),
        ("on_full", "panic", "on_full='panic'; expected one of block, drop"),
        ("block_timeout_seconds", -1, "block_timeout_seconds=-1.0 is outside 0 to 86400"),
        ("block_timeout_seconds", "soon", "block_timeout_seconds='soon' is not a number, such as 2.5"),
        ("block_timeout_seconds", float("nan"), "block_timeout_seconds=nan is outside"),
        ("stall_timeout_seconds", float("inf"), "stall_timeout_seconds=inf is outside"),
        ("flush_timeout_seconds", 1e9, "flush_timeout_seconds=1000000000.0 is outside"),
        ("ring_bytes", 65535, "ring_bytes=65535 is outside 65536 to"),
        ("ring_bytes", 1 << 37, "ring_bytes=137438953472 is outside"),
        ("ring_bytes", "16M", "ring_bytes='16M' is not a whole number, such as 65536"),
        ("ring_bytes", 100000.5, "ring_bytes=100000.5 is not a whole number"),
        ("ring_bytes", float("inf"), "ring_bytes=inf is not a whole number"),
        ("max_event_bytes", 1023, "max_event_bytes=1023 is outside 1024 to 2097152"),
        ("max_event_bytes", (2 << 20) + 1, "make the ring larger or the limit smaller"),
        ("max_event_bytes", -1, "max_event_bytes=-1 is outside"),
        ("max_restarts", -1, "max_restarts=-1 is outside 0 to 1000000"),
        ("max_producers", 0, "max_producers=0 is outside 1 to"),
        ("max_producers", 1 << 16, "max_producers=65536 is outside"),
        ("ring_bytes", True, "ring_bytes=True is a bool; expected int"),
        ("flush_timeout_seconds", False, "flush_timeout_seconds=False is a bool; expected float"),
        ("configuration_bytes", 1023, "configuration_bytes=1023 is outside 1024 to 16777216"),
        ("configuration_bytes", (16 << 20) + 1, "configuration_bytes=16777217 is outside"),
        ("directory", 5, "directory=5 is an int; expected str"),
        ("recovery_directory", True, "recovery_directory=True is a bool; expected str"),
        ("dispatcher", b"thread", "dispatcher=b'thread' is a bytes; expected str"),
    ],
)
def test_a_wrong_value_is_named_with_its_limits(name, value, said, monkeypatch):
    with pytest.raises(relay_mp.SessionError) as caught:
        relay_mp.session(**{name: value})
    assert said in str(caught.value)
    if isinstance(value, str):
        monkeypatch.setenv(f"RELAY_MP_{name.upper()}", value)
        with pytest.raises(relay_mp.SessionError, match=f"^RELAY_MP_{name.upper()}="):
            relay_mp.session()


def test_an_unknown_setting_is_a_type_error():
    with pytest.raises(TypeError):
        relay_mp.session(ring_size=1)
    with pytest.raises(TypeError, match="unknown setting 'ring_size'; there are dispatcher"):
        settings.resolve(ring_size=1)


def test_ring_bytes_is_rounded_up_to_a_power_of_two():
    with relay_mp.session(ring_bytes=65537) as session:
        assert session.settings.ring_bytes == 131072
        assert session.stats().ring_bytes == 131072


def test_the_directory_is_where_the_segment_is(tmp_path):
    with relay_mp.session(directory=str(tmp_path)) as session:
        assert os.path.dirname(session.path) == str(tmp_path)
        assert os.listdir(tmp_path) == [os.path.basename(session.path)]
    assert os.listdir(tmp_path) == []


def test_the_directories_may_be_paths(tmp_path):
    with relay_mp.session(directory=tmp_path, recovery_directory=tmp_path / "recovered") as session:
        assert session.settings.directory == str(tmp_path)
        assert session.settings.recovery_directory == str(tmp_path / "recovered")
        assert os.path.dirname(session.path) == str(tmp_path)


# ---- the bounds at work ----


class Latch:
    """A subscriber that stands still at its first event until it is opened."""

    def __init__(self):
        self.events = []
        self._entered, self._opened = threading.Event(), threading.Event()

    def __call__(self, event):
        self.events.append(event)
        self._entered.set()
        assert self._opened.wait(WAIT_SECONDS)

    @property
    def names(self):
        return [event.name for event in self.events]

    def hold(self):
        scope.event("hold")
        assert self._entered.wait(WAIT_SECONDS)

    def open(self):
        self._opened.set()


@pytest.fixture
def latch():
    latch = Latch()
    yield latch
    latch.open()


def test_a_full_ring_drops_at_once_where_that_is_asked(latch, capfd):
    with relay_mp.session(ring_bytes=65536, on_full="drop", block_timeout_seconds=3600) as session:
        subscribers.register("latch", latch)
        latch.hold()
        for i in range(2000):
            scope.event(f"{i}")
        lost = session.stats().lost
        assert lost == session.stats().causes["full"] > 0
        latch.open()
        subscribers.flush()
        scope.event("next")
        assert subscribers.flush() == relay_mp.FlushResult(lost, {"full": lost})
        kept = 2000 - lost
        assert latch.names == ["hold", *(f"{i}" for i in range(kept)), "relay_mp.loss", "next"]
        mark = latch.events[-2]
        assert mark.data == {"pid": os.getpid(), "lost": lost, "causes": {"full": lost}}
        assert latch.events[-3].seq < mark.seq < latch.events[-1].seq
    capfd.readouterr()


def test_what_was_dropped_last_is_marked_when_the_session_ends(latch, capfd):
    with relay_mp.session(ring_bytes=65536, on_full="drop") as session:
        subscribers.register("latch", latch)
        latch.hold()
        for i in range(2000):
            scope.event(f"{i}")
        latch.open()
    lost = session.stats().lost
    assert lost > 0
    assert latch.names[-1] == "relay_mp.loss"
    assert latch.events[-1].data["lost"] == lost
    capfd.readouterr()


def test_a_full_ring_blocks_until_there_is_room(latch):
    with relay_mp.session(ring_bytes=65536, block_timeout_seconds=3600) as session:
        subscribers.register("latch", latch)
        latch.hold()
        emitter = threading.Thread(target=lambda: [scope.event(f"{i}") for i in range(2000)])
        emitter.start()
        while session.stats().ring_used_bytes < 65536 - 4 * 64:
            pass
        assert emitter.is_alive()
        latch.open()
        emitter.join()
        assert subscribers.flush().lost == 0
        assert latch.names == ["hold", *(f"{i}" for i in range(2000))]


def test_block_timeout_is_how_long_a_full_ring_blocks(latch, capfd):
    with relay_mp.session(ring_bytes=65536, block_timeout_seconds=0.01) as session:
        subscribers.register("latch", latch)
        latch.hold()
        while not session.stats().lost:
            scope.event("m")
        stats = session.stats()
        latch.open()
        subscribers.flush()
        assert stats.causes == {"full": 1}
        assert len(latch.names) == stats.emitted - 1
    capfd.readouterr()


def test_an_event_at_the_limit_is_whole_and_one_above_it_is_cut():
    found = []
    with relay_mp.session(max_event_bytes=1024) as session:
        subscribers.register("x", found.append)
        sizes = range(700, 1100)
        for size in sizes:
            scope.event("m", data="x" * size, metadata={"n": size})
        subscribers.flush()
        stats = session.stats()
    whole = [event for event in found if isinstance(event.data, str)]
    cut = [event for event in found if not isinstance(event.data, str)]
    assert [event.metadata["n"] for event in found] == list(sizes)
    assert [len(event.data) for event in whole] == list(sizes)[: len(whole)]
    assert len(whole[-1]._record) == 1024
    assert cut[0].data == {"relay_mp.cut": {"bytes": len(whole[-1].data) + 1 + 3}}
    assert stats.cut == len(cut) > 0
    assert stats.lost == 0


def test_a_cut_event_keeps_its_identity(session):
    found = []
    subscribers.register("x", found.append)
    big = "x" * (session.settings.max_event_bytes + 1)
    with scope.scope("big", relay_mp.ScopeType.Tool, input=big, metadata={"small": 1}) as handle:
        pass
    subscribers.flush()
    start, end = found
    assert (start.uuid, start.parent_uuid, start.name) == (handle.uuid, handle.parent_uuid, "big")
    assert start.data["relay_mp.cut"]["bytes"] > len(big)
    assert start.metadata == {"small": 1}
    assert (start.uuid, start.category) == (end.uuid, "tool")
    (process,) = session.stats().processes
    assert process.cut == 1


def test_more_producers_than_slots_are_counted_and_logged_and_harm_nobody(caplog, capfd):
    found, lost = [], []
    start, done = threading.Barrier(3), threading.Barrier(3)

    def emit(number):
        start.wait(WAIT_SECONDS)
        for i in range(10):
            scope.event(f"{number} {i}")
        done.wait(WAIT_SECONDS)  # all alive at the same time

    with relay_mp.session(max_producers=2) as session:
        subscribers.register("x", lambda event: (found if event.name != "relay_mp.loss" else lost).append(event))
        scope.event("early")
        threads = [threading.Thread(target=emit, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        scope.event("late")
        result = subscribers.flush()
        stats = session.stats()
    assert result.causes == {"unregistered": 20}
    assert (stats.emitted, stats.delivered, stats.lost) == (32, 12, 20)
    names = [event.name for event in found]
    (winner,) = {name.split()[0] for name in names if name not in ("early", "late")}
    assert sum(event.data["causes"]["unregistered"] for event in lost) == 20
    assert names == ["early", *(f"{winner} {i}" for i in range(10)), "late"]
    (record,) = [record for record in caplog.records if "cannot emit" in record.getMessage()]
    assert "RELAY_MP_MAX_PRODUCERS" in record.getMessage()
    assert "20 lost (unregistered 20)" in capfd.readouterr().err


def test_a_slot_is_used_again_after_its_thread(session):
    subscribers.register("x", id)
    for i in range(3):
        thread = threading.Thread(target=scope.event, args=(f"{i}",))
        thread.start()
        thread.join()
        subscribers.flush()
    assert session.stats().lost == 0


@pytest.mark.parametrize("session", ["process"], indirect=True)
def test_a_full_table_of_named_subscribers_refuses_one_more_and_keeps_the_others(session, tmp_path):
    arguments = {"path": str(tmp_path / "lines"), "padding": "x" * 12000}
    registered = 0

    def register_more():
        nonlocal registered
        for registered in range(100):
            subscribers.register(f"{registered}", "named_subscribers:Lines", arguments=arguments)

    with pytest.raises(relay_mp.SubscriberError, match="table of named subscribers needs .* register fewer"):
        register_more()
    assert 0 < registered < 100
    scope.event("m")
    subscribers.flush()
    assert named_subscribers.names(tmp_path / "lines") == ["m"] * registered
    assert subscribers.deregister("0")
    assert session.stats().subscriber_errors == 0


@pytest.mark.parametrize("session", ["process"], indirect=True)
def test_arguments_above_the_event_limit_are_a_clear_error(session):
    limit = session._segment.max_event_bytes
    with pytest.raises(relay_mp.SubscriberError, match=f"above the session's max_event_bytes of {limit}"):
        subscribers.register("x", "named_subscribers:Lines", arguments={"path": "x" * (3 << 20)})
    assert session.stats().lost == 0

"""Limits on everything that is decoded: records from shared memory, requests to the dispatcher, a parent's words.

Nothing that fits into the ring may crash the dispatcher, or make it take memory out of proportion: a record
that is none is a `RecordError` for who looks at it, and the stream goes on. What goes the other way, out of a
payload that is too deep or too big, is a `PayloadError` or a cut, as documented.
"""

import ast
import contextlib
import json
import os
import re
import resource
import signal
import struct
import sys
import threading
import time
from functools import partial
from pathlib import Path

import msgpack
import named_subscribers
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_hostile import Rig

import relay_mp
from relay_mp import ScopeType, scope, subscribers
from relay_mp._deliver import dispatcher as dispatching
from relay_mp._deliver import table as table_module
from relay_mp._deliver.absent import Absent
from relay_mp._deliver.subscriptions import Subscriptions
from relay_mp._emit import carry
from relay_mp._native import core
from relay_mp.errors import PropagationError, RecordError
from relay_mp.events import decode, pack_record

UUID = bytes(range(1, 17))
MOST_BYTES = 4_000_000
"""Of a record that the tests forge: about what a record's header can say at all."""


def _crc_table():
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


CRC_TABLE = _crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


class Forge(Rig):
    """A producer that writes what it likes, checksum and all."""

    def __init__(self, path):
        super().__init__(path, ring_bytes=8 << 20, max_event_bytes=MOST_BYTES)
        thread = threading.Thread(target=scope.event, args=("first",))
        thread.start()
        thread.join()
        while self.segment.slot_statuses()[1] == core.SLOT_LIVE:  # left by the thread's destructor, behind the join
            time.sleep(0.001)
        self.drain()
        self.slot = 1  # of the thread that has ended: nobody else counts on there
        scope.event("mine")
        self.drain()
        assert self.taken() == ["first", "mine"]

    def write(self, payload):
        """One committed record, as a producer writes it."""
        tail = self.segment.tail
        length = (len(payload) + 24 + 63) // 64
        slot_at = 4096 + self.slot * core.SLOT_BYTES + core.SLOT_FIELDS["emitted"]
        owner_seq = struct.unpack_from("<Q", self.memory, slot_at)[0] + 1
        struct.pack_into("<Q", self.memory, slot_at, owner_seq)
        word = 2 | self.slot << 3 | length << 19 | tail << 35
        crc = crc32c(payload + struct.pack("<QQQ", owner_seq, tail, word >> 3))
        at = self.ring_at + tail * 64
        struct.pack_into("<IIQ", self.memory, at + 8, len(payload), crc, owner_seq)
        self.memory[at + 24 : at + 24 + len(payload)] = payload
        struct.pack_into("<Q", self.memory, at, word)
        struct.pack_into("<QQ", self.memory, 256, tail + length, self.slot << 32 | length)


@pytest.fixture
def forge(tmp_path, monkeypatch):
    monkeypatch.setattr(dispatching, "IDLE_SECONDS", 0.0)
    made = Forge(str(tmp_path / "segment"))
    yield made
    made.close()


@pytest.fixture
def little_memory():
    """No single allocation out of proportion: the address space may grow by 1 GiB, a length may say 4 GiB."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def record(**fields):
    """A mark's record with some fields as given, payloads as raw bytes."""
    order = ["kind", "uuid", "parent", "time", "name", "category", "attributes", "thread", "stack"]
    order += ["data", "metadata", "profile", "schema"]
    values = dict.fromkeys(order) | {"kind": 2, "uuid": UUID, "time": 1, "name": "n", "attributes": 0, "thread": 0}
    values |= fields
    return b"\x9d" + b"".join(
        value.raw if isinstance(value, Raw) else msgpack.packb(value) for value in (values[key] for key in order)
    )


class Raw:
    """Bytes that go into a record as they are."""

    def __init__(self, raw):
        self.raw = raw


LENGTH_32 = b"\xff\xff\xff\xff"
HOSTILE_PAYLOADS = {
    "10,000 lists deep": b"\x91" * 10_000 + b"\xc0",
    "10,000 maps deep": b"\x81\xa1k" * 10_000 + b"\xc0",
    "1,000 lists deep": b"\x91" * 1_000 + b"\xc0",
    "500 lists deep": b"\x91" * 500 + b"\xc0",
    "1,000,000 keys, all the same": b"\xdf" + struct.pack(">I", 1_000_000) + b"\xa1k\xc0" * 1_000_000,
    "200,000 keys": b"\xdf" + struct.pack(">I", 200_000) + b"".join(b"\xa5%05x\xc0" % n for n in range(200_000)),
    "2,000,000 nulls": b"\xdd" + struct.pack(">I", 2_000_000) + b"\xc0" * 2_000_000,
    "a list said to have 4 billion": b"\xdd" + LENGTH_32 + b"\xc0",
    "a map said to have 4 billion": b"\xdf" + LENGTH_32 + b"\xa1k\xc0",
    "a text said to have 4 GiB": b"\xdb" + LENGTH_32 + b"x",
    "bytes said to have 4 GiB": b"\xc6" + LENGTH_32 + b"x",
    "an extension said to have 4 GiB": b"\xc9" + LENGTH_32 + b"\x05x",
    "lists said to have 4 billion, in lists": (b"\xdd" + LENGTH_32) * 500,
    "bytes": msgpack.packb({"k": b"x"}),
    "an extension": msgpack.packb(msgpack.ExtType(5, b"x")),
    "a time": msgpack.packb(msgpack.Timestamp(1, 2)),
    "a time of a wrong length": b"\xc7\x03\xffabc",
    "number keys": msgpack.packb({1: 2}),
    "bytes for keys": msgpack.packb({b"k": 1}),
    "bytes and text for keys": msgpack.packb({b"k": 1, "k": 2}),
    "a list for a key": b"\x81\x91\xc0\xc0",
    "a duplicate key": b"\x82\xa1k\x01\xa1k\x02",
    "a text that is no UTF-8": b"\xa2\xff\xfe",
    "a surrogate": b"\xa3\xed\xa0\x80",
    "a reserved byte": b"\xc1",
    "nothing": b"",
    "two values": b"\xc0\xc0",
    "NaN": msgpack.packb(float("nan")),
    "a number of 64 bits": msgpack.packb((1 << 64) - 1),
}
HOSTILE_RECORDS = {
    **{f"data: {what}": record(data=payload) for what, payload in HOSTILE_PAYLOADS.items()},
    **{f"inline: {what}": record(data=Raw(payload)) for what, payload in HOSTILE_PAYLOADS.items()},
    **{f"name: {what}": record(name=Raw(payload)) for what, payload in HOSTILE_PAYLOADS.items() if len(payload) < 9999},
    "empty": b"",
    "one byte": b"\x9d",
    "a kind alone": b"\x9d\x02",
    "another kind": record(kind=7),
    "14 fields": b"\x9e" + record()[1:] + b"\xc0",
    "12 fields": record()[:-1],
    "a stack of an odd length": record(stack=b"x" * 17),
    "a stack of no length": record(stack=b""),
    "a stack of 100,000 scopes": record(stack=b"0123456789abcdef" * 100_000),
    "a category that is none": record(category=99),
    "a category below none": record(category=-99),
    "a category of another's": record(category="x" * 1000),
    "attributes below none": record(attributes=-1),
    "a time before all": record(time=-(1 << 63)),
    "a time after all": record(time=(1 << 64) - 1),
    "a uuid of another length": record(uuid=b"short"),
    "a parent of another length": record(parent=b"x" * 17),
    "garbage": os.urandom(0) + bytes(range(256)),
    "pickle": b"\x9d\x02cos\nsystem\n(S'true'\ntR.",
}

READS = ("name", "uuid", "parent_uuid", "timestamp", "category", "stack", "thread_id", "data", "metadata", "severity")


def look(event):
    """Everything that a subscriber can ask of an event; what is refused is refused with RecordError."""
    assert len(repr(event)) < 10_000 or len(event.name) > 5_000
    for read in (*(partial(getattr, event, key) for key in READS), event.to_dict, event.to_json):
        with contextlib.suppress(RecordError):
            read()


@pytest.mark.parametrize("what", HOSTILE_RECORDS)
def test_a_hostile_record_is_an_error_for_who_looks_and_the_stream_goes_on(forge, little_memory, what):
    looked = []

    def callback(event):
        try:
            look(event)
        except BaseException as error:
            looked.append(error)

    forge.dispatcher._subscriptions._globals[0].callback = lambda event: (forge.events.append(event), callback(event))
    scope.event("before")
    forge.write(HOSTILE_RECORDS[what])
    scope.event("after")
    forge.drain()
    assert looked == []
    names = []
    for event in forge.events:
        try:
            names.append(event.name)
        except RecordError:
            names.append(None)
    assert (names[0], names[-1]) == ("before", "after")
    assert len(names) in (2, 3)
    assert forge.accounts()[1] == 0


@pytest.mark.parametrize("what", [what for what, raw in HOSTILE_RECORDS.items() if len(raw) < 1_000_000])
def test_a_hostile_record_is_the_same_json_both_ways_or_refused_both_ways(what):
    try:
        event = decode(HOSTILE_RECORDS[what], 1, 2)
    except RecordError:
        return
    outcomes = []
    for read in (event.to_dict, event.to_json):
        try:
            outcomes.append(json.dumps(read()) if read == event.to_dict else json.dumps(json.loads(read())))
        except RecordError:
            outcomes.append("refused")
    assert outcomes[0] == outcomes[1]


def test_what_a_subscriber_lets_through_is_counted(forge, caplog):
    forge.dispatcher._subscriptions._globals[0].callback = lambda event: (event.to_json(), forge.events.append(event))
    forge.write(record(data=b"\xc1"))
    scope.event("after")
    forge.drain()
    assert forge.taken() == ["after"]
    assert forge.segment.subscriber_errors == 1
    assert "RecordError" in caplog.text


# ---- requests to the dispatcher ----


def request(verb, data):
    return record(kind=3, name=verb, data=data if isinstance(data, bytes) else msgpack.packb(data))


REQUESTS = {
    "no fields": b"\x9d\x03",
    "no map": request("register", [1, 2]),
    "nil": request("register", None),
    "an empty map": request("register", {}),
    "a name of another type": request("register", {"name": [1], "target": "os:getpid", "arguments": None, "scope": 5}),
    "a target of another type": request("register", {"name": "x", "target": 5, "arguments": None, "scope": None}),
    "arguments of another type": request("register", {"name": "x", "target": "os:x", "arguments": 5, "scope": None}),
    "no such module": request("register", {"name": "x", "target": "no_such:x", "arguments": None, "scope": None}),
    "a path for a module": request("register", {"name": "x", "target": "../x:y", "arguments": None, "scope": None}),
    "a module that is relative": request("register", {"name": "x", "target": ".x:y", "arguments": None, "scope": None}),
    "a scope that is no uuid": request("close_scope", {"scope": "zz"}),
    "a scope of another type": request("close_scope", {"scope": 5}),
    "a scope of another length": request("close_scope", {"scope": "00" * 1000}),
    "no such verb": request("eval", {"scope": None, "name": "__import__('os')._exit(1)"}),
    "a verb of another type": request(5, {"scope": None}),
    "a verb as a map": request({"a": 1}, {"scope": None}),
    "a cut of another type": request("register", {"relay_mp.cut": 5}),
    "deep": request("register", b"\x91" * 10_000 + b"\xc0"),
    "a list said to have 4 billion": request("register", b"\xdd" + LENGTH_32),
    "no msgpack": request("register", b"\xc1"),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_a_hostile_request_is_answered_with_an_error_and_the_stream_goes_on(forge, little_memory, what):
    forge.write(REQUESTS[what])
    scope.event("after")
    forge.drain()
    assert forge.taken() == ["after"]
    assert len(forge.dispatcher._subscriptions.all()) == 1
    _, code, text = forge.segment.read_reply(forge.slot)
    if what != "a scope of another length":  # of which nothing is registered: nothing to end
        assert code == dispatching.REPLY_ERROR
        assert text


TELLS = "import os\nopen(os.environ['TELL'], 'a').write(f'{os.getpid()}\\n')\ndef callback(event): pass\n"


def test_a_name_is_resolved_in_the_dispatcher_only(run_script, tmp_path):
    """The module tells who imported it. The owner and the worker only pass its name on."""
    (tmp_path / "tells.py").write_text(TELLS)
    out = run_script(
        """
import os, sys
import relay_mp
from relay_mp import pools, subscribers
def register():
    subscribers.register("of the worker", "tells:callback")
with relay_mp.session(dispatcher="process") as session:
    subscribers.register("of the owner", "tells:callback")
    worker = pools.get_context("fork").Process(target=register)
    worker.start()
    worker.join()
    print(worker.exitcode, session._segment.lease()[1], "tells" in sys.modules)
""",
        environment={"TELL": str(tmp_path / "told"), "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    ).stdout.split()
    assert out[0] == "0"
    assert (tmp_path / "told").read_text().split() == [out[1]]
    assert out[2] == "False"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away, and be another user")
def test_names_of_another_uid_are_never_resolved(tmp_path, run_script):
    """Neither those in a segment of another user, nor those that another user asks for in ours."""
    (tmp_path / "tells.py").write_text(TELLS)
    environment = {"TELL": str(tmp_path / "told"), "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    code = """
import os, sys
import relay_mp
from relay_mp import subscribers
from relay_mp._session import dispatcher_process
what, path = sys.argv[1:]
if what == "ask":
    os.setuid(65534)
    os.environ["RELAY_MP_SESSION"] = path
    try:
        relay_mp.attach(path)
    except relay_mp.SegmentError as error:
        print(error)
elif what == "dispatch":
    try:
        dispatcher_process.main(path)
    except relay_mp.SegmentError as error:
        print(error)
"""
    with relay_mp.session(dispatcher="process") as session:
        table = msgpack.packb([["x", "tells:callback", None, None, 0, 1 << 62]])
        session._segment.store_subscriptions(table)
        assert session._segment.load_subscriptions() == table
        said = run_script(code, "ask", session.path, environment=environment).stdout
        assert "attaching to" in said
        assert "Permission denied" in said
        foreign = tmp_path / "foreign"
        foreign.write_bytes(Path(session.path).read_bytes())
        foreign.chmod(0o600)
        os.chown(foreign, 65534, -1)
        said = run_script(code, "dispatch", foreign, environment=environment).stdout
        assert "belongs to another user" in said
    assert not (tmp_path / "told").exists()


# ---- the table of named subscribers, which a dispatcher that died leaves to the next ----

ROW = ["of another", "named_subscribers:ignores", None, None, 0, 1 << 62, None]
TABLES = {
    "no msgpack": b"\xc1",
    "nothing more": b"\x91",
    "no list": msgpack.packb({"a": 1}),
    "a number": msgpack.packb(5),
    "a number for a row": msgpack.packb([5]),
    "a short row": msgpack.packb([ROW[:6]]),
    "a long row": msgpack.packb([[*ROW, None]]),
    "a target that is none": msgpack.packb([[ROW[0], 5, *ROW[2:]]]),
    "a target that is not there": msgpack.packb([[ROW[0], "no_such:x", *ROW[2:]]]),
    "a path for a target": msgpack.packb([[ROW[0], "../x:y", *ROW[2:]]]),
    "arguments that are none": msgpack.packb([[*ROW[:2], 5, *ROW[3:]]]),
    "arguments with a number for a name": msgpack.packb([[*ROW[:2], {5: 5}, *ROW[3:]]]),
    "a scope that is none": msgpack.packb([[*ROW[:3], [], *ROW[4:]]]),
    "places that are none": msgpack.packb([[*ROW[:4], "x", {}, None]]),
    "a process that is none": msgpack.packb([[*ROW[:6], [1, 2]]]),
    "a process with impossible numbers": msgpack.packb([[*ROW[:6], [-1, 1 << 63, 0]]]),
    "a name that is none": msgpack.packb([[[1], *ROW[1:]]]),
    "10,000 lists deep": b"\x91" * 10_000 + b"\xc0",
    "a list said to have 4 billion": b"\xdd" + LENGTH_32,
    "20,000 rows that are none": b"\xdc" + struct.pack(">H", 20_000) + b"\xc0" * 20_000,
}


@pytest.mark.parametrize("what", TABLES)
def test_a_hostile_table_of_subscribers_is_passed_over_and_the_stream_goes_on(forge, little_memory, caplog, what):
    """What is whole in it is taken, and the rest told in the log: a dispatcher that ended would be started for ever."""
    table = TABLES[what]
    forge.segment.store_subscriptions(table)
    assert forge.segment.load_subscriptions() == table
    subscriptions = Subscriptions(lambda subscribers, scope_locals: None)
    table_module.restore(forge.segment, subscriptions)
    assert all(type(found.callback) is Absent for found in subscriptions.all())  # what is not there is tried again
    assert caplog.records
    list(subscriptions.viewers(1, UUID))
    subscriptions.prune(1 << 40)


def test_what_is_whole_in_a_table_of_subscribers_is_taken(forge, caplog):
    forge.segment.store_subscriptions(
        msgpack.packb([5, ROW, [], [ROW[0] + "s", "os:getcwd", *ROW[2:3], 7, 0, 0, None]])
    )
    subscriptions = Subscriptions(lambda subscribers, scope_locals: None)
    table_module.restore(forge.segment, subscriptions)
    assert [(found.name, found.since, found.until) for found in subscriptions.all()] == [(ROW[0], 0, 1 << 62)]
    (told,) = caplog.messages
    assert "3 of its rows are passed over" in told


def test_a_dispatcher_after_a_hostile_table_delivers_on(tmp_path):
    with relay_mp.session(dispatcher="process") as session:
        subscribers.register("x", "named_subscribers:Lines", arguments={"path": str(tmp_path / "lines")})
        table = msgpack.unpackb(session._segment.load_subscriptions())
        session._segment.store_subscriptions(msgpack.packb([5, *table]))
        _, first, _ = session._segment.lease()
        os.kill(first, signal.SIGKILL)
        scope.event("after")
        subscribers.flush()
        assert session._segment.lease()[1] != first
    assert named_subscribers.names(tmp_path / "lines") == ["after"]


# Made where they are needed: 80 MB that stayed in pytest's process would be copied by each of its forks.
HUGE_TEXTS = {
    "a text of 64 MiB": lambda: '{"k":"' + "x" * (64 << 20) + '"}',
    "10,000 maps deep": lambda: '{"k":' * 10_000 + "null" + "}" * 10_000,
    "10,000 lists deep": lambda: "[" * 10_000 + "]" * 10_000,
    "1,000,000 keys": lambda: "{" + ",".join(f'"{n:x}":0' for n in range(1_000_000)) + "}",
    "a number of 60,000 digits": lambda: '{"version":' + "9" * 60_000 + "}",
}


# ---- a file that an exporter is to go on with ----

START = '{"atof_version":"0.1","data":'


@pytest.mark.parametrize("what", HUGE_TEXTS)
@pytest.mark.parametrize("start", ["", START], ids=["a stranger's", "an event's"])
def test_a_huge_last_line_of_a_file_is_refused_or_cut_off_or_completed(session, tmp_path, start, what):
    """No object, or deeper than JSON is read: the caller's error, and the file is as it was. An event's beginning: cut
    off. A whole object: it gets its line break."""
    text = HUGE_TEXTS[what]()
    file = tmp_path / "events.jsonl"
    file.write_text(START + "null}\n" + start + text)
    size = file.stat().st_size
    config = relay_mp.AtofExporterConfig()
    config.output_directory, config.filename = str(tmp_path), file.name
    exporter = relay_mp.AtofExporter(config)
    if not start and what not in ("a text of 64 MiB", "1,000,000 keys"):
        with pytest.raises(OSError, match="ends in a line that is not an event"):
            exporter.register("x")
        assert file.stat().st_size == size
        return
    exporter.register("x")
    scope.event("m")
    exporter.shutdown()
    lines = file.read_text().splitlines()
    assert json.loads(lines[-1])["name"] == "m"
    assert lines[1:-1] == ([] if start else [text])


# ---- what is never done with what is read ----


ALLOWED_NAMES = {
    "_session/process_host.py": {"marshal"},  # writes its own path for the dispatcher process it starts
    "_bench/loops.py": {"exec", "compile"},  # statements of its own, as timeit does
    "cli/bench.py": {"pickle"},  # asks whether a payload can be given to the producers; reads none
}
IMPORTERS_OF_COMMANDS = {"_bench/peers.py", "cli/joining.py", "cli/main.py"}
"""By names of tables of their own: peers, integrations, commands."""


def test_nothing_unpickles_or_evaluates():
    """By the names that its modules use. Modules by name are imported in one place only, beside those of the package
    that are loaded late, and what installed packages declare as entry points."""
    package = Path(relay_mp.__file__).parent
    importers, users_of_entry_points = set(), set()
    for file in sorted(package.rglob("*.py")):
        nodes, place = list(ast.walk(ast.parse(file.read_text()))), file.relative_to(package).as_posix()
        names = {node.id for node in nodes if isinstance(node, ast.Name)}
        forbidden = {"eval", "exec", "compile", "__import__", "pickle", "marshal", "shelve", "yaml"}
        forbidden -= ALLOWED_NAMES.get(place, set())
        assert not names & forbidden, file
        for node in nodes:
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called.endswith("import_module") and not isinstance(node.args[0], ast.Constant):
                importers.add(place)
            if called.endswith("entry_points"):
                users_of_entry_points.add(place)
    assert importers == {"__init__.py", "_deliver/named.py", "observability/__init__.py", *IMPORTERS_OF_COMMANDS}
    assert users_of_entry_points == {"observability/export/kinds.py"}
    refused = re.compile("^(cimport|import|from) +(pickle|marshal|importlib)", re.MULTILINE)
    for file in [*package.rglob("*.pyx"), *package.rglob("*.pxd")]:
        assert not refused.search(file.read_text()), file


# ---- the emitting side ----


def deep(depth):
    value = None
    for _ in range(depth):
        value = [value]
    return value


def deep_map(depth):
    value = None
    for _ in range(depth):
        value = {"k": value}
    return value


def test_a_text_of_64_mib_is_cut(session, seen):
    scope.event("m", data={"text": "x" * (64 << 20)}, metadata={"kept": True})
    scope.event("after")
    result = subscribers.flush()
    assert [event.name for event in seen] == ["m", "after"]
    assert seen[0].data == {"text": {"relay_mp.cut": {"bytes": (64 << 20) + 5}}}
    assert seen[0].metadata == {"kept": True}
    assert (result.lost, session.stats().cut) == (0, 1)


def test_a_million_keys_are_cut(session, seen):
    many = {f"{n:x}": n for n in range(1_000_000)}
    scope.event("m", data=many)
    with scope.scope("s", ScopeType.Agent, input=many):
        pass
    scope.event("after")
    assert subscribers.flush().lost == 0
    assert [event.name for event in seen] == ["m", "s", "s", "after"]
    assert [list(event.data) for event in seen[:2]] == [["relay_mp.cut"]] * 2


@pytest.mark.parametrize("make", [deep, deep_map])
def test_nesting_of_10_000_is_cut_and_arrives(session, seen, make):
    value = make(10_000)
    scope.event("deep", data=value)
    scope.pop(scope.push("deep", ScopeType.Agent, metadata=value))
    assert subscribers.flush().lost == 0
    assert [event.name for event in seen] == ["deep"] * 3
    assert '{"relay_mp.cut":{"depth":128}}' in seen[0].to_json()
    assert all(json.loads(event.to_json()) == event.to_dict() for event in seen)


@pytest.mark.parametrize("session", [{"strict": True}], indirect=True, ids=["strict"])
@pytest.mark.parametrize("make", [deep, deep_map])
def test_nesting_of_10_000_is_in_strict_mode_a_payload_error_and_nothing_has_moved(session, seen, make):
    value = make(10_000)
    with pytest.raises(relay_mp.PayloadError, match="nested deeper than 128 levels"):
        scope.event("bad", data=value)
    with pytest.raises(relay_mp.PayloadError, match="nested deeper than 128 levels"):
        scope.push("bad", ScopeType.Agent, metadata=value)
    scope.event("after", data=make(127))
    subscribers.flush()
    assert [event.name for event in seen] == ["after"]
    assert json.loads(seen[0].to_json())["data"] == make(127)


def test_what_can_be_emitted_can_be_decoded_in_a_thread_with_a_deep_stack(session, seen):
    """Reading back 127 levels takes no more frames than a deep caller has left."""
    scope.event("m", data=deep(127))
    subscribers.flush()
    found = []

    def descend(levels):
        if levels:
            descend(levels - 1)
        else:
            found.append((seen[0].to_json(), seen[0].to_dict()))

    thread = threading.Thread(target=descend, args=(500,))
    thread.start()
    thread.join()
    assert len(found) == 1


# ---- a parent's words ----

SCOPE_FIELDS = ["stack", "parent", "trace", "name", "type"]
values: st.SearchStrategy = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.just("00" * 16),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def applied_or_refused(text):
    """A handle whose every part is of its kind, or PropagationError; nothing between."""
    try:
        handle = carry.scope_from_text(text)
    except PropagationError:
        return
    assert len(handle._uuid) == 16
    assert len(handle._stack) % 16 == 0
    assert handle._stack[:16] == handle._uuid
    assert handle._parent is None or len(handle._parent) == 16
    assert handle._trace is None or len(handle._trace) == 16
    assert isinstance(handle.name, str)
    assert isinstance(handle.scope_type, ScopeType)


some_fields = st.dictionaries(st.sampled_from(SCOPE_FIELDS), values)


@given(st.text(max_size=200) | (values | some_fields).map(json.dumps))
@example("[" * 60_000)
@example('{"a":' * 10_000)
@example("9" * 60_000)
@example('{"stack":"' + "0" * 65_000)
def test_any_inherited_text_gives_a_scope_or_one_error(text):
    applied_or_refused(text)


@given(st.fixed_dictionaries({
    "stack": st.sampled_from(["00" * 16, "01" * 32, "01" * 32, "0 1", "00" * 15, "", "\u00e9" * 32, "00 " * 16]),
    "parent": st.sampled_from([None, "00" * 16, "00" * 16, "00" * 15, " " * 32, 5]),
    "trace": st.sampled_from([None, "00" * 16, "00" * 16, "00" * 15, [], {}]),
    "name": st.sampled_from(["n", "", "x" * 10_000, "\ud800", "\0", None]),
    "type": st.sampled_from([0, 1, 2, 11, -1, 99, True, 1.0, 1 << 70, "1"]),
}))  # fmt: skip
def test_any_fields_of_an_inherited_scope_are_taken_whole_or_not_at_all(fields):
    applied_or_refused(json.dumps(fields))


DECODERS = {
    "propagation JSON": relay_mp.PropagationContext.from_json,
    "traceparent": relay_mp.PropagationContext.from_traceparent,
    "RELAY_MP_SCOPE": carry.scope_from_text,
}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("what", HUGE_TEXTS)
def test_a_huge_text_from_the_wire_is_refused_before_it_costs_anything(little_memory, decoder, what):
    text = HUGE_TEXTS[what]()
    with pytest.raises(PropagationError) as caught:
        DECODERS[decoder](text)
    assert len(str(caught.value)) < 500


def test_a_scope_goes_there_and_back():
    with scope.scope("outer", ScopeType.Agent), scope.scope("inner", ScopeType.Tool) as inner:
        handle = carry.scope_from_text(carry.current_scope_text())
        assert (handle.uuid, handle.name, handle.scope_type) == (inner.uuid, "inner", ScopeType.Tool)


@pytest.mark.parametrize(
    "word", ["x", "/", "/dev/null", "/proc/self/mem", "../..", "relative", "x" * 5000, "\udcff", "a\nb", "/dev/shm"]
)
def test_a_word_of_a_session_that_is_none_is_ignored(run_script, word):
    out = run_script(
        """
import os
from relay_mp import scope, subscribers
scope.event("into nothing")
names = []
subscribers.register("x", lambda event: names.append(event.name))
scope.event("own")
subscribers.flush()
print(names)
""",
        environment={"RELAY_MP_SESSION": word},
    ).stdout
    assert out == "['own']\n"


def test_records_that_the_tests_forge_are_such(forge):
    forge.write(pack_record(2, UUID, None, 1, "forged", data={"a": 1}))
    scope.event("after")
    forge.drain()
    assert [(event.name, event.data) for event in forge.events] == [("forged", {"a": 1}), ("after", None)]

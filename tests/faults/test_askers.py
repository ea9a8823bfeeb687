"""Requests to the dispatcher from processes that have another uid than it has, and for names that are not allowed."""

import logging
import os
import re

import pytest

import relay_mp
from relay_mp import subscribers
from relay_mp._deliver import allowed, askers, table
from relay_mp._deliver.allowed import Allowed
from relay_mp._deliver.askers import Askers
from relay_mp._deliver.subscriptions import Subscriptions
from relay_mp._native import core

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

# What a worker asks for, as another user than the dispatcher; "made" is written by who imports it.
ASK = """
import os, sys
import relay_mp
from relay_mp import subscribers
from relay_mp._deliver.replacement import Named
from relay_mp.errors import SubscriberError
dispatcher, drop, made = sys.argv[1:]
session = relay_mp.session(dispatcher=dispatcher)
subscribers.register("there", "builtins:id")
harm = {"args": ["touch", made]}
asked = {
    "register": lambda: subscribers.register("x", "subprocess:Popen", arguments=harm),
    "replace": lambda: relay_mp.current_session().replace(["there"], [Named("x", "subprocess:Popen", harm)]),
    "deregister": lambda: relay_mp.current_session()._dispatch.deregister("there", None),
    "request_flush": lambda: relay_mp.current_session()._dispatch.request_flush("there"),
}
if (worker := os.fork()) == 0:
    if drop == "effective":
        os.seteuid(65534)
    else:
        os.setgid(65534); os.setuid(65534)
    for verb, ask in asked.items():
        try:
            ask()
        except SubscriberError as error:
            print(verb, "refused:", error, flush=True)
        else:
            print(verb, "done", flush=True)
    os._exit(0)
os.waitpid(worker, 0)
print(os.path.exists(made), session.stats().refused_requests, subscribers.deregister("there"))
session.close()
"""


@needs_root
@pytest.mark.parametrize("dispatcher", ["thread", "process"])
def test_a_worker_that_gave_up_root_has_nothing_done_with_roots_rights(run_script, tmp_path, dispatcher):
    done = run_script(ASK, dispatcher, "all", tmp_path / "made")
    *refused, last = done.stdout.splitlines()
    assert [line.split(":")[0] for line in refused] == [
        "register refused",
        "replace refused",
        "deregister refused",
        "request_flush refused",
    ]
    for line in refused:
        assert "its process has uid 65534; expected uid 0, the dispatcher's own. Ask before" in line
    assert last == "False 4 True"
    assert done.stderr.count("Later refusals are only counted") == 1
    assert "4 requests refused" in done.stderr


@needs_root
def test_an_effective_uid_alone_makes_another_asker(run_script, tmp_path):
    done = run_script(ASK, "thread", "effective", tmp_path / "made")
    assert "register refused: the request to register 'x' is refused: its process has uid 0/65534/0" in done.stdout
    assert done.stdout.splitlines()[-1] == "False 4 True"


@needs_root
def test_a_worker_that_gave_up_root_and_ends_at_once_is_refused(run_script, tmp_path):
    """The kernel knows its uid no more when its request is read: the dispatcher was busy until then."""
    done = run_script(
        """
import os, sys, threading
import relay_mp
from relay_mp import subscribers
from relay_mp._native import core
entered, go_on = threading.Event(), threading.Event()
def hold(event):
    entered.set()
    go_on.wait(30)
session = relay_mp.session()
subscribers.register("hold", hold)
relay_mp.scope.event("m")
entered.wait(30)
if (worker := os.fork()) == 0:
    os.setuid(65534)
    arguments = {"args": ["touch", sys.argv[1]]}
    request = {"name": "x", "target": "subprocess:Popen", "arguments": arguments, "scope": None, "uids": [0, 0, 0]}
    core.emit_control("register", request)
    os._exit(0)
os.waitpid(worker, 0)
go_on.set()
subscribers.flush()
print(os.path.exists(sys.argv[1]), session.stats().refused_requests, session.subscriber_names())
session.close()
""",
        tmp_path / "made",
    )
    assert done.stdout == "False 1 ['hold']\n"
    assert "its process has ended, and the uid is not known any more" in done.stderr


# ---- where nobody can become another user ----


@pytest.fixture
def asking(session):
    """Asks in this process's name: `asking(verb, **request)`."""
    slot, _ = core.emit_control("close_scope", {"scope": "00" * 16})
    subscribers.flush()
    gate = Askers(session._segment, Allowed("none"))

    def ask(verb, **request):
        gate.require(verb, {"name": "x", **request}, slot)

    return ask


def test_the_kernels_word_counts_before_that_of_who_asks(asking, session, monkeypatch):
    asking("request_flush", uids=[1, 2, 3])
    own = os.getpid()
    kernel = {own: [0, 0, 0]}
    monkeypatch.setattr(askers, "_uids", lambda pid: kernel[pid])
    asking("request_flush", uids=askers.told_uids())
    monkeypatch.setattr(askers, "_found", lambda process: [7, 7, 7])
    with pytest.raises(relay_mp.SubscriberError, match="its process has uid 7; expected uid"):
        asking("request_flush", uids=[0, 0, 0])
    assert session.stats().refused_requests == 1


def test_where_the_kernel_tells_nothing_a_changed_uid_is_refused_by_its_own_word(asking, session, monkeypatch):
    monkeypatch.setattr(askers, "_uids", lambda pid: None)
    asking("request_flush", uids=askers.told_uids())
    with pytest.raises(relay_mp.SubscriberError, match=r"its process has uid 1/2/3 \(real/effective/saved\); expected"):
        asking("request_flush", uids=[1, 2, 3])
    assert session.stats().refused_requests == 1


def test_the_kernel_tells_the_uids_of_a_process():
    assert askers._uids(os.getpid()) == list(os.getresuid())
    assert askers._uids_by_psutil(os.getpid()) == list(os.getresuid())


def test_of_a_process_that_has_ended_only_what_imports_nothing_is_done(asking, session, monkeypatch):
    """A worker that ends a scope with local subscribers waits for no answer."""
    monkeypatch.setattr(askers, "_found", lambda process: None)
    monkeypatch.setattr(askers, "is_dead", lambda *process: True)
    for verb in ("close_scope", "deregister", "request_flush"):
        asking(verb, uids=askers.told_uids())
    for verb in ("register", "replace"):
        with pytest.raises(relay_mp.SubscriberError, match="its process has ended"):
            asking(verb, uids=askers.told_uids())
    assert session.stats().refused_requests == 2


# ---- what is imported for other processes ----

OTHERS = """
import os, sys
import relay_mp
from relay_mp import subscribers
from relay_mp.errors import SubscriberError
dispatcher, names, *targets = sys.argv[1:]
session = relay_mp.session(dispatcher=dispatcher, allowed_subscribers=names)
subscribers.register("of the owner", "builtins:repr")
if (worker := os.fork()) == 0:
    for target in targets:
        try:
            subscribers.register(target, target)
        except SubscriberError as error:
            print("refused", error, flush=True)
        else:
            print("registered", target, flush=True)
    os._exit(0)
os.waitpid(worker, 0)
print(session.stats().refused_requests)
session.close()
"""


@pytest.mark.parametrize("dispatcher", ["thread", "process"])
def test_another_process_has_imported_what_the_session_allows_and_no_more(run_script, dispatcher):
    """The owner's own, and what the patterns say, in which * stands for one part of a name."""
    done = run_script(OTHERS, dispatcher, "os.*:getp*, builtins:id", "builtins:repr", "builtins:id", "os:getpid")
    own, listed, refused, count = done.stdout.splitlines()
    assert (own, listed, count) == ("registered builtins:repr", "registered builtins:id", "1")
    assert refused.startswith("refused 'os:getpid' is not imported for another process: the session allows exporters, ")
    assert "what its owner has registered, and 'os.*:getp*, builtins:id'. Register it" in refused
    targets = "named_subscribers:names", "named_subscribers:os.getpid"
    done = run_script(OTHERS, dispatcher, "named_subscribers:*", *targets)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["registered", "refused", "1"]


def test_by_default_a_process_of_the_same_uid_may_name_anything(run_script):
    default = OTHERS.replace(", allowed_subscribers=names", "")
    assert run_script(default, "thread", "-", "os:getpid").stdout.splitlines() == ["registered os:getpid", "0"]
    variable = {"RELAY_MP_ALLOWED_SUBSCRIBERS": "none"}
    narrowed = run_script(default, "thread", "-", "os:getpid", environment=variable).stdout.splitlines()
    assert [line.split()[0] for line in narrowed] == ["refused", "1"]


def test_exporters_are_always_allowed(run_script, tmp_path):
    run_script(
        """
import os, sys
import relay_mp
with relay_mp.session(allowed_subscribers="none"):
    if (worker := os.fork()) == 0:
        config = relay_mp.AtofExporterConfig()
        config.output_directory, config.filename = sys.argv[1], "a"
        relay_mp.AtofExporter(config).register("file")
        relay_mp.observability.exporter("atof_file", path=sys.argv[1] + "/b").register("by kind")
        relay_mp.scope.event("m")
        os._exit(0)
    assert os.waitpid(worker, 0)[1] == 0
""",
        tmp_path,
    )
    assert [(tmp_path / name).read_text().count('"m"') for name in "ab"] == [1, 1]


def test_the_packages_exporters_are_always_allowed():
    root = os.path.dirname(relay_mp.__file__)
    found = set()
    for folder, _, files in os.walk(os.path.join(root, "observability")):
        for name in files:
            if name.endswith(".py"):
                with open(os.path.join(folder, name)) as file:
                    found |= set(re.findall(r'"(relay_mp\.observability\.[\w.]+:\w+)"', file.read()))
    assert len(found - {allowed.STARTER}) >= 10
    for target in found - {allowed.STARTER}:
        allowed.Allowed("none").require(target, {})


@pytest.mark.parametrize(
    "target",
    [
        "relay_mp.observability.atof.sink:os.system",
        "relay_mp.observability.atof.sink:os",
        "relay_mp.observability.atof.sink:FileSink.__init__",
        "relay_mp.observability.sink:FileSink",
        "relay_mpXobservability.atof.sink:FileSink",
        "other.relay_mp.observability.atof.sink:FileSink",
        "relay_mp.observability.atof.sink:FileSink\n",
    ],
)
def test_what_is_only_spelt_like_an_exporter_is_not(target):
    with pytest.raises(relay_mp.SubscriberError, match="is not imported for another process"):
        allowed.Allowed("none").require(target, {})


def test_what_starts_an_exporter_is_allowed_for_what_it_starts():
    listed = Allowed("none")
    inner = {"target": "subprocess:Popen", "arguments": {}}
    listed.require(allowed.STARTER, {"target": "relay_mp.observability.atof.sink:FileSink", "arguments": {}})
    for arguments in (inner, {"target": allowed.STARTER, "arguments": inner}, {}, None):
        with pytest.raises(relay_mp.SubscriberError, match="is not imported for another process"):
            listed.require(allowed.STARTER, arguments)
    listed.note(allowed.STARTER, {"target": "mine:Sink", "arguments": {}})
    listed.require("mine:Sink", None)
    with pytest.raises(relay_mp.SubscriberError):
        listed.require(allowed.STARTER, inner)


def test_a_dispatcher_that_is_started_again_takes_over_what_is_allowed_only(session, caplog):
    """Anybody who has the segment mapped may have written a row of its table."""
    segment = session._segment
    subscriptions = Subscriptions(lambda *counts: None)
    subscriptions_of_before = Subscriptions(lambda *counts: None)
    for name, target in (("mine", "builtins:id"), ("planted", "builtins:exec")):
        subscribers.register(name, target)
        found = session._own_dispatch._subscriptions.live(name, None)
        subscriptions_of_before.restore([found])
    table.save(segment, subscriptions_of_before)
    before = Allowed("none")
    before.note("builtins:id", None)
    with caplog.at_level(logging.ERROR, "relay_mp"):
        table.restore(segment, subscriptions, Allowed(before.as_setting()))
    assert [subscription.name for subscription in subscriptions.all()] == ["mine"]
    assert "'builtins:exec' is not imported for another process" in caplog.text


@pytest.mark.parametrize("names", ["os", "os:", ":getpid", "a:b c", "a:b;c:d", "none,os"])
def test_what_is_not_a_pattern_is_refused(names):
    with pytest.raises(relay_mp.SessionError, match=r'is not a pattern; expected "package\.module:attribute"'):
        relay_mp.session(allowed_subscribers=names)

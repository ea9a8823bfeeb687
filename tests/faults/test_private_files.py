"""Files in shared directories are private: mode 0600, no link followed, owner checked, directories with mode 0700.

What another user could have put there before is really put there: links, pipes, directories, and files that the
superuser gives to another user. Where the tests are run without that right, those that need it are skipped.
"""

import json
import os
import stat

import pytest

import relay_mp
from relay_mp import scope, subscribers
from relay_mp._deliver import private_files
from relay_mp._native.segments import Segment
from relay_mp._session import naming, placing
from relay_mp._session.settings import resolve

pytestmark = pytest.mark.timeout(120)

ANOTHER_UID = 65534
SECRET = "sk-SECRET"

needs_chown = pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can give a file to another user")


@pytest.fixture
def shared(tmp_path):
    """A directory like /tmp: everybody may write in it."""
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o1777)
    return directory


@pytest.fixture
def victim(tmp_path):
    """A file of this user's that a planted link leads to."""
    file = tmp_path / "authorized_keys"
    file.write_text("")
    return file


@pytest.fixture(params=[0o000, 0o022, 0o077], ids="umask {:03o}".format)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path):
    return oct(stat.S_IMODE(os.stat(path).st_mode))


# ------------------------------------------------------------------------------------------- each file it makes


def atof(directory):
    config = relay_mp.AtofExporterConfig(output_directory=directory, filename="events.jsonl")
    return relay_mp.AtofExporter(config), directory / "events.jsonl"


def perfetto(directory):
    return relay_mp.PerfettoExporter(directory / "trace.json"), directory / "trace.json"


def atif(directory):
    return relay_mp.AtifFileExporter(directory), None


EXPORTERS = [atof, perfetto, atif]


def run_an_agent(while_it_runs=lambda uuid: None):
    with scope.scope("agent", relay_mp.ScopeType.Agent) as agent:
        scope.event("said", data=SECRET)
        while_it_runs(agent.uuid)
    subscribers.flush()


def leave_a_session(run_script, directory):
    """Kills a program whose session has an event that is not delivered. Returns the segment's path."""
    code = """
import os, signal, sys, threading
import relay_mp
from relay_mp import scope, subscribers
session = relay_mp.session(directory=sys.argv[1])
subscribers.register("x", lambda event: threading.Event().wait())
scope.event("said", data=sys.argv[2])
print(session.path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    return run_script(code, directory, SECRET, returncode=-9).stdout.strip()


def recovered_file(directory, segment):
    return directory / f"relay-mp-recovered-{os.path.basename(segment).split('-', 2)[2]}.jsonl"


@pytest.mark.parametrize("export_to", EXPORTERS, ids=lambda each: each.__name__)
def test_a_file_that_is_made_is_for_this_user_alone_under_any_umask(shared, umask, export_to):
    exporter, _ = export_to(shared / "made" / "here")
    with relay_mp.session():
        exporter.register("file")
        run_an_agent()
    (path,) = (shared / "made" / "here").iterdir()
    assert SECRET in path.read_text()
    assert (mode(path), mode(path.parent), mode(path.parent.parent)) == ("0o600", "0o700", "0o700")


def test_a_recovered_file_is_for_this_user_alone_under_any_umask(run_script, tmp_path, shared, umask):
    segment = leave_a_session(run_script, tmp_path)
    assert mode(segment) == "0o600"
    with relay_mp.session(directory=tmp_path, recovery_directory=shared):
        pass
    assert SECRET in recovered_file(shared, segment).read_text()
    assert mode(recovered_file(shared, segment)) == "0o600"


def test_a_file_that_is_there_keeps_its_mode_and_so_do_those_that_follow_it(tmp_path, umask):
    path = tmp_path / "events.jsonl"
    path.touch()
    path.chmod(0o640)
    config = relay_mp.AtofExporterConfig(output_directory=tmp_path, filename=path.name, rotate_bytes=200)
    with relay_mp.session():
        relay_mp.AtofExporter(config).register("file")
        for number in range(4):
            scope.event(f"{number}", data={"text": "x" * 300})
    found = sorted(tmp_path.glob("events*.jsonl"))
    assert len(found) == 4
    assert {mode(file) for file in found} == {"0o640"}


# ----------------------------------------------------------------------------------- what others have put there


def plant_link(path, victim):
    path.symlink_to(victim)


def plant_dangling_link(path, victim):
    path.symlink_to(victim.with_name("new"))


def plant_second_name(path, victim):
    os.link(victim, path)


def plant_pipe(path, victim):
    os.mkfifo(path, 0o666)


def plant_file(path, victim):
    path.touch()
    path.chmod(0o666)
    os.chown(path, ANOTHER_UID, ANOTHER_UID)


HOSTILE = [
    plant_link,
    plant_dangling_link,
    plant_second_name,
    plant_pipe,
    pytest.param(plant_file, marks=needs_chown),
]


def untouched(path, victim):
    """Whether nothing was written to what was planted, nor by way of it."""
    assert victim.read_text() == ""
    assert not victim.with_name("new").exists()
    return path.is_symlink() or not path.is_file() or path.read_text() == ""


@pytest.mark.parametrize("plant", HOSTILE)
@pytest.mark.parametrize("export_to", [atof, perfetto], ids=lambda each: each.__name__)
def test_nothing_that_others_have_put_under_a_files_name_is_written_to(shared, victim, export_to, plant):
    exporter, path = export_to(shared)
    plant(path, victim)
    with relay_mp.session(), pytest.raises((OSError, relay_mp.SubscriberError), match="expected no such file"):
        exporter.register("file")
    assert untouched(path, victim)


@pytest.mark.parametrize("plant", HOSTILE)
def test_a_trajectory_takes_the_place_of_what_was_planted_or_is_not_written(shared, victim, plant):
    planted = []

    def plant_it(uuid):
        planted.append(shared / f"relay-mp-atif-{uuid}.json")
        plant(planted[0], victim)

    with relay_mp.session():
        relay_mp.AtifFileExporter(shared).register("file")
        run_an_agent(plant_it)
    (path,) = planted
    assert victim.read_text() == ""
    assert untouched(path, victim) or SECRET in path.read_text()
    assert path.is_symlink() or not path.is_file() or mode(path) == "0o600"


@pytest.mark.parametrize("plant", [*HOSTILE, lambda path, victim: path.mkdir()])
def test_what_is_planted_for_a_recovered_file_neither_gets_the_events_nor_holds_them_up(
    run_script, tmp_path, shared, victim, plant
):
    segment = leave_a_session(run_script, tmp_path)
    plant(recovered_file(shared, segment), victim)
    with relay_mp.session(directory=tmp_path, recovery_directory=shared):
        pass
    assert untouched(recovered_file(shared, segment), victim)
    (found,) = (path for path in shared.iterdir() if path != recovered_file(shared, segment))
    assert [json.loads(line)["data"] for line in found.read_text().splitlines()] == [SECRET]
    assert mode(found) == "0o600"
    assert not os.path.exists(segment)


@pytest.mark.parametrize("plant", HOSTILE)
def test_a_segment_is_neither_made_over_what_was_planted_nor_found_by_a_link(shared, victim, plant, tmp_path):
    """Also if somebody could foresee its name, of which a part is random."""
    planted = shared / f"relay_mp-{os.geteuid()}-foreseen"
    plant(planted, victim)
    with pytest.raises(relay_mp.SegmentError):
        placing.place(resolve(directory=str(shared)), "foreseen")
    assert untouched(planted, victim)
    made, _ = placing.place(resolve(directory=str(tmp_path)), "made")
    assert mode(made.path) == "0o600"
    (shared / "link").symlink_to(made.path)
    with pytest.raises(relay_mp.SegmentError):
        Segment.attach(str(shared / "link"))
    made.unlink()
    made.close()


@pytest.mark.parametrize("plant", HOSTILE)
def test_recover_writes_to_nothing_that_was_planted_and_keeps_the_events(run_script, tmp_path, shared, victim, plant):
    segment = leave_a_session(run_script, tmp_path)
    plant(shared / "out.jsonl", victim)
    with pytest.raises(relay_mp.SessionError, match="expected no such file, or one of this user's"):
        relay_mp.recover(segment, shared / "out.jsonl")
    assert untouched(shared / "out.jsonl", victim)
    assert relay_mp.recover(segment, tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    "plant",
    [
        lambda path, elsewhere: path.symlink_to(elsewhere),
        lambda path, elsewhere: path.touch(),
        lambda path, elsewhere: (path.mkdir(), path.chmod(0o777)),
        pytest.param(lambda path, elsewhere: (path.mkdir(), os.chown(path, ANOTHER_UID, -1)), marks=needs_chown),
    ],
    ids=["a link", "a file", "open to all", "another user's"],
)
def test_a_directory_of_ones_own_is_elsewhere_if_others_have_its_name(shared, tmp_path, plant):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    plant(shared / "copies", elsewhere)
    found = private_files.own_directory(str(shared / "copies"))
    assert os.path.dirname(found) == str(shared)
    assert found != str(shared / "copies")
    assert mode(found) == "0o700"
    assert list(elsewhere.iterdir()) == []


def test_a_directory_of_ones_own_is_made_once_and_found_again(shared, umask):
    for _ in range(2):
        assert private_files.own_directory(str(shared / "copies")) == str(shared / "copies")
        assert mode(shared / "copies") == "0o700"


def test_copies_of_trajectories_are_read_from_ones_own_directory_only(shared, victim, monkeypatch):
    """A directory whose name others could foresee is not looked into: what is in it is not sent."""
    monkeypatch.setattr("tempfile.tempdir", str(shared))
    victim.write_text("PRIVATE KEY")
    storage = relay_mp.observability.HttpStorageConfig(endpoint="http://127.0.0.1:9/")  # nobody is there
    with relay_mp.session() as session:
        planted = shared / f"relay-mp-atif-{session.id}-1"
        planted.mkdir()
        planted.chmod(0o777)
        (planted / "x.json").symlink_to(victim)
        exporter = relay_mp.AtifFileExporter(storage=storage, limits={"retry_deadline_seconds": 0.0})
        exporter.register("atif")
        run_an_agent()
        assert exporter.report()["atif"].taken == 3
        exporter.shutdown(1.0)
    assert [path.name for path in planted.iterdir()] == ["x.json"]
    (own,) = (path for path in shared.iterdir() if path != planted)
    assert mode(own) == "0o700"
    assert [SECRET in path.read_text() for path in own.iterdir()] == [True]
    assert {mode(path) for path in own.iterdir()} == {"0o600"}


def test_links_in_a_directory_of_the_users_own_are_followed(tmp_path):
    real = tmp_path / "disk" / "events.jsonl"
    real.parent.mkdir()
    (tmp_path / "events.jsonl").symlink_to(real)
    exporter, _ = atof(tmp_path)
    with relay_mp.session():
        exporter.register("file")
        run_an_agent()
    assert SECRET in real.read_text()


# ----------------------------------------------------------------------------------------------------- segments


def test_thousands_of_planted_names_are_passed_over_with_one_line(tmp_path, shared, caplog):
    """With what could be sent to a terminal in them."""
    for number in range(1000):
        (shared / f"relay_mp-{os.geteuid()}-\x1b[2J{number}").symlink_to(tmp_path)
    with relay_mp.session(directory=shared) as session:
        assert naming.own_segments(str(shared)) == [session.path]
    lines = [record.getMessage() for record in caplog.records if "passed over" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("1000 names in ")
    assert "\x1b" not in caplog.text
    assert len(list(shared.iterdir())) == 1000


@needs_chown
def test_a_segment_of_another_user_is_neither_attached_nor_swept(run_script, tmp_path):
    segment = leave_a_session(run_script, tmp_path)
    os.chown(segment, ANOTHER_UID, -1)
    with pytest.raises(relay_mp.SegmentError, match="belongs to another user"):
        relay_mp.attach(segment)
    with relay_mp.session(directory=tmp_path, recovery_directory=tmp_path):
        assert os.path.exists(segment)


def test_the_file_of_a_dispatcher_process_for_atif_is_private(shared, umask, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(shared))
    with relay_mp.session(dispatcher="process"):
        exporter = relay_mp.AtifExporter("s", "agent", "1")
        exporter.register("atif")
        run_an_agent()
        (spool,) = shared.iterdir()
        assert mode(spool) == "0o600"
        assert SECRET in json.dumps(exporter.export())
        exporter.deregister("atif")
    assert list(shared.iterdir()) == []

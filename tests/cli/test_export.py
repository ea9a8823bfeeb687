"""A recorded run in every format: the true times, identities and emitters, and what happens when it cannot be."""

import json
import os
import stat

import pytest
from recorded import START_US, answer, error, line, scope_lines, uuid

from relay_mp.cli import export, main
from relay_mp.cli.exits import Exit
from tests.observability.receiver import Receiver


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [
        line("start", 1, 0, name="answer", category="agent", data={"q": "why?"}),
        *scope_lines(2, 1000, 3000, name="search", category="tool", parent=1, metadata=error("OSError", "gone")),
        line("mark", 4, 3500, name="thought", parent=1, data=[1, 2]),
        *scope_lines(3, 4000, 9000, name="gpt", category="llm", parent=1, data=answer(1200, 34), pid=8),
        line("end", 1, 10_000, name="answer", category="agent", data="because"),
    ]
    path = tmp_path / "events.jsonl"
    path.write_text("".join(f"{each}\n" for each in lines), encoding="utf-8")
    return path


@pytest.fixture
def receiver():
    with Receiver() as server:
        yield server


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    """pyarrow's module. It has read and written a file: from then on early versions keep descriptors of their own."""
    module = pytest.importorskip("pyarrow.parquet")
    file = tmp_path_factory.mktemp("parquet") / "file"
    module.write_table(pytest.importorskip("pyarrow").table({"n": [1]}), file)
    module.read_table(file)
    return module


def exported(capsys, *argv):
    code = main.main(["export", *argv])
    return code, *capsys.readouterr()


def spans(bodies):
    proto = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    found = {}
    for body in bodies:
        for resource in proto.ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                found |= {span.name: (span, resource.resource) for span in scope.spans}
    return found


def test_every_format_has_a_writer_and_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main.main(["export", "--help"])
    assert "{perfetto,otlp,openinference,atif,jsonl,parquet}" in capsys.readouterr().out


def test_jsonl_is_the_file_again_to_the_byte(recorded, capsys):
    code, out, err = exported(capsys, "events.jsonl", "--to", "jsonl")
    assert (code, out, err) == (Exit.DONE, recorded.read_text(encoding="utf-8"), "")


def test_jsonl_without_origin(recorded, capsys):
    _, out, _ = exported(capsys, "events.jsonl", "--to", "jsonl", "--no-origin")
    assert json.loads(out.splitlines()[0])["metadata"] is None
    assert "relay_mp.origin" not in out


def test_perfetto_has_the_times_of_the_run(recorded, capsys):
    code, out, _ = exported(capsys, "events.jsonl", "--to", "perfetto")
    assert (code, out) == (Exit.DONE, "7 events in events.perfetto.json; open it in https://ui.perfetto.dev\n")
    trace = json.loads((recorded.parent / "events.perfetto.json").read_text(encoding="utf-8"))
    slices = {event["name"]: event for event in trace if event["ph"] == "X"}
    assert round(slices["gpt"]["ts"] - slices["answer"]["ts"]) == 4000
    assert round(slices["gpt"]["dur"]) == 5000
    assert (slices["answer"]["pid"], slices["gpt"]["pid"]) == (7, 8)
    assert slices["answer"]["args"]["uuid"] == uuid(1)


def test_atif_has_a_trajectory_for_each_agent(recorded, capsys):
    code, out, _ = exported(capsys, "events.jsonl", "--to", "atif", "-o", "out")
    assert (code, out) == (Exit.DONE, "7 events in out, 1 trajectory\n")
    [file] = (recorded.parent / "out").iterdir()
    assert json.loads(file.read_text(encoding="utf-8"))["session_id"] == uuid(1)


def test_atif_of_a_run_without_an_agent_says_so(recorded, capsys):
    recorded.write_text("\n".join(scope_lines(1, 0, 9)), encoding="utf-8")
    code, _, err = exported(capsys, "events.jsonl", "--to", "atif")
    assert code == Exit.INPUT
    assert "no agent's scope" in err


def test_parquet_has_a_row_for_each_event(recorded, parquet, capsys):
    code, out, _ = exported(capsys, "events.jsonl", "--to", "parquet")
    assert (code, out) == (Exit.DONE, "7 events in events.parquet\n")
    rows = parquet.read_table(recorded.parent / "events.parquet").to_pylist()
    assert [row["kind"] for row in rows] == ["start", "start", "end", "mark", "start", "end", "end"]
    first = rows[0]
    assert round(first["timestamp"].timestamp() * 1e6) == START_US
    assert (first["name"], first["pid"], first["seq"], first["data"]) == ("answer", 7, 0, '{"q":"why?"}')
    assert stat.S_IMODE(os.stat("events.parquet").st_mode) == 0o600


def test_otlp_has_the_times_and_the_identities_of_the_run(recorded, receiver, capsys):
    url = receiver.url.partition("?")[0]
    code, out, err = exported(
        capsys, "events.jsonl", "--to", "otlp", "--url", url, "--service", "shop", "--header", "x-key=secret"
    )
    assert (code, out, err) == (Exit.DONE, f"7 events in {url}\n", "")
    found = spans(receiver.bodies)
    answered, resource = found["answer"]
    assert answered.start_time_unix_nano == START_US * 1000
    assert found["gpt"][0].end_time_unix_nano == (START_US + 9000) * 1000
    assert found["gpt"][0].parent_span_id == answered.span_id
    assert {item.key: item.value.string_value for item in resource.attributes}["service.name"] == "shop"
    assert {headers["x-key"] for headers in receiver.headers} == {"secret"}


def test_openinference_has_its_own_attributes(recorded, receiver, capsys):
    pytest.importorskip("openinference.semconv")
    code, _, _ = exported(capsys, "events.jsonl", "--to", "openinference", "--url", receiver.url)
    assert code == Exit.DONE
    attributes = {item.key: item.value for item in spans(receiver.bodies)["gpt"][0].attributes}
    assert attributes["openinference.span.kind"].string_value == "LLM"
    assert attributes["llm.token_count.prompt"].int_value == 1200


def test_a_receiver_that_is_slower_than_the_file_gets_everything(recorded, receiver, capsys):
    lines = [each for n in range(6000) for each in scope_lines(n, n, n + 1)]
    recorded.write_text("\n".join(lines), encoding="utf-8")
    code, out, _ = exported(capsys, "events.jsonl", "--to", "otlp", "--url", receiver.url)
    assert code == Exit.DONE
    assert out.startswith("12,000 events in ")


def test_a_receiver_that_refuses_is_an_error_with_its_words(recorded, receiver, capsys):
    receiver.plan.append(400)
    code, out, err = exported(capsys, "events.jsonl", "--to", "otlp", "--url", receiver.url)
    assert (code, out) == (Exit.OUTPUT, "")
    assert "7 events of 7 could not be exported (refused 7)" in err
    assert "400" in err
    assert err.count("\n") == 1


def test_a_receiver_that_is_not_there_is_given_up(recorded, capsys, monkeypatch):
    monkeypatch.setattr(export, "GIVE_UP_SECONDS", 0.1)
    code, _, err = exported(capsys, "events.jsonl", "--to", "otlp", "--url", "http://127.0.0.1:9")
    assert code == Exit.OUTPUT
    assert "ConnectionRefusedError" in err


def test_an_output_that_is_there_is_left_alone_unless_forced(recorded, capsys):
    assert exported(capsys, "events.jsonl", "--to", "perfetto")[0] == Exit.DONE
    code, _, err = exported(capsys, "events.jsonl", "--to", "perfetto")
    assert code == Exit.OUTPUT
    assert "events.perfetto.json is there already; name another with -o, or replace it with --force" in err
    assert exported(capsys, "events.jsonl", "--to", "perfetto", "--force")[0] == Exit.DONE


def test_an_output_that_cannot_be_written_is_an_error_of_the_output(recorded, capsys):
    code, _, err = exported(capsys, "events.jsonl", "--to", "jsonl", "-o", "missing/out.jsonl")
    assert code == Exit.OUTPUT
    assert "missing/out.jsonl cannot be written: No such file or directory" in err


def test_an_event_that_is_no_record_is_left_out_and_said(recorded, capsys):
    with open(recorded, "a", encoding="utf-8") as file:
        file.write(line("mark", 9, 9, uuid="not one") + "\n")
    code, out, err = exported(capsys, "events.jsonl", "--to", "jsonl")
    assert code == Exit.DONE
    assert len(out.splitlines()) == 7
    assert "left out: the event 'work' cannot be a record" in err


def test_a_header_without_a_value_is_a_wrong_command_line(recorded, capsys):
    code, _, err = exported(capsys, "events.jsonl", "--to", "otlp", "--header", "x-key")
    assert code == Exit.USAGE
    assert "expected NAME=VALUE" in err

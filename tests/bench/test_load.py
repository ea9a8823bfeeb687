"""A document of a load: what it must hold, what it must say, and its picture."""

import json
from xml.etree import ElementTree

import pytest

from relay_mp._bench import load as load_module
from relay_mp._bench.children import Unavailable
from relay_mp._bench.fleet import Order
from relay_mp._bench.histogram import BINS_A_DECADE
from relay_mp._bench.load import FORMAT, Load, measure
from relay_mp._bench.peers import MultiprocessingQueue, Nemo, Relay
from relay_mp._bench.picture import svg

DESCRIBED = {"payload": "fields", "command": "relay-mp bench"}
RELAY = Relay(ring_bytes=1 << 20)


def measured(relay=RELAY, peers=(), rounds=2, **load):
    settings = {"processes": 2, "rate_hz": 2000.0, "seconds": 0.05, **load}
    return measure(Load(**settings), relay, peers, rounds, described=DESCRIBED)


@pytest.fixture(scope="module")
def paced():
    return measured(peers=[MultiprocessingQueue()])


def check_row(row, calls):
    assert row["unit"] == "ns"
    assert (row["count"], row["emitted"], row["delivered"], row["lost"]) == (calls, calls, calls, 0)
    assert sum(row["bins"]["counts"]) == calls
    assert 0 < row["median"] <= row["p90"] <= row["p99"] <= row["max"]
    assert len(row["rounds"]) == 2
    assert row["spread"]["median"] >= 1
    assert row["reached_hz"] > 0
    assert row["clock_ns"] > 0


def test_the_document_has_all_sides_and_says_how_it_came_about(paced):
    assert paced == json.loads(json.dumps(paced))
    assert paced["format"] == FORMAT
    assert [row["side"].partition(":")[0] for row in paced["rows"]] == ["relay_mp", "multiprocessing.Queue", "floor"]
    for row in paced["rows"]:
        check_row(row, calls=400)
        assert row["corrected"]["count"] == 400
        assert row["corrected"]["max"] >= row["max"]
    assert paced["load"] == {
        "processes": 2, "threads": 1, "rate_hz": 2000.0, "seconds": 0.05, "rounds": 2, "warm_up_rounds": 1,
        "payload": "fields", "payload_msgpack_bytes": 35, "dispatcher": "thread", "ring_bytes": 1 << 20,
        "on_full": "block", "exporters": [],
    }  # fmt: skip
    assert set(paced["method"]) == {
        "interval", "clock", "warm_up", "rounds", "full_ring", "coordinated_omission", "spread", "floor", "bins",
    }  # fmt: skip
    assert {"processor", "cores", "governor", "load_average_before"} <= set(paced["machine"])
    assert {"python", "relay_mp", "numpy"} <= set(paced["versions"])
    assert paced["unavailable"] == {}


def test_the_picture_is_well_formed_and_has_a_curve_for_each_side(paced):
    document = {**paced, "load": {**paced["load"], "payload": "<a> & b"}}
    root = ElementTree.fromstring(svg(document))
    space = {"svg": "http://www.w3.org/2000/svg"}
    texts = [text.text for text in root.iterfind(".//svg:text", space)]
    assert {"relay_mp", "multiprocessing.Queue", "floor"} <= set(texts)
    assert any("<a> & b" in text for text in texts)
    solid = [path for path in root.iterfind(".//svg:path", space) if "stroke-dasharray" not in path.attrib]
    assert len(solid) == 2 * len(document["rows"])  # its curve, and its line in the legend
    assert "href" not in svg(document)


def test_flat_out_in_threads_of_the_session_s_process_nothing_is_corrected():
    document = measured(processes=0, threads=2, rate_hz=None, seconds=0.02)
    row = document["rows"][0]
    assert row["corrected"] is None
    assert row["emitted"] == row["delivered"] == row["count"] > 0
    assert document["method"]["coordinated_omission"].startswith("flat out")


def test_a_dispatcher_process_with_an_exporter_delivers_all():
    relay = Relay(dispatcher="process", ring_bytes=1 << 20, exporters=(("atof_file", {}),))
    document = measured(relay, rounds=1)
    assert document["load"]["exporters"] == ["atof_file"]
    assert document["rows"][0]["delivered"] == document["rows"][0]["emitted"] == 200


def test_what_a_full_ring_drops_is_told():
    document = measured(Relay(ring_bytes=1 << 20, on_full="drop"), rate_hz=None, seconds=0.1, processes=2, rounds=1)
    row = document["rows"][0]
    assert row["lost"] == row["emitted"] - row["delivered"] >= 0
    assert any("events were lost" in note for note in document["notes"]) == (row["lost"] > 0)


class Absent(Nemo):
    """A peer that is not installed."""

    module = "no_such_module"


def test_a_peer_that_is_not_there_is_told_and_the_others_go_on():
    document = measured(peers=[Absent()])
    assert document["unavailable"] == {"nemo-relay": "not installed (no module named 'no_such_module')"}
    assert "nemo-relay is left out: not installed (no module named 'no_such_module')" in document["notes"]
    assert [row["side"].partition(":")[0] for row in document["rows"]] == ["relay_mp", "floor"]


@pytest.mark.parametrize(
    ("relay", "payload", "message"),
    [
        (RELAY, {"text": "x" * (1 << 18)}, "over the size limit of an event"),
        (Relay(ring_bytes=1 << 20, exporters=(("nonsense", {}),)), None, "there is no exporter 'nonsense'"),
    ],
)
def test_what_cannot_be_measured_is_refused(relay, payload, message):
    with pytest.raises(Unavailable, match=message):
        measured(relay, payload=payload)


def test_orders():
    assert Load(rate_hz=2000.0, seconds=0.5).order() == Order(1000, interval_ns=500_000)
    assert Load(rate_hz=None, seconds=0.5).order() == Order(load_module.MAX_CALLS_A_ROUND, seconds=0.5)
    assert Load(processes=0, threads=3).producers == 3
    assert BINS_A_DECADE == 20


def row(**figures):
    made = {"side": "relay_mp", "count": 10**6, "lost": 0, "emitted": 10, "rounds": [], "spread": {}, "p9999": 1.0}
    return {**made, **figures}


def noted(producers=1, **changed):
    at = {"load_average_before": 0.1, "cores": 4, "governor": None}
    document = {"machine": at, "rows": [row()], "unavailable": {}, **changed}
    return list(load_module._notes(document, producers))


def test_notes_say_what_makes_figures_doubtful():
    assert noted() == []
    assert (
        "busy before the run: load average 2 on 4 cores"
        in noted(machine={"load_average_before": 2.0, "cores": 4, "governor": "performance"})[0]
    )
    assert noted(machine={"load_average_before": 0, "cores": 4, "governor": "powersave"})[0].startswith(
        "the CPU governor is powersave"
    )
    assert "4 emitting threads and a dispatcher share 4 cores" in noted(producers=4)[0]
    rounds = [{"median": 1000.0, "p99": 2000.0}, {"median": 1100.0, "p99": 4000.0}]
    noisy = row(rounds=rounds, spread={"median": 1.1, "p99": 2.0})
    assert noted(rows=[noisy]) == ["noisy, from round to round: p99 of relay_mp 2 to 4 µs"]
    assert noted(rows=[row(count=20_000)]) == [
        "p99.99 rests on 2 of 20,000 calls; more --seconds or --rounds make it firm"
    ]
    assert noted(rows=[row(lost=3)]) == ["relay_mp: 3 of 10 events were lost"]

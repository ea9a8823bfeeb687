"""A check of the Chrome trace format: what its readers rely on."""

import re
from collections import defaultdict

KEYS = {
    "M": {"args"},
    "X": {"ts", "dur", "cat", "args"},
    "i": {"ts", "cat", "s", "args"},
    "b": {"ts", "cat", "id", "args"},
    "e": {"ts", "cat", "id", "args"},
    "s": {"ts", "cat", "id"},
    "f": {"ts", "cat", "id", "bp"},
}
UINT32 = 1 << 32


def check(events):
    """Fails unless the events are a trace: keys, types, names, slices that nest, arrows from slice to slice.

    Returns:
        The arrows: (uuid of the slice they leave, uuid of the one they reach).
    """
    tracks, named, begun = defaultdict(list), set(), set()
    for event in events:
        assert set(event) == KEYS[event["ph"]] | {"ph", "name", "pid", "tid"}, event
        assert isinstance(event["name"], str)
        assert 0 <= event["pid"] < UINT32
        assert 0 <= event["tid"] < UINT32
        if event["ph"] == "M":
            named.add((event["name"], event["pid"], event["tid"]))
            continue
        assert isinstance(event["ts"], float | int)
        assert ("process_name", event["pid"], 0) in named, event
        if event["ph"] in "Xi":
            assert ("thread_name", event["pid"], event["tid"]) in named, event
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append(event)
        if event["ph"] == "b":
            assert event["id"] not in begun
            begun.add(event["id"])
        if event["ph"] == "e":
            begun.remove(event["id"])
    assert not begun
    for track in tracks.values():
        check_nesting(track)
    return arrows(events, tracks)


def nanoseconds(microseconds):
    return round(microseconds * 1000)


def bounds(piece):
    return nanoseconds(piece["ts"]), nanoseconds(piece["ts"]) + nanoseconds(piece["dur"])


def check_nesting(track):
    """Two slices of one track are apart, or one is inside the other."""
    open_until = []
    for begin, end, name in sorted(
        ((*bounds(piece), piece["name"]) for piece in track), key=lambda found: (found[0], -found[1])
    ):
        while open_until and open_until[-1] <= begin:
            open_until.pop()
        assert not open_until or end <= open_until[-1], f"{name} overlaps the slice around it"
        open_until.append(end)


def arrows(events, tracks):
    found = {}
    for event in events:
        if event["ph"] in "sf":
            # Perfetto's trace processor drops all others, see test_perfetto_ui.py.
            assert re.fullmatch("0x[0-9a-f]{1,16}", event["id"]), event
            at = nanoseconds(event["ts"])
            around = [p for p in tracks[event["pid"], event["tid"]] if bounds(p)[0] <= at <= bounds(p)[1]]
            assert around, f"an arrow in the void: {event}"
            innermost = max(around, key=lambda piece: bounds(piece)[0])
            found.setdefault(event["id"], {})[event["ph"]] = (at, innermost["args"]["uuid"])
    for ends in found.values():
        assert ends["s"][0] <= ends["f"][0]
    return [(ends["s"][1], ends["f"][1]) for ends in found.values()]

"""What is kept of open scopes: by number and by bytes, payloads first, in the order of starts."""

import gc
import os
import random

import msgpack
import pytest

from relay_mp._deliver.open_scopes import OpenScope, OpenScopes, OpenStart
from relay_mp._records.cut import LEAST_CUT_BYTES, cut_payloads
from relay_mp.events import KIND_START, decode, pack_record

ENVELOPE_BYTES = len(pack_record(KIND_START, bytes(16), None, 1, "s", 1, thread_id=7))
MARKER = {"relay_mp.cut": {"bytes": 3003}}
LARGE = "x" * 3000


def uuid(number):
    return number.to_bytes(16)


def start(number, data=None, **fields):
    record = pack_record(KIND_START, uuid(number), None, number, "s", 1, thread_id=7, data=data, **fields)
    return decode(record, number, os.getpid())


def numbers(kept):
    return [int.from_bytes(one.uuid) for one in kept]


def test_they_are_bounded_by_number_and_the_oldest_goes_first():
    given_up = []
    scopes = OpenScopes(3, given_up.append)
    for number in range(5):
        scopes.begin(OpenScope(uuid(number)))
    assert (numbers(given_up), len(scopes), scopes.evicted) == ([0, 1], 3, 2)
    assert scopes.end(uuid(0)) is None
    assert scopes.get(uuid(3)).uuid == scopes.end(uuid(3)).uuid == uuid(3)
    assert numbers(scopes.snapshot()) == [2, 4]
    assert numbers(scopes.drain()) == [4, 2]
    assert (scopes.orphans, scopes.unfinished, len(scopes)) == (1, 2, 0)


@pytest.mark.parametrize(("bounds", "said"), [((0,), "max_open_scopes is 0"), ((1, None, 0), "max_open_bytes is 0")])
def test_a_bound_is_at_least_one(bounds, said):
    with pytest.raises(ValueError, match=f"{said}; expected at least 1"):
        OpenScopes(bounds[0], print, *bounds[2:])


def test_the_oldest_lose_their_payloads_when_the_bytes_are_too_many():
    each = OpenStart(start(1, LARGE)).size_bytes
    scopes = OpenScopes(100, pytest.fail, 3 * each)
    for number in (1, 2, 3):
        scopes.begin(OpenStart(start(number, LARGE)))
    assert (scopes.open_bytes, scopes.cut) == (3 * each, 0)  # at the bound
    scopes.begin(OpenStart(start(4)))
    assert scopes.open_bytes <= 3 * each
    assert (scopes.cut, scopes.evicted) == (1, 0)
    found = [kept.start for kept in scopes.snapshot()]
    assert [event.data for event in found] == [MARKER, LARGE, LARGE, None]
    assert [event.timestamp_us for event in found] == [1, 2, 3, 4]
    assert (found[0].uuid, found[0].name, found[0].seq, found[0].pid) == (start(1).uuid, "s", 1, os.getpid())
    assert scopes.end(uuid(1)).start.data == MARKER
    assert scopes.open_bytes == sum(kept.size_bytes for kept in scopes.snapshot())


def test_the_oldest_is_given_up_when_there_is_nothing_left_to_cut():
    given_up = []
    scopes = OpenScopes(100, given_up.append, 4 * ENVELOPE_BYTES)
    for number in range(1, 7):
        scopes.begin(OpenStart(start(number)))
    assert (numbers(given_up), numbers(scopes.snapshot())) == ([1, 2], [3, 4, 5, 6])
    assert (scopes.cut, scopes.evicted, scopes.open_bytes) == (0, 2, 4 * ENVELOPE_BYTES)


def test_one_that_is_larger_than_the_bound_is_cut_itself():
    scopes = OpenScopes(100, pytest.fail, 1000)
    scopes.begin(OpenStart(start(1, LARGE)))
    assert (scopes.get(uuid(1)).start.data, scopes.cut) == (MARKER, 1)


def test_what_grows_counts():
    scopes = OpenScopes(100, pytest.fail, 10_000)
    for number in (1, 2):
        scopes.begin(OpenStart(start(number, LARGE)))
    scopes.grow(scopes.get(uuid(2)), 5000)
    assert (scopes.get(uuid(1)).start.data, scopes.get(uuid(2)).start.data) == (MARKER, LARGE)
    assert scopes.get(uuid(2)).size_bytes > 8000
    scopes.end(uuid(2))
    assert scopes.open_bytes == scopes.get(uuid(1)).size_bytes


def test_a_start_that_is_delivered_again_takes_the_place_of_the_first():
    scopes = OpenScopes(100, pytest.fail, 10_000)
    for number in (1, 2, 1):
        scopes.begin(OpenStart(start(number, LARGE)))
    assert numbers(scopes.snapshot()) == [2, 1]
    assert scopes.open_bytes == 2 * OpenStart(start(1, LARGE)).size_bytes


def test_one_thing_is_in_one_place():
    kept = OpenStart(start(1))
    scopes = OpenScopes(100, pytest.fail)
    scopes.begin(kept)
    for other in (scopes, OpenScopes(100, pytest.fail)):
        with pytest.raises(ValueError, match="in another place already"):
            other.begin(kept)
    scopes.end(kept.uuid)
    scopes.begin(kept)


def test_what_others_decode_of_a_large_event_is_not_kept():
    large, small = start(1, LARGE), start(2, "x")
    assert OpenStart(large).start is not large
    assert OpenStart(small).start is small
    kept = OpenStart(large)
    assert large.data == LARGE
    assert kept.start._payloads is None


def test_a_record_of_an_unusual_form_is_cut_too():
    fields = msgpack.unpackb(pack_record(KIND_START, uuid(1), None, 1, "s", 1, data=LARGE))
    fields[9] = {"a": "map in place"}
    fields[10] = msgpack.packb(LARGE)
    kept = OpenStart(decode(b"\xdc\x00\x0d" + msgpack.packb(fields)[1:], 1, 1))
    kept.cut()
    assert (kept.start.data, kept.start.metadata) == ({"a": "map in place"}, {"relay_mp.cut": {"bytes": 3003}})


@pytest.mark.parametrize(("size", "is_cut"), [(LEAST_CUT_BYTES, False), (LEAST_CUT_BYTES + 1, True)])
def test_a_payload_that_is_no_larger_than_its_marker_stays(size, is_cut):
    record = pack_record(KIND_START, uuid(1), None, 1, "s", 1, data="x" * (size - 2))
    assert (cut_payloads(record) is not None) == is_cut


def test_whatever_happens_the_order_and_the_sums_are_those_of_a_plain_list():
    lot = random.Random(7)
    expected = []
    scopes = OpenScopes(40, expected.remove, 60_000)
    for number in range(1, 6000):
        open_now = len(expected)
        if open_now and lot.random() < 0.45:
            kept = expected.pop(lot.randrange(open_now))
            assert scopes.end(kept.uuid) is kept
        elif open_now and lot.random() < 0.1:
            scopes.grow(lot.choice(expected), lot.randrange(1000))
        else:
            kept = OpenStart(start(number, lot.choice([None, "x" * lot.randrange(8000)])))
            expected.append(kept)
            scopes.begin(kept)
        assert scopes.snapshot() == expected
        assert scopes.open_bytes == sum(kept.size_bytes for kept in expected) <= 60_000
        assert len(scopes) == len(expected) <= 40
    assert scopes.cut > 100
    assert scopes.evicted > 10


def test_what_is_kept_goes_with_its_keeper():
    class Seen(OpenStart):
        alive = 0

        def __init__(self, event):
            super().__init__(event)
            Seen.alive += 1

        def __del__(self):
            Seen.alive -= 1

    scopes = OpenScopes(10**6, pytest.fail)
    for number in range(100_000):
        scopes.begin(Seen(start(number)))
    del scopes
    gc.collect()
    assert Seen.alive == 0

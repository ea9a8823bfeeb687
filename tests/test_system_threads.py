"""The threads, locks, events and conditions that stand in for `threading`'s where that is patched: see _threads."""

import pytest

from relay_mp import _threads


def test_an_event_is_seen_by_all_who_wait_and_by_who_comes_later():
    event = _threads._Event()
    waited = []
    threads = [
        _threads._Thread(target=lambda: waited.append(event.wait(30)), name="waits") for _ in range(3)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    assert not event.is_set()
    assert event.wait(0.001) is False
    event.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert waited == [True] * 3
    assert event.wait() is True


def test_a_condition_wakes_as_many_as_it_is_told_to():
    condition, come, gone = _threads._Condition(), [], []
    enough = _threads._Event()

    def wait():
        with condition:
            come.append(1)
            if len(come) == 3:
                enough.set()
            gone.append(condition.wait(30))

    threads = [_threads._Thread(target=wait, name="waits") for _ in range(3)]
    for thread in threads:
        thread.start()
    assert enough.wait(30)
    with condition:
        condition.notify()
        assert len(condition._waiting) == 2
        condition.notify_all()
    for thread in threads:
        thread.join(30)
    assert gone == [True] * 3


def test_a_wait_that_times_out_leaves_nobody_to_be_woken():
    condition = _threads._Condition()
    with condition:
        assert condition.wait(0.001) is False
        assert condition._waiting == []
        condition.notify()


def test_a_thread_that_raises_says_so_and_has_ended(monkeypatch):
    told = []
    monkeypatch.setattr("sys.excepthook", lambda kind, error, traceback: told.append(kind))

    def fail(error):
        raise error

    for error in (ValueError("it"), SystemExit(1)):
        thread = _threads._Thread(target=fail, args=(error,), name="fails")
        assert not thread.is_alive()
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
    assert told == [ValueError]
    assert _threads._background == set()


def test_without_greenlets_the_names_are_the_standard_librarys_and_nothing_switches():
    import threading

    assert type(_threads.Event()) is threading.Event
    assert type(_threads.Condition()) is threading.Condition
    assert type(_threads.Thread(target=print, name="never")) is threading.Thread
    assert not _threads.switches()
    assert not _threads.nap(10)
    assert _threads.apart(divmod, 7, 2) == (3, 1)


@pytest.fixture
def greenlets(monkeypatch):
    """As if the calling thread ran greenlets."""
    monkeypatch.setattr(_threads, "switches", lambda: True)


def test_apart_gives_back_what_the_function_returns_or_raises(greenlets):
    import threading

    assert _threads.apart(divmod, 7, 2) == (3, 1)
    assert _threads.apart(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        _threads.apart(divmod, 7, 0)


def test_waiting_naps_until_the_event_or_the_deadline(greenlets):
    event = _threads._Event()
    assert _threads.wait(event, 0.01) is False
    event.set()
    assert _threads.wait(event, 30) is True

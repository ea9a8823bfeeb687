"""What a process says of the owner's middleware that it could not use."""

from relay_mp._session.configuration import diagnostics


def test_of_its_failures_a_process_keeps_the_latest(monkeypatch):
    kept = diagnostics.KEPT_FAILURES
    monkeypatch.setattr(diagnostics, "_failed", type(diagnostics._failed)(maxlen=kept))
    for number in range(kept + 1):
        for _ in range(2):
            diagnostics.note_failure(f"{number}")
    assert diagnostics.failures() == [f"{number}" for number in range(1, kept + 1)]

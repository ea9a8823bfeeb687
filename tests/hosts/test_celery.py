"""`instrument()` of Celery. What its workers do, with Redis' own server, is in test_matrix.py."""

UNINSTRUMENT = """
from celery import signals
from relay_mp.integrations import celery
before = [len(signal.receivers) for signal, _ in celery._receivers()]
celery.instrument()
celery.instrument()
print([len(signal.receivers) - count for (signal, _), count in zip(celery._receivers(), before)])
celery.uninstrument()
celery.uninstrument()
print([len(signal.receivers) - count for (signal, _), count in zip(celery._receivers(), before)])
"""


def test_instrumenting_twice_is_once_and_can_be_taken_back(run_script, needs):
    needs("celery")
    assert run_script(UNINSTRUMENT).stdout == "[1, 1, 1]\n[0, 0, 0]\n"

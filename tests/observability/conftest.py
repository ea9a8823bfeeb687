"""The receivers of OTLP logs and metrics."""

import pytest
from otlp_receiver import PROTOCOLS, OtlpReceiver


@pytest.fixture(params=PROTOCOLS)
def receiver(request):
    with OtlpReceiver(request.param) as receiver:
        yield receiver


@pytest.fixture
def http():
    """Where the protocol makes no difference."""
    with OtlpReceiver() as receiver:
        yield receiver

"""The OTLP receiver of these tests, asked by plain clients: what the exporters' tests take for granted."""

import http.client

import grpc
import pytest
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from otlp_receiver import OUTCOMES, PROTOCOLS, SIGNALS, OtlpReceiver


@pytest.fixture(params=PROTOCOLS)
def receiver(request):
    with OtlpReceiver(request.param) as receiver:
        yield receiver


def request_of(*bodies):
    request = SIGNALS["logs"].request()
    scope = request.resource_logs.add().scope_logs.add()
    for body in bodies:
        scope.log_records.add().body.string_value = body
    return request


def post(receiver, request, timeout=30) -> tuple[object, dict[str, str], Message]:
    """Sends one request, on a connection of its own: (status, headers, answer)."""
    if receiver.protocol == "grpc":
        # A subchannel of its own: a shared one that was cut would wait before it connects again.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(receiver.endpoint.removeprefix("http://"), options) as channel:
            try:
                return None, {}, LogsServiceStub(channel).Export(request, timeout=timeout)
            except grpc.RpcError as error:
                return error.code(), dict(error.trailing_metadata() or ()), None
    connection = http.client.HTTPConnection(receiver.endpoint.removeprefix("http://"), timeout=timeout)
    try:
        connection.request("POST", "/v1/logs", request.SerializeToString(), {"Content-Type": "application/x-protobuf"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            return answer.status, dict(answer.headers), None
        return None, {}, SIGNALS["logs"].response.FromString(body)
    except (OSError, http.client.HTTPException) as error:
        return type(error), {}, None
    finally:
        connection.close()


def bodies(receiver):
    return [record.body.string_value for record in receiver.logs]


def test_it_keeps_what_it_takes(receiver):
    for body in "ab":
        status, _, answer = post(receiver, request_of(body))
        assert status is None
        assert not answer.partial_success.rejected_log_records
    assert bodies(receiver) == ["a", "b"]
    assert receiver.requests == 2


@pytest.mark.parametrize("step", OUTCOMES)
def test_it_answers_as_planned_and_keeps_nothing(receiver, step):
    receiver.plan += [step, (step, 3)]
    expected = OUTCOMES[step][receiver.protocol == "grpc"]
    status, headers, _ = post(receiver, request_of("a"))
    assert status == expected
    assert not {"Retry-After", "grpc-status-details-bin"} & headers.keys()
    status, headers, _ = post(receiver, request_of("a"))
    assert status == expected
    assert headers.get("Retry-After") == "3" or b"RetryInfo" in headers["grpc-status-details-bin"]
    assert bodies(receiver) == []


def test_a_partial_success_is_kept(receiver):
    receiver.plan.append(("partial", 2, "why"))
    _, _, answer = post(receiver, request_of("a", "b", "c"))
    assert (answer.partial_success.rejected_log_records, answer.partial_success.error_message) == (2, "why")
    assert bodies(receiver) == ["a", "b", "c"]


def test_it_cuts(receiver):
    receiver.plan.append("cut")
    status, _, _ = post(receiver, request_of("a" * 100_000))
    assert status in (grpc.StatusCode.UNAVAILABLE, http.client.RemoteDisconnected, ConnectionResetError)
    assert post(receiver, request_of("b"))[0] is None
    assert bodies(receiver) == ["b"]


def test_it_stalls_until_it_is_released(receiver):
    receiver.plan.append("stall")
    status, _, _ = post(receiver, request_of("a"), timeout=0.2)
    assert status in (grpc.StatusCode.DEADLINE_EXCEEDED, TimeoutError)
    receiver.release.set()
    assert post(receiver, request_of("b"))[0] is None
    assert bodies(receiver) == ["b"]


def test_it_goes_down_and_comes_back_on_the_same_port(receiver):
    endpoint = receiver.endpoint
    assert post(receiver, request_of("a"))[0] is None
    receiver.down()
    assert post(receiver, request_of("b"))[0] in (grpc.StatusCode.UNAVAILABLE, ConnectionRefusedError)
    receiver.up()
    assert receiver.endpoint == endpoint
    assert post(receiver, request_of("c"))[0] is None
    assert bodies(receiver) == ["a", "c"]

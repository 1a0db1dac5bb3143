"""The stub vendor keeps its word: the bill is exact, and each fault does what it says."""

import dataclasses
import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import stub_faults as faults
from stub import StubServer
from stub_faults import Fault, Reply

PATH = "/v1/chat/completions"


def payload(text: str = "one two three", **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


@contextmanager
def client(stub: StubServer) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection("127.0.0.1", stub.port, timeout=10)) as connection:
        yield connection


def send(connection: http.client.HTTPConnection, body: Any, **headers: str) -> http.client.HTTPResponse:
    connection.request("POST", PATH, json.dumps(body), headers)
    return connection.getresponse()


def ask(stub: StubServer, body: Any = None, **headers: str) -> tuple[int, Any, http.client.HTTPMessage]:
    with client(stub) as connection:
        response = send(connection, payload() if body is None else body, **headers)
        return response.status, json.loads(response.read()), response.headers


def raw(stub: StubServer, text: str = "one two three") -> socket.socket:
    body = json.dumps(payload(text)).encode()
    sock = socket.create_connection(("127.0.0.1", stub.port), timeout=10)
    sock.sendall(b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (PATH.encode(), len(body), body))
    return sock


def let_the_server_act(stub: StubServer) -> None:
    """Three round trips through its loop: whatever it had to do at once is done by then."""
    for _ in range(3):
        with client(stub) as connection:
            connection.request("GET", "/health")
            assert connection.getresponse().read()


def failing(fault: Fault) -> StubServer:
    return StubServer(faults=lambda _n, _payload: fault)


# The bill


def test_an_answer_says_what_it_used_and_what_was_asked(stub: StubServer) -> None:
    status, answer, headers = ask(stub)
    assert status == 200
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"echo": "one two three"}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    assert answer["model"] == "m"
    assert headers["x-request-id"] == "req-1"


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        ({}, "0.00000825"),  # 9 x 0.25 + 3 x 2.00 millionths
        ({"input": "0.03", "output": "0.14"}, "0.00000069"),
        ({"input": "0", "output": "0"}, "0"),
        ({"input": "0", "output": "0", "per_request": "0.085"}, "0.085"),
        ({"input": "0.000001", "output": "0"}, "0.000000000009"),
    ],
)
def test_an_answer_is_billed_to_the_last_digit(prices: dict[str, str], expected: str) -> None:
    with StubServer(**prices) as stub:
        ask(stub)
        assert stub.bill == stub.delivered_bill == stub.entries[0].usd == Decimal(expected)


def test_the_bill_is_the_sum_of_its_entries_without_a_rounding_error(stub: StubServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: ask(stub), range(100)))
    assert stub.bill == 100 * Decimal("0.00000825")
    assert sorted(entry.n for entry in stub.entries) == list(range(1, 101))


def test_equal_messages_have_equal_digests_in_the_bill(stub: StubServer) -> None:
    for text in ("a", "b", "a"):
        ask(stub, payload(text))
    first, second, third = (entry.digest for entry in stub.entries)
    assert first == third != second


def test_content_in_parts_is_counted_like_text(stub: StubServer) -> None:
    parts = [{"type": "text", "text": "one two"}, {"type": "text", "text": "three"}]
    ask(stub, {"messages": [{"role": "user", "content": parts}]})
    assert stub.entries[0].prompt_tokens == 9


@pytest.mark.parametrize("limit_name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_cuts_the_text_and_the_bill(limit_name: str) -> None:
    with StubServer(answer=lambda _: "a b c d e") as stub:
        _, answer, _ = ask(stub, payload(**{limit_name: 2}))
        assert answer["choices"][0]["message"]["content"] == "a b"
        assert answer["choices"][0]["finish_reason"] == "length"
        assert stub.entries[0].completion_tokens == answer["usage"]["completion_tokens"] == 2


def test_a_limit_that_just_fits_cuts_nothing() -> None:
    with StubServer(answer=lambda _: "a  b") as stub:
        _, answer, _ = ask(stub, payload(max_tokens=2))
        assert answer["choices"][0]["message"]["content"] == "a  b"
        assert answer["choices"][0]["finish_reason"] == "stop"


def test_each_of_n_choices_is_billed(stub: StubServer) -> None:
    _, answer, _ = ask(stub, payload(n=3))
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert stub.entries[0].completion_tokens == 9


def test_cached_tokens_have_their_own_price() -> None:
    with StubServer(cached_input="0.05", answer=lambda _: Reply("yes", cached_tokens=4)) as stub:
        _, answer, _ = ask(stub)
        assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}
        assert stub.bill == (5 * Decimal("0.25") + 4 * Decimal("0.05") + 2) / 1_000_000


def test_a_vendor_may_report_what_it_charged() -> None:
    with StubServer(report_cost=True) as stub:
        _, answer, _ = ask(stub)
        assert Decimal(str(answer["usage"]["cost"])) == stub.bill


def test_a_vendor_may_exceed_the_limit_it_was_given() -> None:
    with StubServer(answer=lambda _: Reply("a", completion_tokens=50)) as stub:
        ask(stub, payload(max_tokens=5))
        assert stub.entries[0].completion_tokens == 50


# Faults


@pytest.mark.parametrize("number", [400, 401, 402, 403, 404, 429, 500, 503, 529])
def test_an_error_status_is_not_billed(number: int) -> None:
    with failing(faults.status(number, "no", code="why", retry_after=7)) as stub:
        status, answer, headers = ask(stub)
        assert (status, answer["error"]["message"], answer["error"]["code"]) == (number, "no", "why")
        assert headers["retry-after"] == "7"
        assert (stub.entries, stub.bill) == ([], 0)
        assert stub.requests[0].outcome == f"status {number}"
        assert stub.statuses == {number: 1}


def edited(fault: Fault, change: Callable[[Any], Any]) -> Any:
    with failing(fault) as stub:
        status, answer, _ = ask(stub)
        assert status == 200
        assert stub.bill == stub.delivered_bill > 0
        return change(answer)


@pytest.mark.parametrize(
    ("fault", "look", "expected"),
    [
        (faults.NO_USAGE, lambda answer: "usage" in answer, False),
        (faults.NO_CHOICES, lambda answer: answer["choices"], []),
        (faults.finish("error"), lambda answer: answer["choices"][0]["finish_reason"], "error"),
        (faults.other_model("x"), lambda answer: answer["model"], "x"),
        (faults.REFUSAL, lambda answer: answer["choices"][0]["message"]["content"], None),
        (faults.REFUSAL, lambda answer: "can't" in answer["choices"][0]["message"]["refusal"], True),
        (faults.CONTENT_FILTER, lambda answer: answer["choices"][0]["finish_reason"], "content_filter"),
        (faults.reasoned_away(50), lambda answer: answer["choices"][0]["message"]["content"], ""),
        (faults.reasoned_away(50), lambda answer: answer["usage"]["completion_tokens"], 50),
        (faults.error_in_200(billed=True), lambda answer: answer["error"]["code"], 502),
        (faults.drip(gap_seconds=0), lambda answer: answer["usage"]["total_tokens"], 12),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
def test_a_strange_answer_is_billed_all_the_same(fault: Fault, look: Any, expected: Any) -> None:
    assert edited(fault, look) == expected


def test_reasoning_uses_up_the_limit_before_the_text() -> None:
    with StubServer(answer=lambda _: Reply("a b c", reasoning_tokens=4)) as stub:
        _, answer, _ = ask(stub, payload(max_tokens=5))
        assert answer["choices"][0]["message"]["content"] == "a"
        assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 4}
        assert answer["usage"]["completion_tokens"] == 5


def test_an_error_inside_a_200_is_free_unless_told_otherwise() -> None:
    with failing(faults.error_in_200()) as stub:
        status, answer, _ = ask(stub)
        assert (status, answer["error"]["code"], stub.bill) == (200, 502, 0)


def test_broken_json_is_billed_and_can_not_be_parsed() -> None:
    with failing(faults.BROKEN_JSON) as stub:
        with pytest.raises(json.JSONDecodeError):
            ask(stub)
        assert stub.bill == Decimal("0.00000825")


def test_a_proxys_error_page_is_html_and_free() -> None:
    with failing(faults.html(502)) as stub, client(stub) as connection:
        response = send(connection, payload())
        assert (response.status, response.headers["content-type"]) == (502, "text/html")
        assert response.read().startswith(b"<!DOCTYPE html>")
        assert stub.bill == 0


def test_a_reset_before_the_answer_is_free() -> None:
    with failing(faults.RESET) as stub:
        with pytest.raises(ConnectionResetError):
            ask(stub)
        assert (stub.bill, stub.requests[0].outcome) == (0, "reset")


def test_an_answer_cut_in_the_middle_is_billed_but_not_delivered() -> None:
    with failing(faults.CUT) as stub:
        with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
            ask(stub)
        assert (stub.bill, stub.delivered_bill) == (Decimal("0.00000825"), 0)


def test_a_huge_answer_is_delivered_only_when_the_client_has_taken_it() -> None:
    with failing(faults.huge(40_000_000)) as stub, raw(stub) as sock:
        stub.wait_until(lambda: stub.bill > 0, "the answer")
        assert stub.delivered_bill == 0
        received = bytearray()
        while not received.endswith(b"   ") or len(received) < 40_000_000:
            received += sock.recv(1 << 20)
        stub.wait_until(lambda: stub.delivered_bill == stub.bill, "the delivery")
        assert json.loads(received.partition(b"\r\n\r\n")[2])["model"] == "m"


def test_a_stalled_request_gets_nothing_until_the_client_leaves() -> None:
    with failing(faults.STALL) as stub:
        with raw(stub) as sock:
            stub.wait_for_in_flight(1)
            let_the_server_act(stub)
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
            assert stub.requests[0].outcome == "open"
        stub.wait_until(lambda: stub.in_flight == 0, "the client's leaving")
        assert (stub.bill, stub.requests[0].outcome) == (0, "stall")


def test_a_stall_may_be_billed() -> None:
    with failing(dataclasses.replace(faults.STALL, billed=True)) as stub, raw(stub):
        stub.wait_until(lambda: stub.bill > 0, "the bill")
        assert stub.delivered_bill == 0


def test_a_drip_keeps_the_rest_back_between_pieces() -> None:
    with failing(faults.drip(pieces=4, gap_seconds=3600)) as stub, raw(stub) as sock:
        assert sock.recv(9) == b"HTTP/1.1 "
        let_the_server_act(stub)
        assert (stub.in_flight, stub.delivered_bill) == (1, 0)
        assert stub.bill > 0


def test_helpers_choose_requests_by_their_number() -> None:
    fault = faults.status(500)
    third, early = faults.every(3, fault), faults.first(2, fault)
    assert [n for n in range(1, 10) if third(n, None)] == [3, 6, 9]
    assert [n for n in range(1, 10) if early(n, None)] == [1, 2]


def test_seeded_faults_hit_the_same_requests_in_any_order() -> None:
    choose = faults.seeded(0.2, [faults.RESET, faults.status(500)], seed=7)
    forwards = [choose(n, None) for n in range(1, 1001)]
    assert forwards == [choose(n, None) for n in range(1000, 0, -1)][::-1]
    assert {fault.name for fault in forwards if fault} == {"reset", "status 500"}
    assert 150 < sum(fault is not None for fault in forwards) < 250
    assert forwards != [faults.seeded(0.2, [faults.RESET], seed=8)(n, None) for n in range(1, 1001)]


def test_a_mistake_in_the_tests_own_function_comes_back_to_the_test() -> None:
    with (  # noqa: PT012 - the server raises on leaving the block
        pytest.raises(KeyError, match="absent"),
        StubServer(answer=lambda asked: asked["absent"]) as stub,
    ):
        assert ask(stub)[0] == 500
        assert stub.bill == 0


# Connections, gates and limits


def test_a_connection_serves_many_requests(stub: StubServer) -> None:
    with client(stub) as connection:
        sockets = set()
        for _ in range(3):
            assert json.loads(send(connection, payload()).read())["usage"]
            sockets.add(connection.sock)
        assert len(sockets) == 1
        assert None not in sockets


def test_a_connection_closes_when_the_client_asks_for_it(stub: StubServer) -> None:
    with client(stub) as connection:
        assert send(connection, payload(), Connection="close").read()
        assert connection.sock is None or connection.sock.recv(1) == b""


def test_requests_in_one_packet_or_in_many_are_the_same(stub: StubServer) -> None:
    request = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 15\r\n\r\n" + b'{"messages":[]}'
    with socket.create_connection(("127.0.0.1", stub.port), timeout=10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(len(request)):
            sock.sendall(request[start : start + 1])
        sock.sendall(request * 3)
        stub.wait_for_calls(4)
    assert [asked.payload for asked in stub.requests] == [{"messages": []}] * 4


def test_the_log_has_what_was_sent(stub: StubServer) -> None:
    ask(stub, payload("row 10"), Authorization="Bearer k")
    ask(stub, payload("this is row 1, really"))
    assert (stub.calls, stub.calls_for("row 1"), stub.calls_for("row 10"), stub.calls_for("ow 1")) == (2, 1, 1, 0)
    first, second = stub.requests
    assert (first.n, first.path, first.headers["authorization"]) == (1, PATH, "Bearer k")
    assert second.payload == payload("this is row 1, really")
    assert first.at < second.at
    assert (first.outcome, first.status) == ("answered", 200)


def test_health_and_unknown_paths_are_not_calls(stub: StubServer) -> None:
    with client(stub) as connection:
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b'{"status":"ok"}'
        connection.request("GET", "/v1/nothing?x=1")
        response = connection.getresponse()
        answer = json.loads(response.read())
    assert (response.status, answer["object"], answer["code"]) == (404, "error", 404)
    assert (stub.calls, stub.strays) == (0, ["GET /v1/nothing"])


@pytest.mark.parametrize("body", [[], {"messages": "hello"}, "text"])
def test_a_body_that_is_no_chat_is_refused(stub: StubServer, body: Any) -> None:
    assert ask(stub, body)[0] == 400
    assert (stub.calls, stub.bill) == (1, 0)


@pytest.mark.parametrize(
    ("in_body", "body", "headers", "expected"),
    [
        (False, {}, {"Authorization": "Bearer good"}, 200),
        (False, {}, {"Authorization": "Bearer bad"}, 401),
        (False, {}, {}, 401),
        (False, {"key": "good"}, {}, 401),
        (True, {"key": "good"}, {}, 200),
        (True, {"key": "bad"}, {}, 401),
        (True, {}, {"Authorization": "Bearer good"}, 401),
    ],
)
def test_only_the_right_key_is_served(in_body: bool, body: Any, headers: dict[str, str], expected: int) -> None:
    with StubServer(api_key="good", key_in_body=in_body) as stub:
        status, answer, _ = ask(stub, payload(**body), **headers)
        assert status == expected
        assert (stub.bill > 0) == (expected == 200)
        assert expected == 200 or answer["error"]["code"] == "invalid_api_key"


def test_held_requests_wait_and_go_out_as_released(stub: StubServer) -> None:
    stub.hold()
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(ask, stub) for _ in range(3)]
        stub.wait_for_in_flight(3)
        assert (stub.bill, stub.peak_concurrency) == (0, 3)
        stub.release(2)
        stub.wait_until(lambda: stub.in_flight == 1, "two answers")
        answers.append(pool.submit(ask, stub))
        stub.wait_for_calls(4)
        let_the_server_act(stub)
        assert [asked.outcome for asked in stub.requests] == ["answered", "answered", "open", "open"]
        stub.release()
        assert [answer.result()[0] for answer in answers] == [200, 200, 200, 200]
    assert ask(stub)[0] == 200
    assert stub.peak_concurrency == 3


def test_waiting_for_what_does_not_come_says_what_was_seen(stub: StubServer) -> None:
    with pytest.raises(TimeoutError, match=r"1 requests in flight; it saw 0 calls, 0 in flight"):
        stub.wait_for_in_flight(1, timeout=0)


def test_a_client_that_leaves_is_billed_but_not_delivered(stub: StubServer) -> None:
    stub.hold()
    with raw(stub):
        stub.wait_for_in_flight(1)
    let_the_server_act(stub)
    stub.release()
    stub.wait_until(lambda: stub.in_flight == 0, "the answer")
    assert (stub.bill > 0, stub.delivered_bill) == (True, 0)
    assert stub.requests[0].outcome == "client left"


def test_a_stopped_server_bills_nothing_it_did_not_answer_and_starts_again_where_it_was(
    stub: StubServer,
) -> None:
    ask(stub)
    port, bill = stub.port, stub.bill
    stub.hold()
    with raw(stub) as sock:
        stub.wait_for_in_flight(1)
        stub.stop()
        with suppress(ConnectionResetError):
            assert sock.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        ask(stub)
    assert (stub.bill, stub.in_flight, stub.requests[1].outcome) == (bill, 0, "server stopped")
    stub.start()
    stub.release()
    assert ask(stub)[0] == 200
    assert (stub.port, stub.bill, stub.calls) == (port, 2 * bill, 3)


def test_a_port_in_use_is_an_error_at_the_start(stub: StubServer) -> None:
    with pytest.raises(OSError, match="in use"):
        StubServer(port=stub.port).start()


def test_more_requests_at_once_than_the_account_allows_get_modelslabs_429() -> None:
    with StubServer(max_concurrency=2, queue_retry_after=5) as stub, ThreadPoolExecutor(2) as pool:
        stub.hold()
        answers = [pool.submit(ask, stub) for _ in range(2)]
        stub.wait_for_in_flight(2)
        status, answer, _ = ask(stub)
        assert (status, answer["status"], answer["retry_after"]) == (429, "error", 5)
        assert "Maximum 2 queued requests allowed." in answer["message"]
        stub.release()
        assert [done.result()[0] for done in answers] == [200, 200]
        assert stub.statuses == {200: 2, 429: 1}


def test_the_rate_limit_says_when_the_next_request_fits() -> None:
    now = 100.0
    with StubServer(requests_per_second=4, burst=2, clock=lambda: now) as stub:
        assert [ask(stub)[0] for _ in range(3)] == [200, 200, 429]
        _, answer, headers = ask(stub)
        assert answer["error"]["code"] == "rate_limit_exceeded"
        assert (headers["retry-after"], headers["retry-after-ms"]) == ("0.25", "250")
        now = 100.25
        assert [ask(stub)[0] for _ in range(2)] == [200, 429]
        now = 200.0
        assert [ask(stub)[0] for _ in range(3)] == [200, 200, 429]
        assert {request.at for request in stub.requests} == {100.0, 100.25, 200.0}


def test_latency_is_asked_for_each_request_by_number() -> None:
    asked: list[int] = []

    def latency(n: int) -> float:
        asked.append(n)
        return 0.001

    with StubServer(latency=latency) as stub:
        assert [ask(stub)[0] for _ in range(2)] == [200, 200]
    assert asked == [1, 2]


def test_the_stub_as_a_script_leaves_its_bill(tmp_path: Path) -> None:
    bill_file = tmp_path / "bill.json"
    command = [sys.executable, str(Path(__file__).with_name("stub.py")), "--bill-file", str(bill_file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline().removesuffix("/v1\n").rpartition(":")[2])
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            assert send(connection, payload()).read()
        child.communicate()
    bill = json.loads(bill_file.read_text())
    assert (bill["calls"], bill["usd"], len(bill["entries"])) == (1, "0.00000825", 1)


# llmock, through its fixture


def test_llmock_answers_fails_as_scripted_and_judges_its_client(llmock: Callable[..., Any]) -> None:
    server = llmock("--response-style", "echo")
    server.script({"type": "fail", "status": 429, "retry_after": 30, "times": 1})
    assert "error" in server.ask("POST", PATH, payload("hi"))
    answer = server.ask("POST", PATH, payload("hi"))
    assert answer["choices"][0]["message"]["content"] == "Hello! You said: hi"
    assert [request["status"] for request in server.requests()] == [429, 200]
    verdict = server.verdict()
    assert verdict["passed"] is False
    assert [finding["code"] for finding in verdict["findings"]] == ["retry_after_ignored"]

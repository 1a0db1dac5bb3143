"""The contract of `Wire`, held to all implementations with a server that is scripted down to the bytes.

`auto` is the plain one wherever that can be, with and without encryption.
"""

import asyncio
import builtins
import contextlib
import functools
import gzip
import socket
import ssl
import sys
from urllib.parse import urlsplit

import httpx
import pytest
from certificates import certificate, new_key, private_pem
from raw_server import answer, free_port, raw_server

from pipeline.errors import UsageError, UserError, WireError
from pipeline.records import WireReply
from pipeline.wire import WireOptions, _auto, open_library, open_wire, plain, require_usable_proxy
from pipeline.wire._reuse import DEATHS, FEW, Reuse
from pipeline.wire._trust import system_context
from pipeline.wire.httpx import HttpxWire
from pipeline.wire.native import NativeWire

HEADERS = {"authorization": "Bearer sk-secret-key", "content-type": "application/json"}
BODY = b'{"private": "prompt"}'

encrypts_by_itself = pytest.mark.skipif(
    system_context() is None, reason="here only the native wire knows whom the system trusts"
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A throw-away certificate authority (PEM), and a server's TLS set-up that it signed."""
    ca_key, key = new_key(), new_key()
    ca_pem = certificate("Test CA", ca_key, "Test CA", ca_key, is_authority=True)
    pem = certificate("127.0.0.1", key, "Test CA", ca_key, is_authority=False)
    chain = tmp_path_factory.mktemp("tls") / "server.pem"
    chain.write_bytes(pem + private_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return ca_pem, context


@pytest.fixture(params=["auto", "auto encrypted", "native", "httpx"])
def wire_kind(request, authority, monkeypatch):
    """A wire's name. Everything holds over an encrypted connection, too: then all servers here have one."""
    name, _, encrypted = request.param.partition(" ")
    if encrypted:
        monkeypatch.setattr(sys.modules[__name__], "raw_server", functools.partial(raw_server, tls=authority[1]))
    return name


@pytest.fixture
def open_one(wire_kind, authority, monkeypatch):
    """Open a wire of any kind; proxies of the machine that runs the tests don't count."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    @contextlib.asynccontextmanager
    async def opened(**options):
        wire = open_wire(wire_kind, WireOptions(**{"root_certificates": authority[0], **options}))
        try:
            yield wire
        finally:
            await wire.close()

    return opened


def always(data):
    async def script(seen, peer):
        await peer.send(data)

    return script


async def stall(seen, peer):
    await peer.stall()


async def fails(wire, url, headers=HEADERS):
    """Post, and return the WireError; its text must be fit for a log."""
    with pytest.raises(WireError) as caught:
        await wire.post(url, headers, BODY)
    text = str(caught.value)
    assert "\n" not in text
    assert not any(secret in text for secret in ("sk-secret-key", "private", "/v1/chat", "jane", "hunter2"))
    return caught.value


@pytest.mark.parametrize("status", [200, 204, 400, 404, 429, 500, 529])
async def test_every_status_is_a_reply_with_its_body(open_one, status):
    body = b"" if status == 204 else b'{"status": %d}' % status
    async with raw_server(always(answer(status, body))) as server, open_one() as wire:
        assert await wire.post(server.url, HEADERS, BODY) == WireReply(status, {"content-length": str(len(body))}, body)


async def test_the_request_arrives_as_it_was_given_and_says_who_sends_it(open_one):
    async with raw_server(always(answer(200))) as server, open_one() as wire:
        await wire.post(server.url, HEADERS, BODY)
    (seen,) = server.requests
    assert seen.line == "POST /v1/chat/completions HTTP/1.1"
    assert seen.body == BODY
    assert seen.headers["authorization"] == "Bearer sk-secret-key"
    assert seen.headers["user-agent"] == "promptmill"
    assert not {"referer", "cookie"} & seen.headers.keys()


async def test_header_names_are_lower_case_and_the_first_of_repeated_ones_counts(open_one):
    data = answer(200, b"ok", "X-Request-ID: one", "x-request-id: two", "Retry-After: 3")
    async with raw_server(always(data)) as server, open_one() as wire:
        reply = await wire.post(server.url, HEADERS, BODY)
    assert reply.headers == {"x-request-id": "one", "retry-after": "3", "content-length": "2"}


async def test_a_header_that_is_not_text_does_not_lose_the_answer(open_one):
    async with raw_server(always(answer(200, b"paid", "X-Odd: \xff\xfe", "X-Good: yes"))) as server, open_one() as wire:
        reply = await wire.post(server.url, HEADERS, BODY)
    assert (reply.body, reply.headers["x-good"]) == (b"paid", "yes")


async def test_a_compressed_answer_is_unpacked(open_one):
    data = answer(200, gzip.compress(b"x" * 5000), "Content-Encoding: gzip")
    async with raw_server(always(data)) as server, open_one() as wire:
        assert (await wire.post(server.url, HEADERS, BODY)).body == b"x" * 5000


async def test_cookies_are_not_sent_back(open_one):
    async with raw_server(always(answer(200, b"", "Set-Cookie: id=1; Path=/"))) as server, open_one() as wire:
        await wire.post(server.url, HEADERS, BODY)
        await wire.post(server.url, HEADERS, BODY)
    assert "cookie" not in server.requests[1].headers


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed_so_the_key_goes_nowhere_else(open_one, status):
    async with raw_server(always(answer(200))) as elsewhere, open_one() as wire:
        async with raw_server(always(answer(status, b"", f"Location: {elsewhere.url}"))) as server:
            reply = await wire.post(server.url, HEADERS, BODY)
        assert (reply.status, reply.headers["location"]) == (status, elsewhere.url)
        assert elsewhere.connections == 0


async def test_no_answer_within_the_timeout_may_have_been_sent(open_one):
    async with raw_server(stall) as server, open_one(timeout_seconds=0.4) as wire:
        error = await fails(wire, server.url)
    assert (error.kind, error.maybe_sent) == ("timeout", True)
    assert server.base.partition("://")[2] in str(error)


async def test_a_body_that_drips_is_bounded_by_the_total_timeout(open_one):
    async def drip(seen, peer):
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            await peer.send(b"x")
            await asyncio.sleep(0.02)

    async with raw_server(drip) as server, open_one(timeout_seconds=0.2) as wire:
        error = await fails(wire, server.url)
    assert (error.kind, error.maybe_sent) == ("timeout", True)


async def test_a_refused_connection_was_not_sent(open_one):
    port = free_port()
    async with open_one() as wire:
        error = await fails(wire, f"http://127.0.0.1:{port}/v1/chat/completions")
    assert (error.kind, error.maybe_sent) == ("connect", False)
    assert f"127.0.0.1:{port}" in str(error)


async def test_an_address_that_does_not_answer_does_not_hide_the_next_one(open_one, wire_kind, monkeypatch):
    if wire_kind != "auto" or sys.platform != "linux":
        pytest.skip("the libraries' own affair; and only Linux takes a queue's length at its word")
    with socket.socket() as hole, socket.socket() as filler:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        filler.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            filler.connect(hole.getsockname())  # nobody accepts: the queue is full, and nothing else is answered
        async with raw_server(always(answer(200, b"here"))) as server, open_one() as wire:
            addresses = [hole.getsockname(), ("127.0.0.1", urlsplit(server.url).port)]

            async def two(*_):
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

            monkeypatch.setattr(plain, "_addresses", two)
            assert (await wire.post(server.url, HEADERS, BODY)).body == b"here"


async def test_a_handshake_that_stalls_is_a_connection_that_was_not_made(open_one):
    async with raw_server(stall, tls=None) as server, open_one(connect_seconds=0.15) as wire:
        error = await fails(wire, server.url.replace("http://", "https://"))
    assert (error.kind, error.maybe_sent) == ("connect", False)
    assert server.requests == []


async def reset_at_once(seen, peer):
    peer.reset()


async def close_at_once(seen, peer):
    peer.hang_up()


async def reset_in_the_body(seen, peer):
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf an ans")
    peer.reset()


async def end_in_the_body(seen, peer):
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf an ans")
    peer.hang_up()


async def end_in_a_chunk(seen, peer):
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf")
    peer.hang_up()


async def not_http(seen, peer):
    await peer.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    peer.hang_up()


async def broken_gzip(seen, peer):
    await peer.send(answer(200, b"not gzip at all", "Content-Encoding: gzip"))


BREAKS = [reset_at_once, close_at_once, reset_in_the_body, end_in_the_body, end_in_a_chunk, not_http, broken_gzip]


@pytest.mark.parametrize("script", BREAKS, ids=lambda script: script.__name__)
async def test_an_exchange_that_breaks_after_sending_may_have_been_billed(open_one, script):
    async with raw_server(script) as server, open_one() as wire:
        error = await fails(wire, server.url)
    assert (error.kind, error.maybe_sent) == ("broken", True)
    assert len(server.requests) == 1


async def test_an_answer_without_a_length_ends_with_the_connection(open_one):
    async def until_the_end(seen, peer):
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nwhole")
        peer.hang_up()

    async with raw_server(until_the_end) as server, open_one() as wire:
        assert (await wire.post(server.url, HEADERS, BODY)).body == b"whole"


@encrypts_by_itself
async def test_an_encrypted_answer_without_a_length_is_not_whole_where_the_connection_was_cut(authority):
    if not type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
        pytest.skip("asyncio's own loop does not tell")

    async def cut(seen, peer):
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf an ans")
        peer.cut()

    wire = open_wire("auto", WireOptions(direct=True, root_certificates=authority[0]))
    async with raw_server(cut, tls=authority[1]) as server:
        error = await fails(wire, server.url)
    await wire.close()
    assert (error.kind, error.maybe_sent) == ("broken", True)


async def test_a_large_request_that_was_refused_may_still_be_on_its_way_so_its_connection_ends(open_one, wire_kind):
    async with raw_server(always(answer(413))) as server, open_one() as wire:
        for _ in range(2):
            await wire.post(server.url, HEADERS, b"x" * 100_000)
        for _ in range(2):
            await wire.post(server.url, HEADERS, BODY)
    assert wire_kind != "auto" or server.connections == 3


async def test_a_request_that_dies_on_a_reused_connection_is_not_sent_again_by_the_library(open_one):
    async def first_only(seen, peer):
        if len(server.requests) == 1:
            await peer.send(answer(200, b"one"))
        else:
            peer.hang_up()

    async with raw_server(first_only) as server, open_one() as wire:
        await wire.post(server.url, HEADERS, BODY)
        error = await fails(wire, server.url)
    assert (error.kind, error.maybe_sent) == ("broken", True)
    assert [seen.connection for seen in server.requests] == [1, 1]


async def test_a_server_that_ends_connections_unannounced_soon_gets_a_new_one_for_each_request(open_one):
    """What such a request cost nobody knows, so that its worst case is booked."""

    async def once(seen, peer):
        if seen.connection in answered:
            peer.hang_up()
        else:
            answered.add(seen.connection)
            await peer.send(answer(200, b"well"))

    answered, broken = set(), []
    async with raw_server(once) as server, open_one() as wire:
        for _ in range(60):
            try:
                await wire.post(server.url, HEADERS, BODY)
            except WireError as error:
                broken.append((error.kind, error.maybe_sent))
    assert broken == [("broken", True)] * DEATHS
    assert len(server.requests) == 60, "nothing is sent again by the wire itself"


async def test_where_one_kept_connection_was_dead_the_others_are_not_tried(open_one, wire_kind):
    """Of a laptop that slept all are, and as young as before for a clock that slept with it."""

    async def once(seen, peer):
        if seen.connection in answered:
            peer.hang_up()
            return
        answered.add(seen.connection)
        if len(answered) == 4:
            together.set()
        await together.wait()
        await peer.send(answer(200, b"well"))

    answered, together = set(), asyncio.Event()
    async with raw_server(once) as server, open_one() as wire:
        await asyncio.gather(*(wire.post(server.url, HEADERS, BODY) for _ in range(4)))
        await fails(wire, server.url)
        if wire_kind == "auto":  # the libraries keep theirs where nobody can reach them
            await wire.post(server.url, HEADERS, BODY)


async def test_a_server_that_begins_anew_keeps_its_connections(open_one):
    async def once(seen, peer):
        if len(server.requests) == 5:
            peer.reset()
        else:
            await peer.send(answer(200, b"well"))

    async with raw_server(once) as server, open_one() as wire:
        for number in range(1, 21):
            if number == 5:
                await fails(wire, server.url)
            else:
                await wire.post(server.url, HEADERS, BODY)
    assert server.connections == 2


def test_connections_are_used_again_for_once_after_a_while_and_twice_as_late_each_time():
    reuse = Reuse()
    for _ in range(DEATHS):
        assert reuse.allowed
        reuse.died(100.0)
    assert not reuse.allowed
    for now, allowed in ((159.0, False), (160.0, True)):
        reuse.look(now)
        assert reuse.allowed == allowed
    reuse.died(160.1)
    reuse.look(280.0)
    assert not reuse.allowed
    reuse.look(281.0)
    assert reuse.allowed


def test_deaths_far_between_say_nothing_of_a_server():
    reuse = Reuse()
    for _ in range(10 * DEATHS):
        reuse.good += FEW
        reuse.died(100.0)
    assert reuse.allowed


def test_connections_that_die_at_once_when_a_server_begins_anew_are_one_death():
    reuse = Reuse()
    for restart in (100.0, 200.0):
        reuse.good += FEW
        for number in range(50):
            reuse.died(restart + number / 100)
        assert reuse.allowed
    reuse.died(201.0)
    assert reuse.allowed
    reuse.died(201.1)  # it goes on: that was no restart
    assert not reuse.allowed


async def test_a_wire_works_on_after_a_broken_exchange(open_one):
    async def second_only(seen, peer):
        if len(server.requests) == 1:
            peer.reset()
        else:
            await peer.send(answer(200, b"well"))

    async with raw_server(second_only) as server, open_one() as wire:
        await fails(wire, server.url)
        assert (await wire.post(server.url, HEADERS, BODY)).body == b"well"


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
async def test_an_answer_longer_than_the_limit_is_given_up_and_may_have_been_billed(open_one, packed):
    long = b"x" * 100_001
    data = answer(200, gzip.compress(long), "Content-Encoding: gzip") if packed else answer(200, long)
    async with raw_server(always(data)) as server:
        async with open_one(max_body_bytes=100_000) as wire:
            error = await fails(wire, server.url)
            assert (error.kind, error.maybe_sent) == ("too_large", True)
        async with open_one(max_body_bytes=100_001) as wire:
            assert (await wire.post(server.url, HEADERS, BODY)).body == long


@pytest.mark.parametrize(
    "url",
    [
        "nowhere",
        "ftp://host/x",
        "http:///x",
        "http://127.0.0.1:99999/",
        "https://jane:hunter2@127.0.0.1/v1",
        "http://[::1/",
    ],
)
async def test_an_address_that_cannot_be_used_is_said_before_anything_is_sent(open_one, url):
    async with open_one() as wire:
        error = await fails(wire, url)
    assert (error.kind, error.maybe_sent) == ("bad_request", False)


@pytest.mark.parametrize("host", ["faß.de", "bücher.example", "BÜCHER.Example", "日本。jp", "σς.gr", "İstanbul.com"])
def test_a_name_in_other_letters_is_the_same_to_all_wires(host):
    """Python's own codec follows rules of 2003, by which faß.de is fass.de: somebody else's, perhaps."""
    assert plain._place(f"http://{host}/v1", {}, {}).origin[0] == httpx.URL(f"http://{host}/v1").raw_host.decode()


@pytest.mark.parametrize("host", ["☃.net", "a\u200db.com", "ü_b.de", "\u017f.de", "1.2.3.\uff14", "xn--ü.de"])
def test_a_name_that_is_not_the_same_to_all_is_refused(host):
    with pytest.raises(WireError, match=r"xn-- form|not a valid URL") as caught:
        plain._place(f"http://{host}/v1", {}, {})
    assert (caught.value.kind, caught.value.maybe_sent) == ("bad_request", False)


async def test_a_name_that_cannot_be_one_is_no_connection(open_one):
    async with open_one() as wire:
        error = await fails(wire, f"https://{'ü' * 70}.example/v1/chat/completions")
    assert (error.kind, error.maybe_sent) in (("bad_request", False), ("connect", False))


def test_a_name_in_other_letters_is_looked_up_and_named_as_dns_has_it():
    place = plain._place("https://bücher.example/v1", {}, {})
    assert place.origin == ("xn--bcher-kva.example", 443, True)
    assert b"\r\nhost: xn--bcher-kva.example\r\n" in place.head
    assert b"\r\nhost: xn--bcher-kva.example:80\r\n" in plain._place("https://bücher.example:80/v1", {}, {}).head
    assert b"\r\nhost: [::1]:8000\r\n" in plain._place("http://[::1]:8000/v1", {}, {}).head
    assert b"\r\nhost: host\r\n" in plain._place("http://host:80/v1", {}, {}).head


@pytest.mark.parametrize(
    "value", ["Bearer sk-secret-key\n", "Bearer sk-secret-key\r\nX-Injected: 1", "Bearer schlüssel"]
)
async def test_a_header_that_cannot_be_sent_is_refused_without_showing_its_value(open_one, value):
    async with raw_server(always(answer(200))) as server, open_one() as wire:
        error = await fails(wire, server.url, {"authorization": value})
    assert (error.kind, error.maybe_sent) == ("bad_request", False)
    assert "authorization" in str(error)
    assert server.requests == []
    assert error.__cause__ is None


async def test_a_hundred_requests_at_once_share_a_wire_and_get_their_own_answers(open_one):
    async def echo(seen, peer):
        await peer.send(answer(200, seen.body))

    async with raw_server(echo) as server, open_one(concurrency=100) as wire:
        bodies = [b"%d" % number for number in range(100)]
        replies = await asyncio.gather(*(wire.post(server.url, HEADERS, body) for body in bodies))
    assert [reply.body for reply in replies] == bodies


async def test_as_many_idle_connections_are_kept_as_requests_may_run_at_once(open_one):
    async def all_together(seen, peer):
        await everybody.wait()
        await peer.send(answer(200))

    everybody = asyncio.Barrier(12)
    async with raw_server(all_together) as server, open_one(concurrency=12) as wire:
        for _ in range(2):
            await asyncio.gather(*(wire.post(server.url, HEADERS, BODY) for _ in range(12)))
    assert server.connections == 12


async def test_a_cancelled_request_leaves_the_wire_usable(open_one):
    async def slow_first(seen, peer):
        if len(server.requests) == 1:
            arrived.set()
            await peer.stall()
        await peer.send(answer(200, b"next"))

    arrived = asyncio.Event()
    async with raw_server(slow_first) as server, open_one() as wire:
        task = asyncio.create_task(wire.post(server.url, HEADERS, BODY))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await wire.post(server.url, HEADERS, BODY)).body == b"next"


async def test_a_closed_wire_sends_nothing_and_closing_twice_is_harmless(open_one):
    async with raw_server(always(answer(200))) as server, open_one() as wire:
        await wire.post(server.url, HEADERS, BODY)
        await wire.close()
        error = await fails(wire, server.url)
    assert (error.kind, error.maybe_sent) == ("connect", False)
    assert len(server.requests) == 1


async def test_a_certificate_nobody_vouches_for_is_refused_before_the_key_is_sent(open_one, authority):
    safe = raw_server(always(answer(200)), tls=authority[1])
    async with safe as server, open_one(root_certificates=None) as wire:
        error = await fails(wire, server.url)
    assert (error.kind, error.maybe_sent) == ("tls", False)
    assert "certificate" in str(error)
    assert server.requests == []


async def test_a_certificate_for_another_name_is_refused_before_the_key_is_sent(open_one, authority):
    async with raw_server(always(answer(200)), tls=authority[1]) as server, open_one() as wire:
        error = await fails(wire, server.url.replace("127.0.0.1", "localhost"))
    assert (error.kind, error.maybe_sent) == ("tls", False)
    assert server.requests == []


async def test_a_server_that_does_not_encrypt_is_not_told_the_key_over_https(open_one, wire_kind):
    heard = []

    async def refuse(reader, writer):
        writer.write(answer(400, b"what?"))
        heard.append(await reader.read(1 << 16))
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server, open_one() as wire:
        error = await fails(wire, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat/completions")
    assert (error.kind, error.maybe_sent) == ("tls", False)
    assert wire_kind != "auto" or system_context() is None or "perhaps its address begins with http://" in str(error)
    assert not any(b"sk-secret-key" in data or BODY in data for data in heard)


async def test_a_certificate_of_an_added_authority_is_accepted_wherever_it_stands_in_the_file(open_one, authority):
    key = new_key()
    bundle = certificate("Other CA", key, "Other CA", key, is_authority=True) + authority[0]
    safe = raw_server(always(answer(200, b"safe")), tls=authority[1])
    async with safe as server, open_one(root_certificates=bundle) as wire:
        assert (await wire.post(server.url, HEADERS, BODY)).body == b"safe"


@encrypts_by_itself
async def test_errors_of_tls_name_what_may_help(authority):
    wire = open_wire("auto", WireOptions(direct=True))
    async with raw_server(always(answer(200)), tls=authority[1]) as server:
        assert "(SSL_CERT_FILE names the file" in str(await fails(wire, server.url))
    await wire.close()
    wire = open_wire("auto", WireOptions(direct=True, root_certificates=authority[0]))
    async with raw_server(always(answer(200)), tls=authority[1]) as server:
        error = await fails(wire, server.url.replace("127.0.0.1", "localhost"))
        assert str(error).endswith("certificate is not valid for 'localhost'")
    await wire.close()


@encrypts_by_itself
async def test_ssl_cert_file_stands_for_all_of_the_systems_certificates(monkeypatch, tmp_path, authority):
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    wire = open_wire("auto", WireOptions(direct=True))
    async with raw_server(always(answer(200, b"safe")), tls=authority[1]) as server:
        error = await fails(wire, server.url)
        assert (error.kind, error.maybe_sent) == ("tls", False)
        assert "can't be read" in str(error)
        (tmp_path / "authority.pem").write_bytes(authority[0])
        assert (await wire.post(server.url, HEADERS, BODY)).body == b"safe"
    await wire.close()
    trust = system_context()
    assert [each["subject"] for each in trust.get_ca_certs()] == [((("commonName", "Test CA"),),)]
    assert not trust.verify_flags & ssl.VERIFY_X509_STRICT


async def test_root_certificates_that_are_none_are_a_usage_error(wire_kind):
    with pytest.raises(UsageError, match="not a PEM file"):
        open_wire(wire_kind, WireOptions(root_certificates=b"not a certificate"))


async def test_a_proxy_from_the_environment_is_used_unless_the_wire_is_direct(open_one, monkeypatch):
    elsewhere, here = (raw_server(always(answer(200, body)), tls=None) for body in (b"proxy", b"server"))
    async with elsewhere as proxy, here as server:
        monkeypatch.setenv("http_proxy", proxy.base)
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with open_one() as wire:
            assert (await wire.post(server.url, HEADERS, BODY)).body == b"proxy"
        async with open_one(direct=True) as wire:
            assert (await wire.post(server.url, HEADERS, BODY)).body == b"server"


async def test_a_proxy_that_cannot_be_reached_is_told_from_the_server(monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with raw_server(always(answer(200))) as server:
        wire = open_wire("auto", WireOptions())
        error = await fails(wire, server.url)
        await wire.close()
    assert (error.kind, error.maybe_sent) == ("connect", False)
    assert "proxy that the environment names" in str(error)
    assert server.connections == 0


@pytest.fixture
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


URL = "http://127.0.0.1:1/v1"
OF_NO_USE = [
    ("socks9://jane:hunter2@127.0.0.1:9", "socks9:// is none of http://, https://, socks"),
    ("ftp://jane:hunter2@127.0.0.1:9", "ftp:// is none of"),
    ("socks://127.0.0.1:9", "socks:// is none of"),
    ("jane:hunter2://127.0.0.1:9", "that is none of"),
    ("http://jane:hunter2@[::1", "it is no address; write it as http://HOST:PORT, or unset the variable"),
    ("http://jane:hunter2@", "it is no address"),
    ("http://jane:hunter2@host:99999", "it is no address"),
    ("http://jane:hunter2@host:x9", "it is no address"),
    ("http://jane:hunt/er2@host:9", "it is no address"),
    ("http://jane:hunter2@exa%6dple:9", "it is no address"),
    ("//127.0.0.1:9", "it is no address"),
    ("http://my proxy:9", "it holds a character that no address has"),
    ("http://jane:hunter2@bücher.example:9", "it holds a character"),
    (
        "http://ja ne:hunter2@host:9",
        "it holds a character that no address has (in a user name or password that is written %20)",
    ),
    ("http://jane:hunt^er2@host:9", "it holds a character"),
    ("http://127.0.0.1:9 ", "it holds a character"),
    ("http://jane:hunt@er2@host:9", "it holds two @"),
]


@pytest.mark.parametrize("wire", ["auto", "native", "httpx"])
@pytest.mark.parametrize(("proxy", "says"), OF_NO_USE)
def test_a_proxy_that_cannot_be_used_is_a_mistake_that_names_its_variable(no_proxies, monkeypatch, wire, proxy, says):
    if wire == "httpx" and "holds" in says:  # it reads what no address has
        return
    for variable in ("HTTP_PROXY", "all_proxy"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, proxy)
            with pytest.raises(UserError) as caught:
                require_usable_proxy(wire, URL)
        assert str(caught.value).startswith(f"the proxy in ${variable} can't be used: {says}")
        assert not any(secret in str(caught.value) for secret in ("jane", "hunt"))


@pytest.mark.parametrize("kind", ["http", "https", "HTTP", "socks4", "socks4a", "socks5", "socks5h"])
async def test_every_kind_of_proxy_that_is_let_through_is_asked(no_proxies, monkeypatch, kind):
    """What a library can't read it passes over: it would send past the proxy."""
    called = asyncio.Event()

    def hear(_, writer):
        called.set()
        writer.close()

    async with raw_server(always(answer(200))) as server:
        proxy = await asyncio.start_server(hear, "127.0.0.1", 0)
        port = proxy.sockets[0].getsockname()[1]
        for place in (f"127.0.0.1:{port}", f"us!$&'()*+,;=er:p%20~w@127.0.0.1:{port}/"):
            monkeypatch.setenv("http_proxy", f"{kind}://{place}")
            for name in ("auto", "native", "httpx"):
                if name == "httpx" and kind.startswith("socks"):
                    with pytest.raises(UserError, match=r'pip install "httpx\[socks\]"|is none of'):
                        require_usable_proxy(name, server.url)
                    continue
                require_usable_proxy(name, server.url)
                called.clear()
                wire = open_wire(name, WireOptions())
                await fails(wire, server.url)
                assert called.is_set()
                await wire.close()
        proxy.close()
        await proxy.wait_closed()
    assert server.connections == 0


def test_a_proxy_that_is_not_in_the_way_may_be_what_it_likes(no_proxies, monkeypatch):
    monkeypatch.setenv("https_proxy", "socks9://127.0.0.1:9")
    require_usable_proxy("auto", URL)
    require_usable_proxy("native", URL)
    with pytest.raises(UserError, match=r"\$https_proxy"):
        require_usable_proxy("httpx", URL)  # it opens all of them
    with pytest.raises(UserError, match=r"\$https_proxy"):
        require_usable_proxy("auto", "https://127.0.0.1/v1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    require_usable_proxy("auto", "https://127.0.0.1/v1")
    monkeypatch.setenv("no_proxy", "*")
    require_usable_proxy("httpx", "https://127.0.0.1/v1")


@pytest.mark.parametrize("passed", ["localhost,127.0.0.0/8,::1", "127.0.0.1/32", "127.0.0.1:1", "*"])
def test_a_proxy_that_is_not_for_this_network_may_be_what_it_likes(no_proxies, monkeypatch, passed):
    monkeypatch.setenv("all_proxy", "socks://127.0.0.1:7890/")
    monkeypatch.setenv("no_proxy", passed)
    require_usable_proxy("auto", URL)
    monkeypatch.setenv("no_proxy", "10.0.0.0/8,nothing/x,127.0.0.1:2")
    with pytest.raises(UserError, match="all_proxy"):
        require_usable_proxy("auto", URL)


def test_httpx_may_have_a_windows_domain_before_the_user_of_a_proxy(no_proxies, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://DOM\\jane:hunter 2@host:9")
    require_usable_proxy("httpx", URL)


@pytest.mark.parametrize("proxy", ["socks9://jane:hunter2@127.0.0.1:9", "http://jane:hunter2@[::1"])
def test_a_wire_of_httpx_says_so_too(no_proxies, monkeypatch, proxy):
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(UsageError, match=r"\$HTTP_PROXY") as caught:
        open_wire("httpx", WireOptions())
    assert "hunter2" not in str(caught.value)


def _without_pyreqwest(monkeypatch):
    real = builtins.__import__

    def refusing(name, *args, **kwargs):
        if name.startswith(("pyreqwest", "pipeline.wire.native")):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refusing)


async def test_the_library_is_native_and_httpx_where_native_has_no_build(monkeypatch):
    first = open_library("auto", WireOptions())
    _without_pyreqwest(monkeypatch)
    second = open_library("auto", WireOptions())
    assert (type(first), type(second)) == (NativeWire, HttpxWire)
    await first.close()
    await second.close()


@pytest.fixture
def no_library(monkeypatch):
    """Whoever wants a library's wire fails."""
    _without_pyreqwest(monkeypatch)
    monkeypatch.setattr(HttpxWire, "__init__", None)


async def test_auto_opens_no_library_for_a_server_without_encryption(no_library):
    async with raw_server(always(answer(200, b"plain"))) as server:
        wire = open_wire("auto", WireOptions(direct=True))
        assert (await wire.post(server.url, HEADERS, BODY)).body == b"plain"
        await wire.close()


@encrypts_by_itself
async def test_auto_encrypts_by_itself_where_openssl_knows_whom_the_system_trusts(no_library, authority):
    async with raw_server(always(answer(200, b"safe")), tls=authority[1]) as server:
        wire = open_wire("auto", WireOptions(direct=True, root_certificates=authority[0]))
        assert (await wire.post(server.url, HEADERS, BODY)).body == b"safe"
        await wire.close()


@pytest.mark.parametrize("place", ["a system that keeps them elsewhere", "no file and no folder", "an empty folder"])
async def test_auto_encrypts_with_the_library_where_it_does_not(monkeypatch, tmp_path, authority, place):
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    if place.startswith("a system"):
        monkeypatch.setattr(sys, "platform", "darwin")
    else:
        folder = str(tmp_path) if place == "an empty folder" else None
        paths = ssl.get_default_verify_paths()._replace(cafile=None, capath=folder)
        monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    assert system_context() is None
    opened = []
    monkeypatch.setattr(_auto, "open_library", lambda *_: opened.append(NativeWire(_[1])) or opened[0])
    async with raw_server(always(answer(200, b"safe")), tls=authority[1]) as server:
        wire = open_wire("auto", WireOptions(direct=True, root_certificates=authority[0]))
        assert (await wire.post(server.url, HEADERS, BODY)).body == b"safe"
        await wire.close()
    assert opened


async def test_asking_for_a_native_wire_that_cannot_be_loaded_names_the_way_out(monkeypatch):
    _without_pyreqwest(monkeypatch)
    with pytest.raises(UsageError, match='wire = "httpx"'):
        open_wire("native", WireOptions())


async def test_a_function_can_stand_in_for_the_server():
    def respond(request):
        return httpx.Response(200, json={"path": request.url.path})

    wire = HttpxWire(WireOptions(), httpx.MockTransport(respond))
    reply = await wire.post("https://vendor.example/v1/chat/completions", HEADERS, BODY)
    await wire.close()
    assert reply.body == b'{"path":"/v1/chat/completions"}'


async def test_after_an_answer_too_many_each_request_has_a_connection_of_its_own_and_that_is_told():
    async def twice(seen, peer):
        await peer.send(answer(200, b"well"))
        if len(server.requests) == 1:
            await first_is_home.wait()
            await peer.send(answer(200, b"well"))

    told, first_is_home, heard = [], asyncio.Event(), asyncio.Event()

    def notify(text):
        told.append(text)
        heard.set()

    async with raw_server(twice) as server:
        wire = open_wire("auto", WireOptions(direct=True, notify=notify))
        await wire.post(server.url, HEADERS, BODY)
        first_is_home.set()
        await heard.wait()
        for _ in range(3):
            await wire.post(server.url, HEADERS, BODY)
        await wire.close()
    (said,) = told
    assert "has sent more than it was asked for, so an answer may have been taken for another row's" in said
    assert [seen.connection for seen in server.requests] == [1, 2, 3, 4]


async def test_a_word_of_goodbye_on_an_idle_connection_is_no_answer_too_many():
    async def leaves(seen, peer):
        await peer.send(answer(200, b"well"))
        await first_is_home.wait()
        await peer.send(answer(408, b"idle for too long", "Connection: close"))
        peer.hang_up()

    told, first_is_home = [], asyncio.Event()
    async with raw_server(leaves) as server:
        wire = open_wire("auto", WireOptions(direct=True, notify=told.append))
        for _ in range(3):
            first_is_home.clear()
            await wire.post(server.url, HEADERS, BODY)
            first_is_home.set()
            await asyncio.sleep(0.05)
        await wire.close()
    assert told == []


@pytest.mark.parametrize("more", [answer(200, b"well"), b"\r\n"])
async def test_what_comes_with_an_answer_ends_its_connection_and_is_no_news(more):
    """Nobody can have taken it for an answer of his own."""
    told = []
    async with raw_server(always(answer(200, b"well") + more)) as server:
        wire = open_wire("auto", WireOptions(direct=True, notify=told.append))
        for _ in range(3):
            await wire.post(server.url, HEADERS, BODY)
        await wire.close()
    assert told == []
    assert [seen.connection for seen in server.requests] == [1, 2, 3]


class Turned:
    """A loop of which only the clock is needed, and what is to be done in its next turn."""

    def __init__(self):
        self.now, self.soon, self.timers = 100.0, [], []

    def time(self):
        return self.now

    def call_soon(self, call, *args):
        self.soon.append((call, args))

    def call_at(self, when, call, *args):
        self.timers.append(Timer(when, call, args))
        return self.timers[-1]

    def create_future(self):
        self.future = Waited(self)
        return self.future

    def turn(self):
        soon, self.soon = self.soon, []
        for call, args in soon:
            call(*args)


class Timer:
    def __init__(self, when, call, args):
        self._when, self._call, self._args = when, call, args

    def when(self):
        return self._when

    def ring(self):
        self._call(*self._args)

    def cancel(self):
        pass


class Waited:
    def __init__(self, loop):
        self.loop, self.error, self.result = loop, None, None

    def get_loop(self):
        return self.loop

    def done(self):
        return self.error is not None or self.result is not None

    def set_exception(self, error):
        self.error = error

    def set_result(self, result):
        self.result = result


class Line:
    """The server's end: what the connection does to it."""

    def __init__(self):
        self.reading, self.done = True, []

    def write(self, data):
        self.done.append("write")

    def pause_reading(self):
        assert self.reading
        self.reading = False
        self.done.append("pause")

    def resume_reading(self):
        assert not self.reading
        self.reading = True
        self.done.append("resume")

    def is_closing(self):
        return "abort" in self.done

    def abort(self):
        self.done.append("abort")


def asked(*, seconds, limit=2**30):
    """A connection that waits for an answer."""
    loop, line, connection = Turned(), Line(), plain._Connection(lambda: None)
    connection.connection_made(line)
    connection.exchange(loop, b"POST", plain.Answer("host:80", limit), loop.now + seconds)
    return loop, line, connection


LONG = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (8 * plain.TURN_BYTES)


async def test_a_long_answer_lets_the_loop_do_other_things_in_between_and_a_short_one_never_has_to():
    loop, line, connection = asked(seconds=10)
    connection.data_received(answer(200, b"x" * (plain.TURN_BYTES - 100)))
    assert (loop.future.result.whole, line.done) == (True, ["write"])
    loop, line, connection = asked(seconds=10)
    connection.data_received(LONG)
    for _ in range(7):
        connection.data_received(bytes(plain.TURN_BYTES))
        assert not line.reading
        loop.turn()
        assert line.reading
    connection.data_received(bytes(plain.TURN_BYTES))
    assert loop.future.result.whole
    assert line.done == ["write", *["pause", "resume"] * 7]


async def test_a_server_that_never_ends_is_left_at_the_deadline_though_no_timer_rings():
    loop, line, connection = asked(seconds=10)
    connection.data_received(LONG)
    connection.data_received(bytes(plain.TURN_BYTES))
    loop.turn()
    loop.now += 10.5
    connection.data_received(bytes(plain.TURN_BYTES))
    assert isinstance(loop.future.error, TimeoutError)
    connection.data_received(bytes(plain.TURN_BYTES))
    assert line.done[-1] == "abort"


async def test_a_process_that_was_stopped_reads_what_came_meanwhile_but_not_for_ever():
    loop, _, connection = asked(seconds=10)
    loop.now += 3600
    loop.timers[-1].ring()
    connection.data_received(LONG)
    connection.data_received(bytes(7 * plain.TURN_BYTES))
    assert loop.future.error is None
    loop.turn()
    loop.now += 3600
    connection.data_received(bytes(plain.TURN_BYTES - 1))
    assert loop.future.error is None, "little of it: the timer will ring"
    assert loop.timers[-1].when() == 100 + 3600 + plain.STOOD_STILL_SECONDS
    loop.timers[-1].ring()
    assert isinstance(loop.future.error, TimeoutError)


async def test_a_connection_that_was_dropped_while_others_had_their_turn_is_not_read_again():
    loop, line, connection = asked(seconds=10)
    connection.data_received(LONG + bytes(plain.TURN_BYTES))
    connection.abort()
    loop.turn()
    assert line.done == ["write", "pause", "abort"]


async def test_an_answer_of_many_turns_arrives_whole(open_one):
    text = bytes(range(256)) * 8000
    async with raw_server(always(answer(200, text))) as server, open_one() as wire:
        for _ in range(2):
            assert (await wire.post(server.url, HEADERS, BODY)).body == text

"""Answers out of bytes, however the network cuts them: exact where lengths matter, lenient where nothing is lost."""

import gzip
import tracemalloc
import zlib

import pytest

from pipeline.errors import WireError
from pipeline.wire._body import Body, Pieces
from pipeline.wire._http1 import LONGEST_HEAD, Answer

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-One: a\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;name=value\r\nlo\r\n0\r\nTrailer: x\r\n\r\n"
)
PACKED = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSED = b"HTTP/1.0 200 OK\r\n\r\nhello"


def packed():
    body = gzip.compress(b"hello")
    return PACKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def answer(*pieces, ended=False, limit=1000):
    one = Answer("host:80", limit)
    for piece in pieces:
        one.feed(piece)
    if ended:
        one.ended()
    return one


GOOD = [HELLO, CHUNKED, packed(), b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HELLO]


@pytest.mark.parametrize("data", GOOD, ids=["length", "chunks", "packed", "hints before it"])
def test_an_answer_is_the_same_wherever_the_network_cuts_it(data):
    for cut in range(len(data) + 1):
        one = answer(data[:cut], data[cut:])
        assert (one.whole, one.status, one.content, one.reusable) == (True, 200, b"hello", True), cut
        assert not cut or cut == len(data) or not answer(data[:cut]).whole, cut
    one = answer(*(data[at : at + 1] for at in range(len(data))))
    assert (one.whole, one.content) == (True, b"hello")


def raw_deflate(data):
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packing.compress(data) + packing.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (b"gzip", gzip.compress(b"hel") + gzip.compress(b"lo")),
        (b"gzip", gzip.compress(b"hel") + gzip.compress(b"") + gzip.compress(b"lo")),
        (b"gzip", gzip.compress(b"hello") + bytes(7)),
        (b"deflate", zlib.compress(b"hello")),
        (b"deflate", raw_deflate(b"hello")),
    ],
    ids=["two members", "three members", "padding", "deflate", "deflate without its header"],
)
def test_a_packed_body_is_unpacked_to_its_end_wherever_the_network_cuts_it(encoding, body):
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (encoding, len(body))
    for cut in range(len(body) + 1):
        one = answer(head + body[:cut], body[cut:])
        assert (one.whole, one.content) == (True, b"hello"), cut


@pytest.mark.parametrize("left_out", range(1, len(gzip.compress(b""))))
def test_a_packed_body_whose_last_member_is_cut_off_is_broken(left_out):
    body = (gzip.compress(b"hel") + gzip.compress(b""))[:-left_out]
    with pytest.raises(WireError):
        answer(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def test_an_answer_without_a_length_ends_with_its_connection():
    one = answer(UNTIL_CLOSED, ended=True)
    assert (one.whole, one.content, one.reusable) == (True, b"hello", False)
    assert not answer(UNTIL_CLOSED).whole


@pytest.mark.parametrize("data", [HELLO, CHUNKED, packed(), b""])
def test_an_answer_that_ends_too_early_is_broken(data):
    for cut in range(len(data)):
        with pytest.raises(WireError) as caught:
            answer(data[:cut], ended=True)
        assert (caught.value.kind, caught.value.maybe_sent) == ("broken", True), cut


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body_whatever_they_say(status):
    one = answer(b"HTTP/1.1 %d None\r\nContent-Length: 5\r\n\r\n" % status)
    assert (one.whole, one.content, one.reusable) == (True, b"", True)


@pytest.mark.parametrize(
    ("head", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: Upgrade, Close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
        (b"HTTP/1.1 101 Switching\r\n", False),
    ],
)
def test_a_connection_is_used_again_only_where_the_server_keeps_it(head, reusable):
    assert answer(head + b"Content-Length: 2\r\n\r\nok").reusable == reusable


def test_what_follows_an_answer_unasked_ends_the_connection_and_is_nobodys_answer():
    one = answer(HELLO + HELLO)
    assert (one.content, one.reusable) == (b"hello", False)
    assert not answer(CHUNKED + b"x").reusable


def test_a_length_beside_chunks_does_not_count_and_the_connection_is_not_trusted():
    one = answer(CHUNKED.replace(b"\r\n", b"\r\nContent-Length: 3\r\n", 1))
    assert (one.content, one.reusable) == (b"hello", False)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Content-Length: -5\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: 5_0\r\n",
        "Content-Length: \u00b2\r\n".encode("latin-1"),
        b"Content-Length:\r\n",
        b"Content-Length: " + b"9" * 30 + b"\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Content-Encoding: br\r\nContent-Length: 5\r\n",
    ],
)
def test_a_length_or_packing_that_cannot_be_known_is_broken(head):
    with pytest.raises(WireError) as caught:
        answer(b"HTTP/1.1 200 OK\r\n" + head + b"\r\nhello")
    assert (caught.value.kind, caught.value.maybe_sent) == ("broken", True)


def test_the_same_length_said_twice_is_that_length():
    assert answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5, 5\r\n\r\nhello").content == b"hello"


@pytest.mark.parametrize(
    "chunks", [b"3\r\nhello\r\n0\r\n\r\n", b"x\r\n", b"-3\r\nhel\r\n", b"\r\n", b"3 3\r\nhel\r\n", b"0x3\r\n"]
)
def test_a_chunk_that_is_not_as_long_as_it_says_is_broken(chunks):
    with pytest.raises(WireError, match="chunk"):
        answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)


@pytest.mark.parametrize(
    "data", [b"SSH-2.0\r\n", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 2000 OK\r\n\r\n", b"\r\n\r\n", b"HTTP/1.1 OK\r\n\r\n"]
)
def test_what_is_not_http_is_said_to_be_so(data):
    with pytest.raises(WireError, match="not HTTP"):
        answer(data)


def test_a_server_that_ends_lines_without_a_carriage_return_is_understood():
    one = answer(b"HTTP/1.1 200 OK\nContent-Length: 12\n\na\r\n\r\nb\r\n\r\nc!")
    assert (one.content, one.headers) == (b"a\r\n\r\nb\r\n\r\nc!", {"content-length": "12"})


def test_odd_header_lines_lose_no_answer():
    one = answer(
        b"HTTP/1.1 200\r\nno colon\r\n: none\r\nX-Odd: \xff\r\nX-A: 1\r\nx-a: 2\r\nContent-Length : 5\r\n\r\nhello"
    )
    assert (one.content, one.headers["x-odd"], one.headers["x-a"]) == (b"hello", "\xff", "1")


def test_too_much_of_anything_is_given_up():
    with pytest.raises(WireError) as caught:
        answer(HELLO, limit=4)
    assert caught.value.kind == "too_large"
    with pytest.raises(WireError) as caught:
        answer(CHUNKED, limit=4)
    assert caught.value.kind == "too_large"
    for endless in (
        b"HTTP/1.1 200 OK\r\n" + b"x" * LONGEST_HEAD,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * LONGEST_HEAD,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * LONGEST_HEAD,
    ):
        with pytest.raises(WireError) as caught:
            answer(endless)
        assert caught.value.kind == "broken"


CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", gzip.compress(b"")),
        (PACKED, b"14\r\n%b\r\n" % gzip.compress(b"")),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"hello"), bytes(100)),
        (CHUNKS, b"1;a=%b\r\nx\r\n" % bytes(1000)),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["empty members", "empty members in chunks", "padding", "chunks of one byte", "hints"],
)
def test_what_never_becomes_an_answer_is_given_up_however_little_comes_out_of_it(head, more):
    with pytest.raises(WireError) as caught:
        answer(head, *[more] * 4000, limit=1000)
    assert caught.value.kind == "too_large"


@pytest.mark.parametrize("taken_by", [lambda: Body("", "host:80", 10**6), Pieces])
def test_an_answer_in_tiny_pieces_takes_little_more_memory_than_its_bytes(taken_by):
    text = bytes(range(256)) * 800
    found = taken_by()
    tracemalloc.start()
    try:
        for at in range(0, len(text), 2):
            found.add(text[at : at + 2])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.whole() == text
    assert most < 3 * len(text)


def test_a_head_that_drips_counts_once():
    """Each piece is read together with what came before."""
    head = b"HTTP/1.1 200 OK\r\nX-Long: %b\r\nContent-Length: 5\r\n\r\nhello" % (b"x" * 2000)
    assert answer(*(head[at : at + 1] for at in range(len(head))), limit=5).content == b"hello"


def test_a_body_of_many_members_and_of_many_chunks_loses_nothing():
    text = bytes(range(256)) * 40
    members = b"".join(gzip.compress(text[at : at + 100]) for at in range(0, len(text), 100))
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(members[at : at + 7]), members[at : at + 7]) for at in range(0, len(members), 7)
    )
    for cut in (0, 1, 5000, len(chunks) - 1):
        assert answer(PACKED + chunks[:cut], chunks[cut:] + b"0\r\n\r\n", limit=10**5).content == text

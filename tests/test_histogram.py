"""Bars for a terminal: round ranges, true counts, no line too long, whatever the screen can show."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli._histogram import histogram

SIZES = st.dictionaries(st.integers(0, 10**7), st.integers(1, 10**9), min_size=1, max_size=30)


def drawn(sizes, width, encoding="utf-8"):
    return histogram(sizes, width, encoding=encoding)


def test_sizes_of_one_magnitude_get_ranges_of_equal_length():
    assert drawn({120: 1000, 340: 12_345, 390: 1, 650: 3, 1050: 2469}, 40) == [
        "    100-199   1,000  █▌",
        "    200-299       0",
        "    300-399  12,346  ███████████████████",
        "    400-499       0",
        "    500-599       0",
        "    600-699       3  ▏",
        "    700-799       0",
        "    800-899       0",
        "    900-999       0",
        "1,000-1,099   2,469  ███▊",
    ]


def test_sizes_more_than_fifty_times_apart_get_ranges_by_their_ratio():
    assert drawn({120: 1000, 340: 12_345, 390: 1, 9050: 2469, 50_000: 1}, 50) == [
        "      100-199   1,000  ██▏",
        "      200-499  12,346  ███████████████████████████",
        "      500-999       0",
        "  1,000-1,999       0",
        "  2,000-4,999       0",
        "  5,000-9,999   2,469  █████▍",
        "10,000-19,999       0",
        "20,000-49,999       0",
        "50,000-99,999       1  ▏",
    ]


def test_sizes_very_far_apart_get_powers_of_ten_and_those_even_farther_powers_of_powers():
    assert drawn({3: 1, 2_000_000: 2}, 30) == [
        "                1-9  1  ███",
        "              10-99  0",
        "            100-999  0",
        "        1,000-9,999  0",
        "      10,000-99,999  0",
        "    100,000-999,999  0",
        "1,000,000-9,999,999  2  ██████",
    ]
    assert len(drawn({1: 1, 10**15: 1}, 80)) == 8


@pytest.mark.parametrize(
    ("largest", "ranges"),
    [
        (50, ["  0-9", "10-19", "20-29", "30-39", "40-49", "50-59"]),
        (51, ["    1", "  2-4", "  5-9", "10-19", "20-49", "50-99"]),
    ],
)
def test_fifty_times_is_the_limit_on_both_sides(largest, ranges):
    assert [line[:5] for line in drawn({1: 1, largest: 1}, 40)] == ranges


def test_a_range_of_one_size_is_that_size_and_the_longest_bar_fills_the_width():
    assert drawn({7: 1, 9: 2, 12: 4}, 15) == [
        " 7  1  ██",
        " 8  0",
        " 9  2  ████",
        "10  0",
        "11  0",
        "12  4  ████████",
    ]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "no-such-encoding"])
def test_a_screen_without_these_blocks_gets_number_signs(encoding):
    assert drawn({7: 1, 8: 1000, 9: 500}, 17, encoding) == [
        "7      1  #",
        "8  1,000  #######",
        "9    500  ####",
    ]


def test_the_encoding_is_that_of_standard_output(monkeypatch, capsys):
    class Stdout:
        encoding = "ascii"

    monkeypatch.setattr("sys.stdout", Stdout())
    assert histogram({1: 1, 2: 1}, 9) == ["1  1  ###", "2  1  ###"]


def test_a_size_on_an_edge_belongs_to_the_range_that_begins_there():
    assert drawn({49: 1, 50: 2, 99: 4, 100: 8}, 12) == [
        "  40-49  1",
        "  50-59  2",
        "  60-69  0",
        "  70-79  0",
        "  80-89  0",
        "  90-99  4",
        "100-109  8",
    ]


def test_one_size_makes_one_line_and_none_makes_none():
    assert drawn({1600: 5000}, 80) == ["1,600 input tokens: 5,000 requests"]
    assert drawn({1: 1}, 80) == ["1 input token: 1 request"]
    assert drawn({}, 80) == []


def test_requests_without_tokens_have_a_range_of_their_own():
    assert drawn({0: 1, 60: 7}, 14)[0] == "    0  1  ▋"


def test_what_does_not_fit_is_cut_with_a_sign_that_it_was():
    assert drawn({160: 99_999_999, 170: 1}, 12)[0] == "160-161  99…"
    assert drawn({160: 99_999_999, 170: 1}, 12, "ascii")[0] == "160-161  99~"
    assert drawn({1600: 5000}, 9) == ["1,600 in…"]


@given(SIZES, st.integers(60, 120), st.sampled_from(["utf-8", "ascii"]))
def test_every_request_lies_in_one_range_and_no_line_is_too_long(sizes, width, encoding):
    lines = drawn(sizes, width, encoding)
    assert len(lines) <= 10
    assert max(map(len, lines)) <= width
    if len(sizes) == 1:
        return
    found = []
    for line in lines:
        first, last, requests = re.match(r" *([\d,]+)(?:-([\d,]+))?  +([\d,]+)", line).groups()
        first, last, requests = (int((text or first).replace(",", "")) for text in (first, last, requests))
        assert sum(count for size, count in sizes.items() if first <= size <= last) == requests
        assert (line[-1] in "█▏▎▍▌▋▊▉#") == (requests > 0)
        found.append((first, last))
    assert all(before[1] + 1 == after[0] for before, after in pairwise(found))
    assert found[0][0] <= min(sizes) <= found[0][1]
    assert found[-1][0] <= max(sizes) <= found[-1][1]


@given(SIZES, st.integers(1, 60))
def test_no_line_is_too_long_for_a_narrow_screen(sizes, width):
    assert all(len(line) <= width for line in drawn(sizes, width))

"""What plans and runs remember of keys: exact, whatever the keys look like."""

import random
import tracemalloc
from collections import Counter

import pytest

from pipeline.keysets import PLACES, IdSet, KeyCounts, KeyMap, KeySet


def key(number, place="ab12"):
    return f"v1{place}{number:028x}"


def crowded(count):
    """Keys that share a place, and whose bytes are so alike that they are found across the seams of others."""
    chooser = random.Random(7)
    return [f"v10000{''.join(chooser.choices(('00', '01'), k=14))}" for _ in range(count)]


@pytest.mark.parametrize("keys", [crowded(3000), [key(n) for n in range(500)], ["a", "v1", "v1" + "x" * 32, "V1" * 17]])
def test_a_key_is_new_exactly_once(keys):
    seen, truth = KeySet(), set()
    for each in [*keys, *keys]:
        assert (each in seen) == (each in truth)
        assert seen.add(each) == (each not in truth)
        truth.add(each)
    assert len(seen) == len(truth)
    assert all(each in seen for each in truth)


@pytest.mark.parametrize("keys", [crowded(3000), ["k1", "k2", *(key(n) for n in range(300))]])
def test_a_map_returns_the_newest_value_of_each_key(keys):
    chooser, found, truth = random.Random(3), KeyMap(), {}
    for each in [*keys, *keys]:
        found[each] = truth[each] = (chooser.choice(("ok", "failed")), chooser.randrange(1000))
    assert found == truth
    assert len(found) == len(truth)
    assert all(found[each] == truth[each] for each in keys)
    assert found.get("v1" + "fe" * 16) is None
    with pytest.raises(KeyError):
        found["v1" + "fe" * 16]


@pytest.mark.parametrize("keys", [crowded(3000), ["k1", "k2", *(key(n) for n in range(300))]])
def test_each_key_is_counted(keys):
    counts, truth = KeyCounts(), Counter()
    for each in [*keys, *keys, *keys[:10]]:
        assert counts.add(each) == truth[each]
        truth[each] += 1


def test_a_key_takes_no_more_memory_however_often_it_is_counted():
    counts = KeyCounts()
    tracemalloc.start()
    for _ in range(100_000):
        counts.add(key(1))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counts.add(key(1)) == 100_000
    assert grown < 10_000


def test_an_empty_map_and_one_made_of_another_are_what_they_seem():
    assert KeyMap() == {}
    found = KeyMap({"k": 1, key(5): 2})
    assert found == {"k": 1, key(5): 2}
    assert [found.get(each, 7) for each in ("k", key(5), "no", key(6))] == [1, 2, 7, 7]
    assert KeyMap().get("k", 7) == 7


def test_what_is_filled_in_is_found_and_added_to():
    keys = crowded(50)
    distinct = sorted(set(keys))
    seen, found = KeySet(), KeyMap()
    rests = [bytes.fromhex(each[6:]) for each in distinct]
    seen.fill([(0, b"".join(rests[:9]))])
    seen.fill([(0, b"".join(rests[9:]))])
    numbers = [found.number(("even", "odd")[n % 2]).to_bytes(4, "big") for n in range(len(distinct))]
    records = [rest + number for rest, number in zip(rests, numbers, strict=True)]
    found.fill([(0, b"".join(records[:9]))])
    found.fill([(0, b"".join(records[9:]))])
    assert len(seen) == len(found) == len(distinct)
    assert not any(seen.add(each) for each in distinct)
    assert [found[each] for each in distinct] == [("even", "odd")[n % 2] for n in range(len(distinct))]
    found[key(1)] = "odd"
    assert (found[key(1)], len(found), found._values) == ("odd", len(distinct) + 1, ["even", "odd"])


def test_an_id_repeats_when_its_text_does():
    ids = IdSet()
    assert [ids.add(text) for text in ("1", "2", "1", "", "", "ü")] == [True, True, False, True, False, True]


def test_a_million_keys_would_take_twenty_some_bytes_each():
    chooser, seen, found = random.Random(1), KeySet(), KeyMap()
    for _ in range(20 * 256):
        each = f"v100{chooser.randrange(256):02x}{chooser.randbytes(14).hex()}"  # as crowded as 20 * PLACES keys
        seen.add(each)
        found[each] = "ok"
    taken = [sum(bucket.__sizeof__() for bucket in one._places if bucket) / (20 * 256) for one in (seen, found)]
    assert PLACES == 65_536
    assert max(taken) < 25

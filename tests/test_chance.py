"""Whether 429s come by chance: what passes behind a refused request, and between two closings, told by hand."""

import random

import pytest

from pipeline.chance import BEHIND, CLOSINGS, COST, PROVEN, SETTLED, WATCHED, Chance

SENT = 40
"""Requests from one refusal to the next in these tests; only those right behind it are looked at."""


class Server:
    """A server that is told which of its requests are refused."""

    def __init__(self, *, settled=True):
        self.chance, self.number = Chance(), 0
        for _ in range(SETTLED * settled):
            self.chance.closed(500)

    def sends(self, count):
        for _ in range(count):
            self.chance.sent()
        self.number += count
        return range(self.number - count + 1, self.number + 1)

    def refuses_one(self, *, behind=BEHIND, tokens=100, passing=100, **more):
        """The first of SENT is refused; `behind` it others pass. Says whether only its row need wait."""
        first, *others = self.sends(SENT)
        alone = self.chance.refused(first, tokens, **more)
        for number in others[:behind]:
            self.chance.passed(number, passing)
        return alone


def test_where_all_pass_behind_refused_requests_they_were_refused_by_chance():
    server = Server()
    for number in range(COST):
        assert server.chance.at_work is False, f"after {number} refusals"
        assert server.refuses_one(), "only its row need wait while it is looked what passes"
    assert server.chance.at_work
    assert not server.chance.wants_answers


def test_a_small_share_of_many_may_be_concluded_from_a_few_refusals():
    server = Server()
    server.sends(COST * 50)
    server.refuses_one()
    assert server.chance.at_work


@pytest.mark.parametrize(
    "what",
    [
        {"behind": 0},
        {"passing": 99},
        {"explained": True},
    ],
    ids=["nothing is heard of those behind", "only smaller ones pass", "a limit may well have been reached"],
)
def test_where_nothing_shows_it_nothing_is_concluded(what):
    server = Server()
    for _ in range(3 * COST):
        server.refuses_one(**what)
    assert not server.chance.at_work


def test_before_a_limit_is_known_well_nothing_is_concluded():
    server = Server(settled=False)
    for _ in range(3 * COST):
        assert not server.refuses_one()
    assert not server.chance.at_work


def test_when_one_right_behind_is_refused_too_the_door_closes_and_only_more_closings_make_up_for_it():
    server = Server()
    first, second, *_ = server.sends(SENT)
    assert server.chance.refused(first, 100)
    assert not server.chance.refused(second, 100)
    server.sends(SENT)
    assert not server.refuses_one(behind=0), "once it looked like a limit, a 429 closes the door at once"
    for _ in range(3):
        server.chance.closed(100)
    assert server.refuses_one(behind=0)


def test_what_passes_after_the_door_was_closed_says_nothing():
    server = Server()
    for _ in range(3 * COST):
        (refused,) = server.sends(1)
        server.chance.refused(refused, 100)
        server.chance.shut()
        for number in server.sends(BEHIND):
            server.chance.passed(number, 100)
    assert not server.chance.at_work


def told(between):
    chance = Chance()
    for accepted in (500, *between):  # the first tells what a server had saved up
        chance.closed(accepted)
    return chance


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_refusals_that_close_the_door_at_random_are_seen_to_come_by_chance(share):
    dice = random.Random(4)
    between = []
    while len(between) < 4 * CLOSINGS:
        accepted = 0
        while dice.random() > share:
            accepted += 1
        between += [accepted] * (accepted > 2)
    assert told(between).at_work


@pytest.mark.parametrize(
    "between",
    [[10, 12, 11, 15, 14, 10, 13, 12] * 3, [200, 3, 150, 900, 4, 300, 250, 700] * 3, [3, 30, 4] * 2],
    ids=["about as much each time", "seldom", "too few times"],
)
def test_a_limit_that_is_reached_is_not_chance(between):
    assert not told(between).at_work


def by_chance():
    """A server whose 429s are known to come by chance, a fortieth of the calls."""
    server = Server()
    while not server.chance.at_work:
        server.refuses_one()
    return server


def test_the_same_share_of_refusals_changes_nothing():
    server = by_chance()
    for _ in range(10 * WATCHED // SENT):
        assert server.refuses_one(), "only its row need wait"
    assert server.chance.at_work


def test_when_the_share_of_refusals_jumps_there_is_a_limit_after_all_within_a_few_calls():
    server = by_chance()
    refused = 0
    while server.chance.at_work:
        server.chance.refused(*server.sends(1), 100)
        refused += 1
    assert refused < COST


def test_after_a_wrong_conclusion_a_429_closes_the_door_at_once():
    server = by_chance()
    while server.chance.at_work:
        server.chance.refused(*server.sends(1), 100)
    assert not server.refuses_one(behind=0)


def test_a_conclusion_that_held_for_long_was_right_and_the_next_one_comes_as_soon():
    server = by_chance()
    for _ in range(PROVEN // SENT + WATCHED):
        server.refuses_one()
    while server.chance.at_work:
        server.chance.refused(*server.sends(1), 100)
    assert server.refuses_one(behind=0), "the next 429 alone closes no door"


def test_requests_refused_one_after_the_other_are_an_outage_and_no_share():
    server = Server()
    for number in server.sends(200):
        server.chance.refused(number, 100)
    for _ in range(20):
        server.chance.closed(100)
    for _ in range(3):
        server.refuses_one()
    assert not server.chance.at_work

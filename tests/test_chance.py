"""Whether 429s come by chance: what was let through between them, told by hand."""

import random

import pytest

from pipeline.chance import CLOSINGS, WATCHED, Chance


def told(between):
    chance = Chance()
    for accepted in (500, *between):  # the first tells what a server had saved up
        chance.closed(accepted)
    return chance


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_refusals_at_random_are_seen_to_come_by_chance(share):
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
    return told([3, 40, 5, 3, 60, 4, 20, 3] * 2)


def test_when_the_share_of_refusals_jumps_there_is_a_limit_after_all_and_the_next_conclusion_takes_longer():
    chance = by_chance()
    assert chance.at_work
    for _ in range(WATCHED):
        chance.refused()
        chance.sent()
    assert not chance.at_work
    for accepted in (3, 40, 5, 3, 60, 4, 20, 3):
        chance.closed(accepted)
    assert not chance.at_work


def test_the_same_share_of_refusals_changes_nothing():
    chance = by_chance()
    for number in range(10 * WATCHED):
        if number % 15 == 0:
            chance.refused()
        chance.sent()
    assert chance.at_work

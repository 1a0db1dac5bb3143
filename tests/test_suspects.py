"""A row that is refused on its own account, told from a limit that holds for everybody."""

from pipeline.suspects import (
    ALONE_REFUSALS,
    ALONE_SECONDS,
    APART_REFUSALS,
    GIVE_UP_REFUSALS,
    GIVE_UP_SECONDS,
    HOPELESS_SECONDS,
    MOST_TRIES,
    PASSED_PER_TRY,
    QUIET_SECONDS,
    Suspects,
)


class Night:
    """Requests one after the other, a second apart."""

    def __init__(self):
        self.suspects, self.now, self.number = Suspects(), 0.0, 0

    def refused(self, key="bad", tokens=100, *, last=False, after=1.0):
        self.now, self.number = self.now + after, self.number + 1
        return self.suspects.refused(key, self.now, self.now, self.number, tokens, last=last)

    def passed(self, count=1, tokens=100, key="good"):
        for _ in range(count):
            self.now, self.number = self.now + 1, self.number + 1
            self.suspects.passed(key, self.now, self.number, tokens)


def test_a_server_that_refuses_everybody_holds_nothing_against_a_row():
    night = Night()
    for n in range(500):
        standing = night.refused(f"k{n % 10}")
    assert (standing.suspect, standing.apart, standing.given_up) == (False, False, None)


def test_a_row_between_whose_refusals_others_pass_is_suspected_and_waits_for_itself():
    night = Night()
    assert not night.refused().suspect
    night.passed(60)
    standing = night.refused()
    assert standing.suspect
    assert standing.apart
    assert night.suspects.count == 1


def test_a_row_that_others_pass_waits_for_itself_before_it_is_suspected():
    night, standings = Night(), []
    for _ in range(APART_REFUSALS):
        standings.append(night.refused())
        night.passed()
        night.refused("other")
    assert not any(standing.suspect for standing in standings)
    assert [standing.apart for standing in standings] == [False] * (APART_REFUSALS - 1) + [True]


def test_a_row_that_waits_for_itself_is_tried_once_for_so_many_others_that_pass():
    night = Night()
    for _ in range(int(MOST_TRIES / 2)):
        assert night.suspects.may_try
        night.suspects.tried()
    assert not night.suspects.may_try
    night.passed(int(PASSED_PER_TRY) - 1)
    assert not night.suspects.may_try
    night.passed(2)
    assert night.suspects.may_try


def test_only_so_many_tries_are_saved_up():
    night = Night()
    night.passed(1000)
    for _ in range(int(MOST_TRIES)):
        assert night.suspects.may_try
        night.suspects.tried()
    assert not night.suspects.may_try


def test_others_that_were_on_the_wire_before_hold_nothing_against_it():
    night = Night()
    night.number = 100
    night.refused()
    for number in range(60):
        night.suspects.passed("good", night.now, number, 100)
    assert not night.refused().suspect


def test_where_others_are_refused_as_often_no_row_is_suspected():
    night = Night()
    for n in range(8):
        standing = night.refused()
        night.passed()
        night.refused(f"other{n}")
        night.refused(f"another{n}")
    assert not standing.suspect


def test_a_suspect_is_given_up_after_so_many_refusals_and_so_long():
    night, told = Night(), []
    for _ in range(GIVE_UP_REFUSALS + 3):
        told.append(night.refused().given_up)
        night.passed(50)
    held_over = 51 * (len([each for each in told if each is None]) - 1)
    assert held_over < GIVE_UP_SECONDS <= held_over + 51
    assert told[-1] == "a rate limit refused it 9 times in 7 minutes, while 400 others passed"


def test_small_ones_that_pass_do_not_give_a_large_one_up():
    night = Night()
    for _ in range(50):
        standing = night.refused(tokens=4000)
        night.passed(50, tokens=300)
    assert standing.suspect
    assert standing.given_up is None


def test_large_ones_that_are_refused_as_often_do_not_give_each_other_up():
    """One in ten of them passes: that says nothing about the other nine."""
    night = Night()
    for n in range(50):
        standing = night.refused(tokens=4000)
        for other in range(9):
            night.refused(f"large{other}", tokens=4000)
        night.passed(tokens=4000, key=f"large{n % 9}")
        night.passed(500, tokens=300)
    assert standing.given_up is None


def test_a_row_that_passes_is_doubted_no_longer():
    night = Night()
    night.refused()
    night.passed(60)
    night.refused()
    night.passed(key="bad")
    assert not night.suspects.doubted
    assert night.suspects.count == 0
    assert not night.refused().suspect


def test_a_suspect_that_has_the_server_to_itself_is_given_up():
    night = Night()
    night.refused(tokens=4000)
    night.passed(60)
    night.now += QUIET_SECONDS
    tries = [night.refused(tokens=4000, last=True, after=60).given_up for _ in range(20)]
    assert tries.index(next(filter(None, tries))) == max(ALONE_REFUSALS - 1, ALONE_SECONDS / 60)


def test_last_rows_that_nothing_is_held_against_pause_the_run():
    night = Night()
    night.refused()
    standings = [night.refused(last=True, after=60) for _ in range(200)]
    assert [each for each in standings if each.given_up] == []
    minutes = next(n for n, each in enumerate(standings) if each.hopeless)
    assert abs(minutes - HOPELESS_SECONDS / 60) <= 1


def test_rows_of_the_size_of_a_suspect_or_larger_are_like_it():
    night = Night()
    assert not night.suspects.like(4000)
    night.refused(tokens=4000)
    night.passed(60)
    night.refused(tokens=4000)
    assert night.suspects.like(4000)
    assert not night.suspects.like(3999)

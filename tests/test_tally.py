"""What a run counts while it goes on, apart from its stations."""

from pipeline.runners.tally import Tally


def test_rows_with_one_key_end_together_whether_they_come_before_or_after_its_outcome():
    tally = Tally()
    tally.row("a", None)
    tally.row("a", None)
    tally.ended("a", "ok")
    tally.row("a", None)
    tally.row("b", "failed")
    tally.row("c", None)
    tally.ended("c", "refused")
    tally.row("c", None)
    tally.row("d", None)
    assert (tally.done, tally.bad, dict(tally.statuses)) == (6, 3, {"ok": 3, "failed": 1, "refused": 2})

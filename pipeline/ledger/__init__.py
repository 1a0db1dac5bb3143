"""The DuckDB file: the only package that imports duckdb. Loads journals, answers questions, keeps the schema."""

from pipeline.ledger._history import Exchange, Used
from pipeline.ledger._journals import JournalState
from pipeline.ledger._known import ANY_LIMIT, HELD_BACK, Known, OpenAnswer, Retry, RowsDone, known_keys
from pipeline.ledger.loading import LooseEnds
from pipeline.ledger.queries import Calibration, Elsewhere, PlanFacts, frame_of, prepare, rows_of
from pipeline.ledger.store import Burst, History, HistoryRequest, Ledger, RunRequest, RunStart

__all__ = [
    "ANY_LIMIT",
    "HELD_BACK",
    "Burst",
    "Calibration",
    "Elsewhere",
    "Exchange",
    "History",
    "HistoryRequest",
    "JournalState",
    "Known",
    "Ledger",
    "LooseEnds",
    "OpenAnswer",
    "PlanFacts",
    "Retry",
    "RowsDone",
    "RunRequest",
    "RunStart",
    "Used",
    "frame_of",
    "known_keys",
    "prepare",
    "rows_of",
]

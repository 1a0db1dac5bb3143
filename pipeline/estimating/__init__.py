"""What a job will cost, before it costs anything: exact where counting can be exact, an honest interval elsewhere."""

from pipeline.estimating._answer import Estimate, Scan, Tick
from pipeline.estimating._finish import Finish
from pipeline.estimating._forecast import Forecast, forecast, quick_bill
from pipeline.estimating._outlook import Bill, Outlook
from pipeline.estimating._sample import Sample
from pipeline.estimating._to_send import ToSend
from pipeline.estimating._too_long import TooLong

__all__ = [
    "Bill", "Estimate", "Finish", "Forecast", "Outlook", "Sample", "Scan", "Tick", "ToSend", "TooLong", "forecast",
    "quick_bill",
]  # fmt: skip

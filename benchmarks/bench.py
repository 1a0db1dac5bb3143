"""Measure promptmill: `python benchmarks/bench.py quick`."""

import cpu

cpu.quick().save()

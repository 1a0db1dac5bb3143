"""`python -m pipeline` is `promptmill`."""

from pipeline.cli import main

main()

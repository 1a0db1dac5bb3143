"""`promptmill stop JOB`."""

from pathlib import Path

import click

from pipeline.cli._options import ledger_option, open_ledger


@click.command("stop", short_help="Ask a running job to stop, as Ctrl-C does.")
@click.argument("job")
@ledger_option
def command(job: str, ledger_path: Path) -> int:
    """Let nothing more of JOB out and wait for what is in flight; the run then ends with exit code 4."""
    from pipeline import api

    pid = api.stop(open_ledger(ledger_path), job)
    click.echo(f"asked process {pid} to stop; `promptmill run` goes on later")
    return 0

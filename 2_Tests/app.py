"""A page on this machine that generates with the shipped weights and shows the results: CT, PET, organs, downloads.

    python 2_Tests/app.py --outdir out/app

Open the address that is printed. Only this machine can, whoever works on it; nothing is loaded from elsewhere. Results
stay in --outdir, and the same command shows them again; a report of 3_compare_cohorts.py is linked beside them where it
is in <outdir>/studies/<family>/report. Uploads are removed when their job has ended.
"""

from pathlib import Path

import click

from totalgen.app.server import serve
from totalgen.commands import PATH, PLACE, command

HERE = Path(__file__).resolve().parents[1]


@command(__doc__)
@click.option("--outdir", type=PLACE, required=True, help="Folder for jobs and their results.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, help="Of the page; 0: one that is free.")
@click.option("--weights", type=PATH, default=HERE / "Resource", help="Folder of weights with the shipped names.")
def main(outdir, port, weights):
    serve(outdir, weights, port, lambda address: click.echo(f"Open {address} – Ctrl-C ends it."))


if __name__ == "__main__":
    main()

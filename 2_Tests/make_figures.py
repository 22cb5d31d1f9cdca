r"""The layouts of the paper's Figures 2 and 3 of generated cohorts, and a diagram of the pipeline.

    python 2_Tests/make_figures.py --figure2 out/bmi --outdir out/figures
    python 2_Tests/make_figures.py --outdir out/figures --figure3 AutoPET=cohorts/autopet --figure3 Flow=out/flow \
        --figure3 Diffusion=out/edm
    python 2_Tests/make_figures.py --pipeline out/bmi --outdir Resource

Figure 2 shows CT, PET and surfaces by sex and body mass index; a grid for it is made by generate_petct.py
--demographics "sex=M age=60 height_cm=175 weight_kg=60,77,95", and the same for women of 165 cm. Figure 3 shows the
same slices of several cohorts, of a subject that all of them have.
"""

from pathlib import Path

import click

from totalgen.commands import PATH, PLACE, command, named
from totalgen.errors import InputError
from totalgen.generation.cohort_figures import body_mass_figure, pipeline_figure, slices_figure


@command(__doc__)
@click.option("--figure2", type=PATH, help="Generated cohort: by sex and body mass index.")
@click.option("--figure3", multiple=True, metavar="[NAME=]FOLDER", help="Cohorts, the real one first; repeatable.")
@click.option("--pipeline", type=PATH, help="Generated cohort of whose study the diagram's pictures are.")
@click.option("--subject", help="Of figure 3 and the diagram; default: the first.")
@click.option("--masks", default="organs", help="Name of the mask files, without .nii.gz.")
@click.option("--outdir", type=PLACE, required=True, help="Folder of the figures.")
def main(figure2, figure3, pipeline, subject, masks, outdir):
    if not (figure2 or figure3 or pipeline):
        raise InputError("nothing to draw. Give --figure2, --figure3 or --pipeline.")
    cohorts = {name: Path(folder) for name, folder in named("--figure3", figure3).items()}
    if figure2:
        shown = body_mass_figure(figure2, outdir / "figure2.png", masks)
        click.echo(f"Figure 2: {outdir / 'figure2.png'} ({', '.join(shown)})")
    if figure3:
        shown = slices_figure(cohorts, outdir / "figure3.png", subject, masks)
        click.echo(f"Figure 3: {outdir / 'figure3.png'} ({shown})")
    if pipeline:
        shown = pipeline_figure(pipeline, outdir / "pipeline.png", subject)
        click.echo(f"Diagram:  {outdir / 'pipeline.png'} ({shown})")


if __name__ == "__main__":
    main()

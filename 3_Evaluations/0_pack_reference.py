r"""Pack and unpack a reference cohort exactly as generation does: the reference that a generated cohort is like.

    python 3_Evaluations/0_pack_reference.py --root cohorts/demo --split test --preset demo --outdir out/packed

Every study is clipped to the windows of the weights, encoded, stretched to their grid, and brought back by their line
in height, as if the network had generated exactly this study. Segment and measure <outdir> like a generated cohort,
and give it to 3_compare_cohorts.py as --packed. --ct-noise adds noise to the CT, to see what the noise of generated
CT does to the segmenter.
"""

from pathlib import Path

import click

from totalgen.commands import PATH, PLACE, command, ended, spread_options
from totalgen.errors import InputError
from totalgen.generation.cascade import SHIPPED, Cascade, load_stage
from totalgen.generation.packed_reference import pack_cohort
from totalgen.settings import SamplingSettings, TilingSettings


@command(__doc__)
@click.option("--root", type=PATH, required=True, help="Cohort root.")
@click.option("--preset", type=click.Choice(list(SHIPPED)), help="Shipped weights whose grid and line are used.")
@click.option("--global-weights", type=PATH, help="Or weights of a global stage of your own.")
@click.option("--sr-weights", type=PATH, help="And of its sr stage.")
@click.option("--split", help="Only subjects of this split, e.g. test.")
@click.option("--ct-noise", type=click.FloatRange(min=0), default=0.0, help="Standard deviation in HU of noise to add.")
@click.option("--outdir", type=PLACE, required=True, help="Folder for the studies and manifest.csv.")
@spread_options
def main(root, preset, global_weights, sr_weights, split, ct_noise, outdir, workers, scheduler):
    if (preset is None) == (global_weights is None) or (global_weights is None) != (sr_weights is None):
        raise InputError("give --preset, or --global-weights and --sr-weights.")
    if preset is not None:
        cascade = Cascade.shipped(preset)
    else:
        stages = [load_stage(Path(path), stage) for path, stage in ((global_weights, "global"), (sr_weights, "sr"))]
        cascade = Cascade(*stages, SamplingSettings(), SamplingSettings(), TilingSettings())
    click.echo(pack_cohort(root, outdir, cascade, split, ct_noise, workers, scheduler))
    ended(outdir, "3_Evaluations/1_segment_generated.py", "--root", outdir, "--weights", "SEGMENTER")


if __name__ == "__main__":
    main()

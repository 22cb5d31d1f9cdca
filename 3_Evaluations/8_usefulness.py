r"""Is a generated cohort useful: a segmenter trained on it against one trained on as many reference studies.

    python 3_Evaluations/8_usefulness.py --reference cohorts/demo --generated out/demo --masks segmented \
        --true-masks organs --outdir out/usefulness

Three arms of as many studies, trained alike: generated, and training subjects of the reference, both labelled by the
same segmenter (--masks, 1_segment_generated.py), and those subjects with their true masks. All are tested on the
held-out subjects of the reference against their true masks. An arm is a training: hours with preset demo on one core;
the same command continues it. Writes cases.csv (Dice, Hausdorff distance, surface Dice of every subject); <outdir> is
a --section of the report.
"""

import click
import pandas as pd

from totalgen.commands import PATH, PLACE, command, device_option, held_out_option, section_ended
from totalgen.data.files import atomic
from totalgen.data.names import check_masks
from totalgen.evaluation.sections import write_section
from totalgen.evaluation.usefulness import (
    check_files,
    check_held_out,
    make_arm,
    read_parts,
    test_arm,
    usefulness_section,
)
from totalgen.generation.segmenter import Segmenter
from totalgen.schema import listed, resolve
from totalgen.settings import SegmenterSettings
from totalgen.training.organ_training import PRESETS, train_segmenter


@command(__doc__, epilog=listed(SegmenterSettings))
@click.option("--reference", type=PATH, required=True, help="Cohort root with splits train and --held-out.")
@click.option("--generated", type=PATH, required=True, help="Folder of generated studies.")
@click.option("--masks", default="segmented", help="Masks of both by the same segmenter.")
@click.option("--true-masks", default="organs", help="True masks of the reference.")
@held_out_option("Split of the reference that all arms are tested on.")
@click.option("--preset", default="demo", help=f"One of {', '.join(PRESETS)}.")
@device_option
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change a setting; repeatable.")
@click.option("--outdir", type=PLACE, required=True, help="Folder of arms and results.")
def main(reference, generated, masks, true_masks, held_out, preset, device, changes, outdir):
    made, train, held = read_parts(generated, reference, held_out)
    n = min(len(made), len(train))
    arms = {
        "generated": (made[:n], check_masks(masks)), "reference": (train[:n], masks),
        "reference, true masks": (train[:n], check_masks(true_masks)),
    }  # fmt: skip
    settings = resolve(SegmenterSettings, PRESETS, preset, changes, dict(device=device))
    check_files([*((studies, labels) for studies, labels in arms.values()), (held, true_masks)])
    check_held_out(held, true_masks)
    rows = []
    for number, (name, (studies, labels)) in enumerate(arms.items()):
        folder = outdir / f"arm{number}"
        make_arm(folder, studies, labels)
        weights = train_segmenter(folder, folder / "run", preset, settings)
        segmenter = Segmenter.load(weights, settings.compute.device)
        rows += test_arm(name, lambda ct, used=segmenter: used.run(ct)["organs"], held, true_masks)
    cases = pd.DataFrame(rows)
    with atomic(outdir / "cases.csv") as part:
        cases.to_csv(part, index=False)
    section = usefulness_section(cases, list(arms))
    write_section(outdir, section)
    click.echo("\n".join(f"{score.what}, {n} studies, {score.n}: {score.result}" for score in section.scores))
    section_ended(outdir)


if __name__ == "__main__":
    main()

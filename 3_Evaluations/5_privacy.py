r"""Does a network give away whom it was trained on: membership inference by its loss, and nearest neighbours.

    python 3_Evaluations/5_privacy.py --weights runs/demo-global-edm/ema-0.100.safetensors \
        --archive cohorts/demo/training.zarr --generated out/strangers --outdir out/privacy

Membership: the loss at fixed noise levels of training subjects against as many of another split. Any diffusion weights
of this project and their archive do: the cascade's stages, the PET denoiser, the translator. Neighbours: studies
generated for people of neither split (of the cascade), against as many training as held-out subjects. Both are compared
with chance alone: who was trained on is exchanged at random. Writes losses.csv, neighbours.csv, closest.png; <outdir>
is a --section of the report.
"""

import click
import pandas as pd

from totalgen.commands import PATH, PLACE, command, device_option, held_out_option, section_ended
from totalgen.data.archive import Archive
from totalgen.data.files import atomic
from totalgen.data.names import person_of
from totalgen.data.progress import progress
from totalgen.data.recipes import PetCt
from totalgen.data.studies import read_studies
from totalgen.distributed import usable_device
from totalgen.errors import InputError
from totalgen.evaluation import privacy
from totalgen.evaluation.sections import write_section
from totalgen.generation.trained import Trained
from totalgen.tasks.item_losses import item_losses
from totalgen.tasks.systems import system_of
from totalgen.weights import load_weights


def attacks(trained, archive, groups, levels, repeats, outdir):
    """Title → Attack of every noise level and of their mean; losses.csv."""
    trained.task.check(archive)
    privacy.check_members(trained.data, archive, archive.indices("train", trained.task.partial))
    rows = []
    for member, row in progress([(m, row) for m in (1, 0) for row in groups[1 - m]], "losses", "subject"):
        loss = item_losses(trained.denoiser, trained.task, archive, row, levels, repeats).mean(0)
        values = {f"sigma {level:g}": value for level, value in zip(levels, loss, strict=True)}
        rows.append(dict(subject=archive.subjects[row]["subject"], member=member, **values))
    table = pd.DataFrame(rows)
    titles = list(table.columns[2:])
    scaled = table[titles] / table[titles].mean()  # every level has a say in the mean
    table["mean over levels"] = scaled.mean(axis=1)
    losses = {title: table[title].to_numpy() for title in table.columns[2:]}
    found = privacy.membership(losses, (table["member"] == 1).to_numpy())
    with atomic(outdir / "losses.csv") as part:
        table.to_csv(part, index=False)
    return found


def neighbours(generated, archive, groups, outdir):
    """(Neighbours, candidates who were left out, figures); neighbours.csv and closest.png."""
    recipe = archive.recipe
    if not isinstance(recipe, PetCt):
        raise InputError(f"{archive.path}: holds no PET/CT of the cascade. Leave out --generated.")
    studies, known = read_studies(generated), [archive.subjects[row] for group in groups for row in group]
    strangers = studies[[not privacy.is_same_person(row, known) for row in studies.to_dict("records")]]
    folders = strangers.set_index("subject")["folder"].to_dict()
    rows = [{archive.subjects[row]["subject"]: row for row in group} for group in groups]

    def volume(kind, subject):
        if kind == "candidate":
            return recipe.encode(folders[subject])[0]["high"].astype("float32")
        return archive.tensor(rows[kind == "held_out"][subject], "high").numpy()

    names = dict(candidate=list(folders), train=list(rows[0]), held_out=list(rows[1]))
    prints = [{n: privacy.fingerprint(volume(kind, n)) for n in progress(each, kind)} for kind, each in names.items()]
    found = privacy.nearest(*prints, person=person_of)
    with atomic(outdir / "neighbours.csv") as part:
        found.table.to_csv(part, index=False)
    privacy.picture_pairs(outdir / "closest.png", found.table, volume, recipe.encodings)
    left_out = sorted(set(studies["subject"]) - set(folders))
    return found, left_out, {"Closest to a training subject": outdir / "closest.png"}


@command(__doc__)
@click.option("--weights", type=PATH, required=True, help="Weights of a training.")
@click.option("--archive", "path", type=PATH, required=True, help="Archive that they were trained on.")
@held_out_option("Split of subjects that were not trained on.")
@click.option("--generated", type=PATH, help="Studies generated for people of neither split.")
@click.option("--level", "levels", type=click.FloatRange(0.001, 1000), multiple=True, default=(0.1, 0.3, 1.0, 3.0),
              help="Noise level σ; repeatable.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=1), default=4, help="Items and noises of each subject.")
@click.option("--most", type=click.IntRange(min=4), help="Subjects of each split; default: as many as both have.")
@device_option
@click.option("--outdir", type=PLACE, required=True, help="Folder of the results.")
def main(weights, path, held_out, generated, levels, repeats, most, device, outdir):
    kind = load_weights(weights)[1].get("kind")
    system_of(dict(kind=kind), weights)
    trained, archive = Trained.load(weights, kind, usable_device(device)), Archive(path)
    both = [archive.indices(split, trained.task.partial) for split in ("train", held_out)]
    if min(map(len, both)) < privacy.FEWEST:
        counts = f"{len(both[0])} subjects of split train and {len(both[1])} of {held_out}"
        raise InputError(f"{path}: {counts}; {privacy.FEWEST} of each are needed. Give another archive or --held-out.")
    groups = privacy.equal_numbers(*both, most)
    found, left_out, figures = None, [], {}
    tested = attacks(trained, archive, groups, levels, repeats, outdir)
    if generated is not None:
        found, left_out, figures = neighbours(generated, archive, groups, outdir)
    section = privacy.privacy_section(tested, found, left_out, weights.stem, figures)
    write_section(outdir, section)
    click.echo(privacy.summary_text(section))
    section_ended(outdir)


if __name__ == "__main__":
    main()

"""Pictures of the comparison."""

from pathlib import Path

import pandas as pd
import seaborn
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from totalgen.data.files import atomic
from totalgen.data.organs import MEASURED

SEX = {"M": ("male", "#4477aa"), "F": ("female", "#cc4455")}  # blue and red, as published
VIOLIN_FROM = 5  # subjects: with fewer, a violin shows its smoothing, not the data
SHOWN = ("volume_l", "suv_mean", "suv_max")
TITLES = {"volume_l": "Volume (L)", "suv_mean": "SUVmean (g/mL)", "suv_max": "SUVmax (g/mL)"}


def violins(path: str | Path, values: pd.DataFrame, note: str = "") -> None:
    """Violins of every organ (rows) and measure (columns), cohorts side by side, male left of female; a PNG.

    values: columns cohort, sex, organ and those of SHOWN, one row per subject and organ; cohorts are in the order of
    their first row. Points are subjects; a group of fewer than VIOLIN_FROM has points and no violin.
    note: one line under the picture.
    """
    cohorts = list(dict.fromkeys(values["cohort"]))
    width = 3.2 + 1.1 * len(cohorts)
    figure = Figure(figsize=(width * len(SHOWN) * 0.8, 2.5 * len(MEASURED)))  # no pyplot: no window, no global state
    axes = figure.subplots(len(MEASURED), len(SHOWN), squeeze=False)
    palette = {sex: colour for sex, (_, colour) in SEX.items()}
    group = dict(x="cohort", order=cohorts, hue="sex", hue_order=list(SEX), palette=palette, legend=False)
    for organ, row in zip(MEASURED, axes, strict=True):
        chosen = values[values["organ"] == organ]
        for measure, axis in zip(SHOWN, row, strict=True):
            counts = chosen.groupby(["cohort", "sex"])[measure].transform("count")
            seaborn.violinplot(
                chosen[counts >= VIOLIN_FROM], y=measure, **group, ax=axis, cut=0, inner="quart", density_norm="width",
                linewidth=0.8, alpha=0.55,
            )
            seaborn.stripplot(chosen, y=measure, **group, ax=axis, dodge=True, size=2.5, alpha=0.7)
            axis.set(xlabel="", ylabel="", title=f"{organ.capitalize()}: {TITLES[measure]}")
            axis.set_ylim(bottom=0)  # volumes and uptake are compared as ratios: the axis must begin at zero
            axis.title.set_fontsize(10)
            axis.spines[["top", "right"]].set_visible(False)
    patches = [Patch(color=colour, label=name) for name, colour in SEX.values()]
    figure.legend(handles=patches, loc="upper right", ncols=2, frameon=False)
    figure.text(0.01, 0.003, note, fontsize=9)
    figure.tight_layout(rect=(0, 0.02, 1, 0.98))
    with atomic(path) as part:
        figure.savefig(part, dpi=110)

"""What a comparison compares, and by which limits: one value that tables, figures and report share."""

from collections.abc import Iterator
from dataclasses import dataclass

from totalgen.data.measures import MEASURES
from totalgen.data.organs import MEASURED

SEX = {"M": ("male", "#4477aa"), "F": ("female", "#cc4455")}  # blue and red, as published
TITLES = {"volume_l": "Volume (L)", "suv_mean": "SUVmean", "suv_max": "SUVmax", "suv_peak": "SUVpeak"}
DEMOGRAPHICS = {  # row of the published table: (column, factor to its unit)
    "Age (years)": ("age_years", 1),
    "Height (cm)": ("height_m", 100),
    "Weight (kg)": ("weight_kg", 1),
}


@dataclass(frozen=True)
class Design:
    """groups: sexes, in the order of the columns;  organs, measures: rows (measures are columns of the measured table);
    printed: the measures of Table 1 and of the figures, the others are in statistics.csv only.

    paired: compare a candidate with the reference subject that it was made for, too.
    alpha: level of every test;  margin: equivalence, as a share of the reference mean;  power: of the smallest margin
    that a row could show;  resamples: of a bootstrap.
    """

    groups: tuple[str, ...] = tuple(SEX)
    organs: tuple[str, ...] = tuple(MEASURED)
    measures: tuple[str, ...] = tuple(MEASURES)
    printed: tuple[str, ...] = ("volume_l", "suv_mean", "suv_max")
    paired: bool = True
    alpha: float = 0.05
    margin: float = 0.05
    power: float = 0.80
    resamples: int = 2000

    def rows(self, printed: bool = False) -> Iterator[tuple[str, str, str]]:
        """(sex, organ, column) of every row; only those of Table 1 when ``printed``."""
        columns = self.printed if printed else self.measures
        return ((sex, organ, column) for sex in self.groups for organ in self.organs for column in columns)


PUBLISHED_DESIGN = Design()

"""The report of a comparison: Table 1, its statistics and figures, and what they cannot say, on one page."""

import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from totalgen.data.files import atomic
from totalgen.evaluation import figures
from totalgen.evaluation.comparison import VERDICTS, statistics_table
from totalgen.evaluation.design import PUBLISHED_DESIGN, Design
from totalgen.evaluation.measured_cohort import Cohort, PrintedColumn, check_names
from totalgen.evaluation.report_page import write_page
from totalgen.evaluation.report_sections import (
    body_section,
    like_with_like,
    pair_section,
    picture_section,
    relation_section,
    table_section,
    verdict_counts,
    verdict_section,
)
from totalgen.evaluation.sections import Section
from totalgen.evaluation.table1 import PHANTOM_NOTE, excluded, table1, write_table1

CAVEAT = (
    "{names}: {note}. Whatever stands below was measured on computer-generated phantoms, or on networks that saw "
    "nothing else."
)
LIBRARIES = ("totalgen", "numpy", "scipy", "pandas", "statsmodels", "matplotlib")


def compare_cohorts(
    reference: Cohort, others: Sequence[Cohort], outdir: str | Path, design: Design = PUBLISHED_DESIGN,
    printed: Sequence[PrintedColumn] = (), further: Sequence[Section] = (), settings: Mapping[str, Any] | None = None,
) -> str:  # fmt: skip
    """Write table1.{csv,txt,md,tex}, statistics.csv, slopes.csv, the figures, report.html and report.json.

    others: cohorts by their ``role`` (ROLES): candidates, controls, the packed reference, the reference in true masks;
    printed: columns of a published table;  further: sections that other scripts made;  settings: to be named.
    Returns Table 1 for a terminal, and the verdicts. Raises InputError when two cohorts share a name or no candidate is
    given.
    """
    check_names([reference, *others, *printed])
    outdir = Path(outdir)
    cohorts = [reference, *others]
    cells = table1([*cohorts, *printed], design)
    text = write_table1([*cohorts, *printed], cells, outdir, design)
    table = all_statistics(reference, others, printed, design)
    slopes = figures.slopes(cohorts, design)
    for file, values in (("statistics.csv", table), ("slopes.csv", slopes)):
        with atomic(outdir / file) as part:
            values.to_csv(part, index=False, float_format="%.6g")
    sections = [
        like_with_like(reference, others, table),
        table_section([*cohorts, *printed], cells, outdir, design),
        verdict_section(table, reference, [*others, *printed[1:]], outdir, design),
        pair_section(reference, others, table, outdir, design),
        relation_section(cohorts, slopes, outdir, design),
        body_section(reference, others, design),
        picture_section(reference, others, outdir),
        *further,
        settings_section(cohorts, design, settings or {}),
    ]
    write_report(outdir, cohorts, sections, table, design, settings or {})
    return f"{text}\n{verdict_lines(table)}\nReport: {outdir / 'report.html'}\n"


def all_statistics(
    reference: Cohort, others: Sequence[Cohort], printed: Sequence[PrintedColumn], design: Design
) -> pd.DataFrame:
    """statistics.csv: everything against the reference, candidates against the packed reference too, and the printed
    columns against the first of them."""
    tables = [statistics_table(reference, others, design)]
    candidates = [cohort for cohort in others if cohort.role == "candidate"]
    tables += [statistics_table(packed, candidates, design) for packed in others if packed.role == "packed"]
    if printed:
        found = statistics_table(printed[0], printed[1:], design)
        tables.append(found[found["n_reference"] > 0])
    filled = [table.dropna(axis=1, how="all") for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True).reindex(columns=tables[0].columns)


def verdict_lines(table: pd.DataFrame) -> str:
    """The verdicts of each cohort, a line each."""
    lines = []
    for _, row in verdict_counts(table).iterrows():
        words = ", ".join(f"{row[name]} {name}" for name in VERDICTS if row[name])
        words = f"by pairs {words}" if row["verdict_by"] == "pairs" else words + row["pairs"]
        role = "" if row["role"] in row["candidate"] else f" ({row['role']})"
        lines.append(f"{row['candidate']} against {row['reference']}{role}, {row['rows']} rows: {words}")
    return "\n".join(lines) + "\n"


def settings_section(cohorts: Sequence[Cohort], design: Design, settings: Mapping[str, Any]) -> Section:
    """What made the report."""
    rows = [["setting", "value"], *([name, str(value)] for name, value in {**settings, **asdict(design)}.items())]
    rows += [[f"version of {name}", importlib.metadata.version(name)] for name in LIBRARIES]
    rows.append(["python", platform.python_version()])
    section = Section("Settings and versions", tables={"": rows})
    sources = [["cohort", "role", "folder", "sources", "weights"]]
    for cohort in cohorts:
        people = cohort.people()
        columns = [name for name in ("source", "preset", "global_weights", "sr_weights", "seed") if name in people]
        words = {name: sorted({str(value) for value in people[name].dropna()}) for name in columns}
        made = [f"{name} {', '.join(values[:2])}" for name, values in words.items() if name not in ("source", "seed")]
        folder = cohort.folder.name if cohort.folder else ""
        sources.append([cohort.name, cohort.role, folder, ", ".join(words.get("source", [])), "; ".join(made)])
    section.tables["Cohorts"] = sources
    return section


def write_report(
    outdir: Path, cohorts: Sequence[Cohort], sections: Sequence[Section], table: pd.DataFrame, design: Design,
    settings: Mapping[str, Any],
) -> None:  # fmt: skip
    """report.html and report.json."""
    phantoms = [cohort.name for cohort in cohorts if cohort.phantom]
    caveat = CAVEAT.format(names=", ".join(phantoms), note=PHANTOM_NOTE) if phantoms else ""
    names = " and ".join(cohort.name for cohort in cohorts[1:] if cohort.role == "candidate")
    write_page(outdir / "report.html", f"{names or cohorts[1].name} against {cohorts[0].name}", caveat, sections)
    values = dict(
        caveat=caveat,
        cohorts=[
            dict(
                name=cohort.name, role=cohort.role, subjects=len(cohort.people()), studies=cohort.studies(),
                excluded=excluded(cohort, design),
            )
            for cohort in cohorts
        ],  # fmt: skip
        scores=[dict(section=section.title, **score._asdict()) for section in sections for score in section.scores],
        statistics=[{name: _json(value) for name, value in row.items()} for row in table.to_dict("records")],
        design=asdict(design),
        settings={name: str(value) for name, value in settings.items()},
        versions={name: importlib.metadata.version(name) for name in LIBRARIES},
    )
    with atomic(outdir / "report.json") as part:
        part.write_text(json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _json(value):
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.item() if isinstance(value, np.generic) else value

"""index.html of a generated cohort: every study with its preview, in a page that opens without a network."""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from totalgen.data.files import atomic

COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {  # of the manifest → title, how a value is written
    "sex": ("sex", str),
    "age_years": ("age", "{:g} y".format),
    "height_m": ("height", lambda metres: f"{100 * metres:.4g} cm"),
    "weight_kg": ("weight", "{:g} kg".format),
    "seed": ("seed", str),
    "preset": ("preset", str),
    "attempts": ("attempts", "{:g}".format),
    "quality": ("quality", str),
}
FILES = ("CT.nii.gz", "SUV.nii.gz", "MR.nii.gz", "SUV_std.nii.gz", "MR_std.nii.gz", "organs.nii.gz", "organs.csv",
         "dicom", "mip.gif", "surface.png", "study.json")  # fmt: skip
TITLE = "<title>Generated studies</title>"  # by which the page is known
STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff; }
h1 { font-size: 1.3rem; margin: 0; } p { max-width: 60rem; }
article { border-top: 1px solid #ccc; padding: .8rem 0; }
h2 { font-size: 1rem; margin: 0 .8rem 0 0; display: inline; overflow-wrap: anywhere; }
img { display: block; width: 100%; max-width: 1435px; height: auto; margin-top: .4rem; }
a { color: #0b57a4; margin-right: .7rem; } .who { color: #444; }
"""


def write_index(outdir: str | Path, table: pd.DataFrame) -> None:
    """Write <outdir>/index.html of the studies of a manifest; links lead to the files that are there."""
    outdir = Path(outdir)
    sources = " and ".join(sorted(set(table["source"].astype(str)))) if "source" in table else ""
    invented = "input" not in table or table["input"].isna().all()
    who = "These images are of nobody." if invented else (
        "They show the people whose images they were made of, and are as private."
    )  # fmt: skip
    head = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{TITLE}'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>\n'
        f"<h1>Generated studies: {len(table)}</h1>\n<p>Source: {escape(sources)}. {who} "
        'All columns: <a href="manifest.csv">manifest.csv</a></p>\n'
    )
    with atomic(outdir / "index.html") as part:
        part.write_text(head + "".join(_article(outdir, row) for _, row in table.iterrows()) + "</body></html>\n",
                        encoding="utf-8")  # fmt: skip


def _article(outdir, row):
    name = str(row["subject"])
    known = [(title, write(row[key])) for key, (title, write) in COLUMNS.items() if key in row and pd.notna(row[key])]
    who = ", ".join(f"{title} {value}" for title, value in known)
    there = [file for file in FILES if (outdir / name / file).exists()]
    place = f"./{quote(name)}"  # not escaped alone: a name may look like a scheme, a query or an anchor
    links = " ".join(f'<a href="{place}/{file}">{file}</a>' for file in there)
    picture = ""
    if (outdir / name / "preview.png").exists():
        words = escape(f"Slices and projection of {name}", quote=True)
        picture = f'<img loading="lazy" src="{place}/preview.png" alt="{words}">'
    return f'<article><h2>{escape(name)}</h2><span class="who">{escape(who)}</span><br>{links}{picture}</article>\n'

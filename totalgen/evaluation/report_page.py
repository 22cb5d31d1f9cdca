"""report.html: one page with everything in it, which opens offline and prints, narrow and wide."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from totalgen.data.files import atomic
from totalgen.evaluation.sections import Section, data_uri

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; color: #222; }
h1 { font-size: 1.45rem; margin: .2rem 0; } h2 { font-size: 1.15rem; border-top: 1px solid #ccc; padding-top: 1rem; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; } p { max-width: 50rem; margin: .4rem 0; }
.wide { overflow-x: auto; } .wide td, .wide th { white-space: nowrap; }
table { border-collapse: collapse; font-size: 13px; }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid #e4e4e4; vertical-align: top; }
th { border-bottom: 1px solid #888; } td { font-variant-numeric: tabular-nums; }
tr.organ td { font-weight: 600; padding-top: .6rem; }
.caveat { background: #fff3d6; border-left: 4px solid #d59b00; padding: .5rem .8rem; }
img { max-width: 100%; height: auto; } figure { margin: .6rem 0; } figcaption { color: #555; font-size: 13px; }
summary { cursor: pointer; font-weight: 600; margin: .5rem 0; }
@media print { details::details-content { display: block; content-visibility: visible; } }
nav a { margin-right: .9rem; } code { font-size: 12px; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  .score thead { display: none; } .score tr { display: block; padding: .4rem 0; border-bottom: 1px solid #ccc; }
  .score td { display: block; border: 0; padding: .1rem 0; }
  .score td::before { content: attr(data-title) ": "; color: #666; }
}
"""
LONG = 12  # rows of a table that is shown at once
SCORE_TITLES = ("what was tested", "on how many", "result", "limit")


def write_page(path: str | Path, title: str, caveat: str, sections: Sequence[Section]) -> None:
    """Write the page: title, caveat, the score card of all sections, then each section."""
    links = "".join(f'<a href="#s{n}">{escape(section.title)}</a> ' for n, section in enumerate(sections))
    body = "".join(_section(n, section) for n, section in enumerate(sections))
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>\n'
        f"<h1>{escape(title)}</h1>\n" + (f'<p class="caveat"><strong>{escape(caveat)}</strong></p>\n' if caveat else "")
        + f"<h2>Score card</h2>\n{_score_card(sections)}<nav>{links}</nav>\n{body}</body></html>\n"
    )  # fmt: skip
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def _score_card(sections):
    head = "".join(f"<th>{title}</th>" for title in SCORE_TITLES)
    rows = []
    for section in sections:
        for score in section.scores:
            cells = zip(SCORE_TITLES, score, strict=True)
            rows.append("<tr>" + "".join(f'<td data-title="{t}">{escape(v)}</td>' for t, v in cells) + "</tr>\n")
    return f'<table class="score"><thead><tr>{head}</tr></thead><tbody>\n{"".join(rows)}</tbody></table>\n'


def _section(number, section):
    parts = [f'<section id="s{number}"><h2>{escape(section.title)}</h2>\n']
    parts += [f"<p>{escape(note)}</p>\n" for note in section.notes]
    parts += [_folded(title, rows) for title, rows in section.tables.items()]
    for title, path in section.figures.items():
        image = f'<img src="{data_uri(path)}" alt="{escape(title, quote=True)}">'
        parts.append(f"<figure>{image}<figcaption>{escape(title)}</figcaption></figure>\n")
    return "".join(parts) + "</section>\n"


def _folded(title, rows):
    """A table under its title; a long one is folded away, but for that with organs, which is Table 1."""
    if len(rows) <= LONG or any(row[0].startswith("# ") for row in rows):
        return f"<h3>{escape(title)}</h3>\n{_table(rows)}"
    return f"<details><summary>{escape(title)}: {len(rows) - 1} rows</summary>\n{_table(rows)}</details>\n"


def _table(rows):
    head = "".join(f"<th>{escape(text)}</th>" for text in rows[0])
    lines = []
    for row in rows[1:]:
        cells = "".join(f"<td>{escape(text.removeprefix('# '))}</td>" for text in row)
        lines.append(f'<tr class="organ">{cells}</tr>\n' if row[0].startswith("# ") else f"<tr>{cells}</tr>\n")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{"".join(lines)}</tbody></table></div>\n'

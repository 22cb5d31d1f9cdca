import base64
import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from totalgen.data.measures import MEASURES
from totalgen.data.organs import MEASURED
from totalgen.data.volume import Volume, read_nifti, write_nifti
from totalgen.errors import InputError
from totalgen.evaluation import figures
from totalgen.evaluation.comparison import VERDICTS, statistics_table
from totalgen.evaluation.design import PUBLISHED_DESIGN
from totalgen.evaluation.figures import violins
from totalgen.evaluation.measured_cohort import Cohort, pairs, paper_columns
from totalgen.evaluation.report import compare_cohorts
from totalgen.evaluation.sections import Score, Section, read_section, rows_of, write_section
from totalgen.evaluation.table1 import as_latex, excluded, notes, table1

QUICK = dataclasses.replace(PUBLISHED_DESIGN, resamples=50)
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def measured(males, females, seed=0, scale=1.0, source="phantom"):
    """A measured table with random organs around 1.5 L and SUV 2."""
    random = np.random.default_rng(seed)
    rows = []
    for i, sex in enumerate("M" * males + "F" * females):
        person = dict(subject=f"p{i}", sex=sex, age_years=60.0 + i, height_m=1.7, weight_kg=75.0 + i, source=source)
        for organ in MEASURED:
            values = {name: scale * random.normal(2, 0.2) for name in MEASURES}
            rows.append(person | dict(organ=organ, flag="", voxel_mm="6x6x6") | values)
    return pd.DataFrame(rows)


def test_the_cells_are_mean_std_and_difference_of_each_sex():
    reference, candidate = measured(6, 5), measured(4, 3, seed=1, scale=1.3)
    cells = table1([Cohort("real", reference), Cohort("made", candidate)])
    cell = cells[(cells["sex"] == "female") & (cells["organ"] == "heart") & (cells["measure"] == "suv_max")]
    cell = cell.set_index("cohort")
    pick = [table[(table["sex"] == "F") & (table["organ"] == "heart")]["suv_max"] for table in (reference, candidate)]
    assert cell.loc["made", "n"] == 3
    assert cell.loc["made", "mean"] == pytest.approx(pick[1].mean())
    assert cell.loc["made", "std"] == pytest.approx(pick[1].std())
    assert cell.loc["made", "diff_percent"] == pytest.approx(100 * (pick[1].mean() / pick[0].mean() - 1))
    assert pd.isna(cell.loc["real", "diff_percent"])


def test_a_clear_difference_has_a_star_and_a_copy_has_none(tables_only, tmp_path):
    table = measured(8, 8)
    far = table.assign(volume_l=table["volume_l"] * 2)
    text = compare_cohorts(Cohort("real", table), [Cohort("copy", table), Cohort("far", far)], tmp_path, QUICK)
    marked = (tmp_path / "table1.md").read_text()
    volumes = next(line for line in marked.splitlines() if line.startswith("| Volume")).split(" | ")
    assert volumes[2].endswith("(0.0 %)")
    assert "*" not in volumes[2]
    assert volumes[3].endswith("\\* (100.0 %)")
    assert "copy against real (candidate), 32 rows" in text
    figures = pd.read_csv(tmp_path / "statistics.csv")
    assert len(figures) == 2 * 2 * len(MEASURED) * len(MEASURES)
    assert (figures["welch_p_holm"] >= figures["welch_p"]).all()
    assert (figures.loc[figures["candidate"] == "copy", "wasserstein"] == 0).all()


def test_missing_and_tiny_organs_are_counted_below_and_not_averaged(tables_only, tmp_path):
    table = measured(5, 5)
    hit = (table["subject"] == "p1") & (table["organ"] == "spleen")
    table.loc[hit, ["flag", "volume_l"]] = ["missing", 0.0]
    table.loc[hit, ["suv_mean", "suv_max", "suv_peak"]] = np.nan
    tiny = (table["subject"].isin(["p6", "p7"])) & (table["organ"] == "kidneys")
    table.loc[tiny, ["flag", "volume_l"]] = ["tiny", 0.01]
    text = compare_cohorts(Cohort("real", measured(5, 5)), [Cohort("made", table, unmeasured=3)], tmp_path, QUICK)
    assert "- made: male spleen 1 missing, female kidneys 2 tiny, 3 subjects not measured at all" in text
    assert "- real: none" in text
    cells = pd.read_csv(tmp_path / "table1.csv").set_index(["cohort", "sex", "organ", "measure"])
    assert cells.loc[("made", "male", "spleen", "volume"), ["n", "missing"]].tolist() == [4, 1]
    assert cells.loc[("made", "female", "kidneys", "volume"), ["n", "tiny"]].tolist() == [3, 2]


@pytest.mark.parametrize(("males", "females"), [(1, 0), (1, 1), (2, 1)])
def test_groups_of_one_or_none_are_marked_and_never_nan(tables_only, tmp_path, males, females):
    cohorts = Cohort("real", measured(males, females)), [Cohort("made", measured(females, males, seed=1))]
    text = compare_cohorts(*cohorts, tmp_path, QUICK)
    assert "nan" not in text.lower()
    assert "(n = 1)" in text
    assert "not tested" in text
    for file in ("table1.csv", "statistics.csv", "table1.tex", "report.json"):
        assert "nan" not in (tmp_path / file).read_text().lower()


def test_phantoms_are_marked_and_patients_are_not(tables_only, tmp_path):
    phantom, patients = measured(3, 3, source="phantom 0.1"), measured(3, 3, source="AutoPET")
    text = compare_cohorts(Cohort("P", phantom), [Cohort("Q", patients)], tmp_path, QUICK)
    assert "P – phantom: not evidence about patients." in text
    assert "P: phantom: not evidence about patients" in (tmp_path / "report.html").read_text()
    text = compare_cohorts(Cohort("R", patients), [Cohort("Q", patients)], tmp_path, QUICK)
    assert "not evidence" not in text
    assert 'class="caveat"' not in (tmp_path / "report.html").read_text()


def test_violins_are_plotted_for_every_organ_and_measure(tmp_path):
    values = pd.concat([measured(4, 4).assign(cohort="real"), measured(1, 4, seed=1).assign(cohort="made")])
    violins(tmp_path / "violins.png", values, note="a note")
    assert (tmp_path / "violins.png").read_bytes().startswith(b"\x89PNG")


def test_differences_are_drawn_in_the_order_of_the_candidates_with_their_intervals(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(figures, "write", lambda figure, path: drawn.append(figure))
    made = {"9 000": measured(4, 1, seed=1, scale=1.1), "132 000": measured(4, 4, seed=2, scale=3.0)}
    table = statistics_table(Cohort("real", measured(6, 5)), [Cohort(*each) for each in made.items()], QUICK)
    figures.differences(tmp_path / "differences.png", table, QUICK)
    axis = drawn[0].axes[0]
    kinds = axis.lines[1:6], axis.lines[6:]  # after the line at 0
    men, women = ({(line.get_marker(), line.get_fillstyle()): line.get_ydata() for line in own} for own in kinds)
    rows = table[(table["organ"] == "liver") & (table["measure"] == "volume")].set_index(["sex", "candidate"])
    assert [label.get_text() for label in drawn[0].axes[-1].get_xticklabels()] == list(made)
    wide = figures.WIDEST_PERCENT
    assert men["o", "full"] == pytest.approx([rows["difference_percent"]["male", "9 000"], np.nan], nan_ok=True)
    for own in (men, women):  # three times as much is beyond the axis, and so is all of its interval
        assert own["^", "full"] == pytest.approx([np.nan, wide], nan_ok=True)
        assert np.isnan(own["o", "full"][1])
    (first, beyond), (alone, _) = (lines.get_segments() for lines in axis.collections)
    assert first[:, 1] == pytest.approx(rows.loc[("male", "9 000"), ["percent_low", "percent_high"]].to_list())
    assert not len(beyond)
    assert not len(alone)  # one woman has no interval
    assert "beyond ±60 %" in [text.get_text() for text in drawn[0].legends[0].get_texts()]


def test_an_interval_that_leaves_the_axis_is_drawn_to_its_edge_with_a_sign(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(figures, "write", lambda figure, path: drawn.append(figure))
    row = dict(candidate="made", sex="male", organ="liver", measure="volume")
    table = pd.DataFrame([row | dict(difference_percent=-70.0, percent_low=-90.0, percent_high=-50.0)])
    figures.differences(tmp_path / "differences.png", table, QUICK)
    axis = drawn[0].axes[0]
    assert axis.collections[0].get_segments()[0][:, 1].tolist() == [-60, -50]
    below = [line.get_fillstyle() for line in axis.lines[1:6] if line.get_ydata()[0] == -60]
    assert below == ["full", "none"]


def test_the_scripts_make_the_table_from_masks(cohort, generated, invoke, tmp_path):
    for i in range(4):  # masks that 1_segment_generated.py would write
        shutil.copy(cohort / "cropped" / f"s{i}" / "organs.nii.gz", generated / f"g{i}" / "organs.nii.gz")
    for root in (cohort, generated):
        assert invoke("3_Evaluations/2_measure_organs.py", "--root", root).exit_code == 0
    result = invoke(
        "3_Evaluations/3_compare_cohorts.py", "--reference", f"Phantom={cohort}", "--candidate", generated,
        "--outdir", tmp_path / "out",
    )
    assert result.exit_code == 0, result.output
    assert "Male: Phantom" in result.output
    assert "generated against Phantom (candidate), 32 rows" in result.output
    for file in ("table1.md", "table1.csv", "table1.tex", "statistics.csv", "violins.png", "slopes.csv"):
        assert (tmp_path / "out" / file).exists()
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(list((tmp_path / "out").glob("*.png")))
    assert "http" not in page  # opens offline
    assert json.loads((tmp_path / "out" / "report.json").read_text())["cohorts"][1]["subjects"] == 4


def test_a_cohort_that_was_not_measured_ends_in_one_line_and_code_2(cohort, generated, invoke, tmp_path):
    script = "3_Evaluations/3_compare_cohorts.py"
    asked = ["--reference", cohort, "--candidate", generated, "--outdir", tmp_path / "out"]
    result = invoke(script, *asked)
    assert result.exit_code == 2
    assert "2_measure_organs.py" in result.stderr
    assert result.stderr.count("\n") == 1
    invoke("3_Evaluations/2_measure_organs.py", "--root", cohort)
    for candidates, words in ([], "no candidate"), (["--candidate", cohort], "share a name"):
        result = invoke(script, "--reference", cohort, *candidates, "--outdir", tmp_path / "out")
        assert result.exit_code == 2
        assert words in result.stderr
        assert result.stderr.count("\n") == 1


def test_candidates_are_paired_by_name_and_person(tables_only, tmp_path):
    reference = measured(4, 4)
    made = measured(4, 4, seed=1)
    made.loc[made["subject"] == "p1", "weight_kg"] = 120.0
    made.loc[made["subject"] == "p2", "subject"] = "somebody"
    found = pairs(Cohort("real", reference), Cohort("made", made))
    assert found.subjects == ("p0", "p3", "p4", "p5", "p6", "p7")
    assert found.others == ("somebody",)
    assert found.strangers == ("p1",)
    assert found.alone == ("p1", "p2")
    compare_cohorts(Cohort("real", reference), [Cohort("made", made)], tmp_path, QUICK)
    table = pd.read_csv(tmp_path / "statistics.csv")
    assert set(table.loc[table["sex"] == "male", "n_pairs"]) == {2}
    assert "1 of the same name, other demographics (p1)" in (tmp_path / "report.html").read_text()


def test_controls_packed_and_true_masks_have_columns_and_candidates_are_held_against_the_packed(tables_only, tmp_path):
    roles = dict(zip(("control", "packed", "true masks", "candidate"), "abcd", strict=True))
    others = [Cohort(name, measured(4, 4, seed=n), role=role) for n, (role, name) in enumerate(roles.items())]
    text = compare_cohorts(Cohort("real", measured(4, 4, seed=9)), others, tmp_path, QUICK)
    assert "d against b (candidate), 32 rows" in text
    scores = json.loads((tmp_path / "report.json").read_text())["scores"]
    results = {score["what"]: score["result"] for score in scores if score["section"] == "Like with like"}
    assert [f"like with like: {name} ({role})" in results for role, name in list(roles.items())[:3]] == [True] * 3
    assert all("not tested" not in result for result in results.values())
    compare_cohorts(Cohort("real", measured(4, 4)), others[-1:], tmp_path, QUICK)
    assert "SUVmax is not comparable" in (tmp_path / "report.html").read_text()


def scores_of(folder):
    """what → row of the score card."""
    return {score["what"]: score for score in json.loads((folder / "report.json").read_text())["scores"]}


def test_the_packed_reference_is_judged_by_pairs(tables_only, monkeypatch, tmp_path):
    """3 % less of everything: pairs show it in every row, groups of these sizes in none."""
    drawn = []
    monkeypatch.setattr(figures, "differences", lambda path, table, design: drawn.append((path.touch(), table)))
    table = measured(40, 40)
    for column in MEASURES:
        table[column] *= np.random.default_rng(1).normal(1, 0.25, len(table)).clip(0.3)
    packed = table.assign(**{column: 0.97 * table[column] for column in MEASURES})
    others = [Cohort("like", packed, role="packed"), Cohort("masks", table, role="true masks"), Cohort("made", packed)]
    text = compare_cohorts(Cohort("real", table), others, tmp_path, dataclasses.replace(QUICK, paired=False))
    found = pd.read_csv(tmp_path / "statistics.csv").set_index(["candidate", "reference"]).sort_index()
    like, masks, made = (found.loc[(name, "real")] for name in ("like", "masks", "made"))
    assert set(like["verdict"]) == set(like["paired_verdict"]) == {"different, within the margin"}
    assert set(masks["verdict"]) == {"equivalent"}  # the same values
    assert set(made["verdict"]) <= {"undecided", "equivalent"}
    assert list(like["verdict_by"].unique()) == ["pairs"]
    assert list(made["verdict_by"].unique()) == ["groups"]
    assert like[["smallest_margin_percent", "equivalence_power", "subjects_needed"]].isna().all(axis=None)
    assert "like against real (packed), 32 rows: by pairs 32 different, within the margin" in text
    score = scores_of(tmp_path)["like (packed) against real"]
    assert "perfect" not in score["limit"]
    assert score["n"] == "40 pairs per sex at most"
    assert score["result"].startswith("32 different, within the margin; after Holm 32 different, 32 equivalent")
    shown = drawn[0][1].set_index("candidate")
    assert pd.to_numeric(shown.loc["like", "percent_high"]).to_numpy() == pytest.approx(-3)
    assert (pd.to_numeric(shown.loc["made", "percent_high"]) > 0).all()


def test_the_verdicts_of_pairs_stand_beside_those_of_groups_where_most_studies_have_a_partner(tables_only, tmp_path):
    real, made = measured(12, 12), measured(12, 12, seed=1)
    names = made["subject"].map(lambda name: f"other{name}")
    few = made.assign(subject=names.where(names.str[-1] > "3", made["subject"]))
    cohorts = [Cohort("made", made[made["subject"] != "p5"]), Cohort("few", few)]
    text = compare_cohorts(Cohort("real", real), cohorts, tmp_path, QUICK)
    lines = {line.split()[0]: line for line in text.splitlines() if " against " in line}
    assert "; by pairs " in lines["made"]
    assert "by pairs" not in lines["few"]
    scores = scores_of(tmp_path)
    assert "; by pairs " in scores["made (candidate) against real"]["result"]
    assert "conservative" in scores["made (candidate) against real"]["limit"]
    assert "conservative" not in scores["few (candidate) against real"]["limit"]
    assert scores["pairs: made"]["limit"] == "every study has a partner; 1 subjects of real without a study (p5)"


def test_cohorts_whose_names_differ_in_signs_only_keep_their_own_pictures(tables_only, cohort, tmp_path):
    table = measured(2, 2)
    table["subject"] = table["subject"].str.replace("p", "s")
    others = [Cohort(name, table, folder=cohort) for name in ("EDM+", "EDM-", "edm--2", "run 1")]
    compare_cohorts(Cohort("real", table), others, tmp_path, QUICK)
    for kind in ("bland-altman", "samples"):
        found = {path.name for path in tmp_path.glob(f"{kind}-*.png")}
        assert found == {f"{kind}-{slug}.png" for slug in ("edm-", "edm--3", "edm--2", "run-1")}


def test_every_control_is_shown(tables_only, tmp_path):
    controls = [Cohort(f"c{n}", measured(6, 6, seed=n, scale=n), role="control") for n in (2, 3)]
    others = [*controls, Cohort("made", measured(6, 6, seed=5))]
    compare_cohorts(Cohort("real", measured(6, 6)), others, tmp_path, QUICK)
    scores = scores_of(tmp_path)
    assert "100" < scores["like with like: c2 (control)"]["result"].split(": ")[1] < "130"
    assert "200" < scores["like with like: c3 (control)"]["result"].split(": ")[1] < "260"
    assert "without a study" not in scores["pairs: c2"]["limit"]  # it was made for nobody


def test_the_note_says_that_the_papers_columns_have_a_reference_of_their_own():
    cohorts = [Cohort("real", measured(3, 3)), Cohort("made", measured(3, 3, seed=1))]
    words = "Flow (paper) and Diffusion (paper) are as printed, from AutoPET (paper) and not from real."
    assert not any("as printed" in line for line in notes(cohorts))
    assert any(words in line for line in notes([*cohorts, *paper_columns()]))


def test_what_cannot_be_averaged_is_counted_and_named(tables_only, cohort, generated, invoke, tmp_path):
    """A NaN in an organ, a row that is there twice, a subject nobody measured, other voxels."""
    table = measured(5, 5)
    table.loc[(table["subject"] == "p1") & (table["organ"] == "liver"), "suv_mean"] = np.nan
    table.loc[table["subject"] == "p3", "voxel_mm"] = "3x3x3"
    made = Cohort("made", table, unmeasured=1, doubled=(("p2", "liver"),))
    text = compare_cohorts(Cohort("real", measured(5, 5)), [made], tmp_path, QUICK)
    assert "male liver 1 not finite, 1 subjects not measured at all (failures.csv), 1 rows of subjects measured" in text
    assert "different or unknown sizes: real: 6x6x6 mm; made: 3x3x3, 6x6x6 mm" in (tmp_path / "report.html").read_text()


def test_organs_without_a_row_and_with_an_unknown_flag_are_named():
    table = measured(4, 4)
    table.loc[(table["subject"] == "p0") & (table["organ"] == "heart"), "flag"] = "outside the field"
    table = table[~(table["subject"].isin(["p1", "p6"]) & (table["organ"] == "spleen"))]
    left = excluded(Cohort("made", table))
    assert left == "male heart 1 outside the field, male spleen 1 missing, female spleen 1 missing"
    cells = table1([Cohort("real", measured(4, 4)), Cohort("made", table)]).set_index(["cohort", "sex", "organ"])
    assert set(cells.loc[("made", "male", "spleen"), "missing"]) == {1}
    assert excluded(Cohort("real", measured(4, 4))) == "none"


@pytest.mark.parametrize("shift", [0.0, -3.0])
def test_a_reference_mean_of_nothing_or_less_has_no_percentage(shift):
    real, made = measured(5, 5), measured(5, 5, seed=1)
    real["suv_mean"] = shift
    cohorts = [Cohort("real", real), Cohort("made", made)]
    cells = table1(cohorts)
    assert cells.loc[cells["measure"] == "suv_mean", "diff_percent"].isna().all()
    rows = statistics_table(cohorts[0], cohorts[1:], QUICK).query("measure == 'suv_mean'")
    assert rows[["difference_percent", "paired_percent"]].isna().all(axis=None)
    assert set(rows["verdict"]) == {"not tested"}
    assert "a reference mean of 0 or less" in VERDICTS["not tested"]


def test_names_of_cohorts_are_text_in_latex():
    escaped = r"a\$b\textasciicircum{}c\textasciitilde{}d\{e\}\textbackslash{}f\_g\%\textless{}h"
    assert as_latex([["", r"a$b^c~d{e}\f_g%<h"]]).splitlines()[2] == rf" & {escaped} \\ \hline"


def test_a_row_that_is_in_a_table_twice_counts_once(cohort, invoke, tables_only, tmp_path):
    invoke("3_Evaluations/2_measure_organs.py", "--root", cohort)
    path = cohort / "organs.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]) + "\n")
    found = report_of(cohort)
    assert found.doubled == (("s0", "liver"),)
    assert len(found.measured) == 16


def report_of(root):
    from totalgen.evaluation.measured_cohort import load_cohort

    return load_cohort("c", root)


def test_a_panel_without_points_says_so_and_few_points_have_no_violin(tmp_path):
    values = measured(2, 2).assign(cohort="made")
    values = values[values["organ"] != "spleen"]
    violins(tmp_path / "few.png", values)
    assert (tmp_path / "few.png").stat().st_size > 10_000


def test_sections_come_back_as_they_were_written_and_their_figures_are_in_the_page(tables_only, tmp_path):
    (tmp_path / "a.png").write_bytes(base64.b64decode(PIXEL))
    rows = [["x", "y"], ["1", "<b>"]]
    section = Section("Privacy", [Score("a", "8", "b", "c")], ["note"], {"t": rows}, {"f": tmp_path / "a.png"})
    write_section(tmp_path, section)
    assert read_section(tmp_path) == section
    cohorts = Cohort("real", measured(3, 3)), [Cohort("made", measured(3, 3, seed=1))]
    compare_cohorts(*cohorts, tmp_path / "out", QUICK, further=[read_section(tmp_path)])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h2>Privacy</h2>" in page
    assert "&lt;b&gt;" in page
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match="no such file"):
        read_section(tmp_path)


def test_numbers_of_a_table_have_three_digits_and_whole_ones_stay_whole():
    """An empty row makes floats of a column of numbers of subjects: 1 405 must not become 1.4e+03."""
    for counts in ([1405, 7, None], [1405.0, 7.0, np.nan], [1405, 7, np.int64(12)]):
        rows = rows_of(pd.DataFrame(dict(n=counts)), dict(n="n for the margin"))
        assert rows[:3] == [["n for the margin"], ["1405"], ["7"]]
    odd = [0.012345, -3.0, 999.7, 54321.6, 1e-7, np.inf, "1.0", True]
    found = rows_of(pd.DataFrame(dict(x=pd.Series(odd, dtype=object))), dict(x="x"))[1:]
    assert [row[0] for row in found] == ["0.0123", "-3", "1000", "54322", "1e-07", "inf", "1.0", "True"]


def empty_masks(generated):
    for folder in generated.glob("g*"):
        masks = read_nifti(folder / "organs.nii.gz")
        write_nifti(folder / "organs.nii.gz", Volume(np.zeros(masks.shape, np.uint8), masks.affine))


def nan_in_a_liver(generated):
    path = generated / "g1" / "SUV.nii.gz"
    suv = read_nifti(path)
    suv.voxels[15, 8, 12] = np.nan
    write_nifti(path, suv)


def one_subject(generated):
    table = pd.read_csv(generated / "manifest.csv")[:1]
    table.to_csv(generated / "manifest.csv", index=False)


def one_sex(generated):
    table = pd.read_csv(generated / "manifest.csv").assign(sex="F")
    table.to_csv(generated / "manifest.csv", index=False)


def larger_voxels(generated):
    for path in generated.glob("g2/*.nii.gz"):
        volume = read_nifti(path)
        voxels = volume.voxels.astype(np.uint8) if path.name == "organs.nii.gz" else volume.voxels
        write_nifti(path, Volume(voxels, volume.affine * np.array([1, 1, 2, 1])))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (empty_masks, "male liver 2 missing"), (nan_in_a_liver, "female liver 1 not finite"), (one_subject, "(n = 1)"),
        (one_sex, "not tested"), (larger_voxels, "12x12x24"),
    ],
)  # fmt: skip
def test_a_strange_cohort_is_compared_and_its_strangeness_named(
    change, words, cohort, generated, invoke, tables_only, tmp_path
):
    for i in range(4):
        shutil.copy(cohort / "cropped" / f"s{i}" / "organs.nii.gz", generated / f"g{i}" / "organs.nii.gz")
    change(generated)
    for root in (cohort, generated):
        assert invoke("3_Evaluations/2_measure_organs.py", "--root", root).exit_code == 0
    out = tmp_path / "out"
    arguments = ["--reference", f"Phantom={cohort}", "--candidate", f"made={generated}", "--outdir", out]
    result = invoke("3_Evaluations/3_compare_cohorts.py", *arguments)
    assert result.exit_code == 0, result.output
    assert words in (out / "report.html").read_text() + result.output
    for reverse in (["--reference", generated, "--candidate", cohort], ["--reference", cohort, "--candidate", cohort]):
        found = invoke("3_Evaluations/3_compare_cohorts.py", *reverse, "--outdir", out)
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exception

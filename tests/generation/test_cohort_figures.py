"""The paper's layouts from cohorts that are read as any other, and files that open again."""

import imageio.v3 as imageio
import numpy as np
import pandas as pd
import pytest

from totalgen.data.demographics import Demographics
from totalgen.data.volume import read_labels, read_nifti, write_nifti
from totalgen.errors import InputError
from totalgen.generation.cohort_figures import body_mass_figure, pipeline_figure, slices_figure, spread_evenly
from totalgen.generation.synthetic_export import write_surface

FIGURES = "2_Tests/make_figures.py"


def test_the_studies_shown_are_spread_over_the_body_mass_indices():
    table = pd.DataFrame(dict(bmi=[18.0, 19.0, 20.0, 24.5, 26.0, 33.0], subject=list("abcdef")))
    assert list(spread_evenly(table)["subject"]) == ["a", "e", "f"]
    assert list(spread_evenly(table[:2])["subject"]) == ["a", "b"]


def test_figure_2_has_a_row_for_each_sex(generated, tmp_path):
    shown = body_mass_figure(generated, tmp_path / "figure2.png")
    assert sorted(shown) == ["g0", "g1", "g2", "g3"]
    assert imageio.imread(tmp_path / "figure2.png").shape[:2] == (670, 1020)  # two rows, two columns


def test_figure_3_shows_the_same_person_of_every_cohort(cohort, generated, tmp_path):
    table = pd.read_csv(generated / "manifest.csv").assign(subject=["s1", "s2", "s3", "s4"])
    table.to_csv(generated / "manifest.csv", index=False)
    for n in range(4):
        (generated / f"g{n}").rename(generated / f"s{n + 1}")
    cohorts = {"Phantom": cohort, "EDM": generated}
    assert slices_figure(cohorts, tmp_path / "figure3.png") == "s1"
    assert imageio.imread(tmp_path / "figure3.png").shape[:2] == (950, 660)  # two columns
    with pytest.raises(InputError, match="s4: is not in all of Phantom, EDM. Shared are s1, s2, s3."):
        slices_figure(cohorts, tmp_path / "figure3.png", subject="s4")


def test_the_diagram_has_the_pictures_of_a_study(generated, tmp_path):
    assert pipeline_figure(generated, tmp_path / "one.png") == "g0"
    assert pipeline_figure(generated, tmp_path / "two.png", subject="g2") == "g2"
    one, two = (imageio.imread(tmp_path / f"{name}.png") for name in ("one", "two"))
    assert one.shape == two.shape
    assert not np.array_equal(one, two)
    with pytest.raises(InputError, match="g9: is not in .* There are g0, g1, g2, g3."):
        pipeline_figure(generated, tmp_path / "two.png", subject="g9")


def test_the_script_draws_what_is_asked_for(generated, tmp_path, invoke):
    nothing = invoke(FIGURES, "--outdir", tmp_path / "out")
    assert nothing.exit_code == 2
    assert "nothing to draw" in nothing.output
    result = invoke(FIGURES, "--figure3", f"EDM={generated}", "--subject", "g2", "--outdir", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "(g2)" in result.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["figure3.png"]


def test_a_study_has_its_surfaces_on_request(cohort, tmp_path):
    """It shows the organs that lie in the folder."""
    study = cohort / "cropped" / "s0"
    person = Demographics("F", 60, 1.65, 66.0)
    row = dict(subject="s0", source="phantom", **vars(person))
    volumes = {name: read_nifti(study / f"{name}.nii.gz") for name in ("CT", "SUV")}

    write_nifti(tmp_path / "with" / "organs.nii.gz", read_labels(study / "organs.nii.gz"))
    for name in ("bare", "with"):
        (tmp_path / name).mkdir(exist_ok=True)
        write_surface(tmp_path / name, person, volumes, row)
    bare, full = (imageio.imread(tmp_path / name / "surface.png") for name in ("bare", "with"))
    assert bare.shape[:2] == full.shape[:2] == (500, 900)
    colourful = [(np.ptp(picture[..., :3], axis=2) > 100).sum() for picture in (bare, full)]  # red and violet organs
    assert colourful[0] < colourful[1]

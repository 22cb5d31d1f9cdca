import json
from dataclasses import replace

import imageio.v3 as imageio
import numpy as np
import pandas as pd
import pytest

from totalgen.data.archive import pack
from totalgen.data.axial_extent import (
    PUBLISHED,
    AxialExtent,
    fit,
    read_axial_extent,
    rows_of_line,
    scatter,
    write_axial_extent,
)
from totalgen.data.recipes import PetCt
from totalgen.errors import InputError


def cohort(n=80, outliers=12, seed=0, noise_mm=10.0):
    rng = np.random.default_rng(seed)
    height = rng.uniform(1.5, 2.0, n)
    extent = 290 * height + 225 + rng.normal(0, noise_mm, n)
    extent[:outliers] += rng.uniform(150, 400, outliers)  # scans with head or legs labelled as torso
    return height, extent


def test_a_planted_line_is_recovered_among_outliers():
    height, extent = cohort()
    line = fit(height, extent, "test")
    assert line.mm(np.array([1.6, 1.75, 1.9])) == pytest.approx([689, 732.5, 776], abs=6)  # 2 standard errors
    assert 45 <= line.n_inliers <= 68
    least_squares = np.polyfit(height, extent, 1)
    assert abs(np.polyval(least_squares, 1.75) - 732.5) > 20  # what the outliers do without RANSAC


def test_an_exact_line_is_recovered_exactly():
    height, extent = cohort(outliers=0, noise_mm=0)
    line = fit(height, extent, "test")
    assert (line.slope_mm_per_m, line.intercept_mm) == pytest.approx((290, 225))
    assert (line.n, line.n_inliers) == (80, 80)


def test_the_threshold_is_that_of_the_released_settings():
    height, extent = cohort(outliers=0)
    residual = np.abs(extent - np.polyval(np.polyfit(height, extent, 1), height))
    mad = np.median(np.abs(residual - np.median(residual)))
    assert fit(height, extent, "test").residual_threshold_mm == pytest.approx(2 * 1.4826 * mad)


def test_the_fit_is_repeatable():
    assert fit(*cohort(), "test") == fit(*cohort(), "test")


@pytest.mark.parametrize(
    ("height", "extent", "why"),
    [
        (np.linspace(1.5, 1.9, 9), np.linspace(600, 700, 9), "9 subjects"),
        (np.full(20, 1.7), np.linspace(600, 700, 20), "heights differ"),
        (np.linspace(1.5, 1.9, 20), np.linspace(700, 600, 20), "slope"),
        (np.linspace(150, 190, 20), np.linspace(600, 800, 20), "the line gives -145 mm at 1 m"),  # of centimetres
    ],
)
def test_data_that_determine_no_line_are_refused(height, extent, why):
    with pytest.raises(InputError, match=why):
        fit(height, extent, "test")


def test_a_file_whose_line_gives_nobody_an_extent_is_refused(tmp_path):
    write_axial_extent(tmp_path / "a.json", replace(PUBLISHED, slope_mm_per_m=5.0, intercept_mm=-150.0))
    with pytest.raises(InputError, match=r"a\.json: the line gives -145 mm at 1 m and -138 mm at 2\.3 m.* again"):
        read_axial_extent(tmp_path / "a.json")
    write_axial_extent(tmp_path / "a.json", replace(PUBLISHED, slope_mm_per_m="steep"))
    with pytest.raises(InputError, match=r"a\.json"):
        read_axial_extent(tmp_path / "a.json")


def test_the_published_line_is_in_millimetres():
    slices_of_2_mm = 146.629 * 1.75 + 110.419
    assert PUBLISHED.mm(1.75) == pytest.approx(2 * slices_of_2_mm)


def test_a_line_survives_json(tmp_path):
    line = fit(*cohort(), "test")
    write_axial_extent(tmp_path / "axial_extent.json", line)
    assert read_axial_extent(tmp_path / "axial_extent.json") == line
    assert AxialExtent.from_dict(json.loads(json.dumps(PUBLISHED.to_dict()))) == PUBLISHED


def test_a_damaged_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_axial_extent(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"slope": 1}')
    with pytest.raises(InputError, match="not an axial extent"):
        read_axial_extent(tmp_path / "a.json")


def test_the_scatter_is_plotted_with_and_without_subjects(tmp_path):
    height, extent = cohort()
    scatter(tmp_path / "a.png", height, extent, fit(height, extent, "test"))
    scatter(tmp_path / "b.png", [], [], PUBLISHED)
    blue = []  # pixels of the subjects' markers
    for name in ("a", "b"):
        red, _, third = np.moveaxis(imageio.imread(tmp_path / f"{name}.png")[..., :3].astype(int), -1, 0)
        blue.append(int((third - red > 50).sum()))
    assert blue[0] > 5 * blue[1] > 0  # the legend has one, and 40 are in the picture


def test_the_line_does_not_depend_on_the_order_of_the_subjects():
    """Scattered extents, where RANSAC's random choice matters: every order gives the same line."""
    random = np.random.default_rng(4)
    height = random.uniform(1.55, 1.9, 30)
    extent = 300 * height + random.normal(0, 25, 30) + 90 * (random.random(30) < 0.2)
    lines = {fit(height[order], extent[order], "test") for order in (random.permutation(30) for _ in range(5))}
    assert len(lines) == 1


def test_only_subjects_of_split_train_decide(tmp_path, invoke):
    height, extent = cohort(n=60, outliers=0)
    split = np.where(np.arange(60) < 40, "train", "validation")
    extent[40:] += 90  # which would move the line
    names = [f"s{n}" for n in range(60)]
    person = dict(sex="F", age_years=60, weight_kg=70, height_m=height, split=split)
    pd.DataFrame(dict(subject=names, **person)).to_csv(tmp_path / "cohort.csv", index=False)
    crops = dict(subject=names, z_extent_mm=extent, covers_torso=True)
    pd.DataFrame(crops).to_csv(tmp_path / "crop.csv", index=False)
    result = invoke("0_Preprocess/5_fit_axial_extent.py", "--root", tmp_path)
    assert result.exit_code == 0, result.output
    line = read_axial_extent(tmp_path / "axial_extent.json")
    assert "fitted_to" in json.loads((tmp_path / "axial_extent.json").read_text())
    assert line.n == 40
    assert line.mm(1.75) == pytest.approx(732.5, abs=6)


OTHER_ROWS = {  # column → its table
    "height_m": "cohort", "split": "cohort", "subject": "crop", "z_extent_mm": "crop", "covers_torso": "crop",
}  # fmt: skip


@pytest.mark.parametrize("column", [*OTHER_ROWS, "as it was", "published", "earlier"])
def test_a_line_of_other_crops_is_said_when_it_is_packed(tmp_path, cropped_cohort, capsys, column):
    cropped_cohort(tmp_path)
    table = pd.read_csv(tmp_path / "cohort.csv")
    crop = pd.DataFrame(dict(subject=table["subject"], covers_torso=True, z_extent_mm=[500.0, 600.0, 700.0]))
    path = tmp_path / "axial_extent.json"
    if column != "earlier":
        write_axial_extent(path, PUBLISHED, None if column == "published" else rows_of_line(table, crop))
    assert read_axial_extent(path) == PUBLISHED
    if column in OTHER_ROWS:
        changed = dict(cohort=table, crop=crop)[OTHER_ROWS[column]]
        values = dict(height_m=1.8, split="test", subject="other", z_extent_mm=650, covers_torso=False)
        changed[column] = changed[column].astype(object).where(changed["subject"] != "s1", values[column])
    else:
        crop = crop[::-1].astype(dict(z_extent_mm=int))  # as a spreadsheet may save it
    table.to_csv(tmp_path / "cohort.csv", index=False)
    crop.to_csv(tmp_path / "crop.csv", index=False)
    assert pack(tmp_path, PetCt(shape=(16, 16, 24)))[1] == 3
    assert ("fitted to other heights or extents" in capsys.readouterr().err) == (column in OTHER_ROWS)

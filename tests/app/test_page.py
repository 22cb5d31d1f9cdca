"""The page in a real browser: generate, look, read values out of the viewer, cancel."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from playwright.sync_api import sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SOFTWARE = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox")
PATIENCE_MS = 300_000
PLACE = "JSON.parse(document.querySelector('.read').dataset.values).mm"
LEVELS = """() => {  // different values of the pixels of the viewer
  sides[0].nv.drawScene();
  const seen = sides[0].canvas, size = {width: seen.width, height: seen.height};
  const copy = Object.assign(document.createElement('canvas'), size);
  const context = copy.getContext('2d');
  context.drawImage(seen, 0, 0);
  return new Set(context.getImageData(0, 0, copy.width, copy.height).data).size;
}"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium that draws without a graphics card. Skips where none is installed."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium is installed (Debian, Ubuntu: apt install chromium)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=[*SOFTWARE])
        yield started
        started.close()


@pytest.fixture
def page(browser, served):
    """The page, small, as drawing is slow. Fails on an error in its console, such as of the content-security policy."""
    _, port, _ = served
    found = browser.new_page(viewport=dict(width=700, height=600))
    found.set_default_timeout(PATIENCE_MS)
    problems = []
    found.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    found.on("pageerror", lambda error: problems.append(str(error)))
    outside = []
    found.on("request", lambda request: outside.append(request.url))
    found.goto(f"http://127.0.0.1:{port}/")
    found.wait_for_function("() => about !== null")
    yield found
    assert [each for each in problems if "400 (Bad Request)" not in each] == []  # a form that is refused
    assert all(url.startswith((f"http://127.0.0.1:{port}/", "data:", "blob:")) for url in outside)
    found.close()


def generate(page, **values):
    for name, value in values.items():
        page.fill(f"#generate [name={name}]", str(value))
    page.click("#generate button")


def values_read(page, side=0):
    return json.loads(page.locator(".read").nth(side).get_attribute("data-values"))


def check(read, folder):
    """What the viewer says of a place is what the files hold there."""
    for name in ("CT", "SUV", "organs"):
        image = nibabel.load(folder / f"{name}.nii.gz")
        voxel = np.rint(np.linalg.inv(image.affine) @ [*read["mm"], 1])[:3].astype(int)
        assert read[name] == pytest.approx(float(image.dataobj[tuple(voxel)]), rel=1e-5)


def test_a_person_becomes_a_picture_whose_values_are_those_of_the_files(page, served, tmp_path):
    results, _, jobs = served
    generate(page, seed=5)
    page.wait_for_selector("article[data-shown]")
    (made,) = (Path(job["made"]) for job in jobs.listed() if job["values"]["seed"] == 5)
    check(values_read(page), results / "studies" / made)
    page.focus("canvas")
    places = [values_read(page)["mm"]]
    for key in ("ArrowRight", "ArrowLeft", "ArrowUp", "PageUp"):
        page.keyboard.press(key)
        page.wait_for_function(f"before => JSON.stringify(before) !== JSON.stringify({PLACE})", arg=places[-1])
        places.append(values_read(page)["mm"])
        check(values_read(page), results / "studies" / made)
    moved = np.diff(np.array(places), axis=0)[1:]  # the first move goes to the middle of a voxel, too
    assert np.allclose(moved, 12.0 * np.array([[-1, 0, 0], [0, 0, 1], [0, 1, 0]]), atol=1e-3)
    page.select_option("#ct-window", "lung")
    page.check("#outlines")
    viewer = "sides[0].nv"
    found = page.evaluate(f"[{viewer}.volumes[0].cal_min, {viewer}.volumes[0].cal_max, {viewer}.opts.atlasOutline]")
    assert found == [-1000, 200, 1]
    page.fill("#opacity", "0.3")
    assert page.evaluate("sides[0].nv.volumes[1].opacity") == pytest.approx(0.3)
    assert page.locator("#caveat").inner_text() == "synthetic, trained on phantoms, not a patient"
    faults = json.loads((results / "studies" / made / "study.json").read_text())["quality"].split("; ")
    assert page.locator(".flags li").all_inner_texts()[: len(faults)] == faults
    assert page.locator(".training tbody tr").all_inner_texts()[0].startswith("liver\t")
    with page.expect_download() as download:
        page.click("text=DICOM (zip)")
    assert download.value.suggested_filename.endswith("-dicom.zip")
    assert page.evaluate(LEVELS) > 20  # something is drawn
    page.screenshot(path=tmp_path / "page.png", timeout=PATIENCE_MS)


def test_two_subjects_stand_beside_each_other_after_a_reload(page, served):
    results, _, jobs = served
    generate(page, seed=6)
    page.wait_for_selector("article[data-shown]")
    generate(page, seed=7, weight_kg=90)
    both = "jobs.filter(job => job.state === 'done' && [6, 7].includes(job.values.seed)).length === 2"
    page.wait_for_function(f"() => {both}")
    page.reload()
    page.wait_for_selector("article[data-shown]")
    found = {job["values"]["seed"]: job for job in jobs.listed()}
    page.select_option("#shown", found[6]["id"])
    page.select_option("#beside", found[7]["id"])
    for side, seed in enumerate((6, 7)):
        page.wait_for_selector(f"article[data-shown='{found[seed]['id']}']")
        check(values_read(page, side), results / "studies" / found[seed]["made"])


def test_a_running_job_is_cancelled_and_an_impossible_one_refused_in_one_line(page, served):
    _, _, jobs = served
    generate(page, seed=8, steps=50000)
    page.wait_for_function("() => jobs.some(job => job.state === 'running' && job.progress.share > 0)")
    assert "global stage, step" in page.locator("#jobs li").first.inner_text()
    page.click("#jobs li button:has-text('Cancel')")
    page.wait_for_function("() => jobs.some(job => job.values.seed === 8 && job.state === 'cancelled')")
    generate(page, height_cm=1.65, steps="")
    page.wait_for_function("() => document.querySelector('#generate .error').textContent !== ''")
    assert page.locator("#generate .error").inner_text() == (
        "Error: height is 1.65 cm; 100 to 230 cm are accepted. It looks like metres: write 165."
    )

"""One job at a time, in a process that ends with its server; what was asked for outlives a kill."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from totalgen.app import jobs as jobs_module
from totalgen.app.jobs import ENDED, Jobs
from totalgen.app.uploads import unpack
from totalgen.data.demographics import Demographics
from totalgen.data.files import locked
from totalgen.data.volume import Volume, read_nifti, write_nifti
from totalgen.errors import InputError
from totalgen.generation.cascade import Cascade
from totalgen.phantom import make_subject
from totalgen.phantom.phantom_dicom import write_study

REPOSITORY = Path(__file__).resolve().parents[2]
WOMAN = dict(sex="F", age=60, height_cm=165, weight_kg=66)
UPLOAD = "a1" * 8
LONG = dict(WOMAN, steps=50_000)  # takes minutes: it is cancelled
PATIENCE_S = 300  # nothing waits so long on a machine that works


@contextlib.contextmanager
def working(folder, weights):
    jobs = Jobs(folder, weights)
    try:
        yield jobs
    finally:
        jobs.close()


def wait(jobs, job, *states):
    """The job, as soon as it is in one of ``states`` and, when running, has said how far it is."""

    def reached():
        now = jobs.jobs[job.id]
        return now.state in states and (now.state != "running" or now.progress)

    with jobs.changed:
        assert jobs.changed.wait_for(reached, PATIENCE_S), jobs.jobs[job.id]
    return jobs.jobs[job.id]


@pytest.mark.slow
def test_a_job_makes_what_python_makes_and_cancelled_ones_make_nothing(tmp_path, weights):
    with working(tmp_path, weights) as jobs:
        long, waiting, short = (jobs.add("generate", values) for values in (LONG, LONG, WOMAN))
        running = wait(jobs, long, "running")
        assert running.progress["network"] == "global_stage"
        assert 0 < running.progress["share"] < 1
        assert [job["state"] for job in jobs.listed()] == ["queued", "queued", "running"]
        jobs.cancel(waiting.id)
        jobs.cancel(long.id)
        assert wait(jobs, short, *ENDED).state == "done"
        assert [job["state"] for job in jobs.listed()] == ["done", "cancelled", "cancelled"]
        assert not list(tmp_path.glob("studies/*50000*/*/*"))
        folder = tmp_path / "studies" / short.made
        assert {"CT.nii.gz", "SUV.nii.gz", "organs.nii.gz", "dicom", "study.json"} <= set(jobs.listed()[0]["files"])
    expected = Cascade.shipped("demo", folder=weights).run(Demographics("F", 60, 1.65, 66), seed=1)
    for name, volume in expected.items():
        assert np.array_equal(read_nifti(folder / f"{name}.nii.gz").voxels, volume.voxels)


@pytest.mark.slow
def test_a_killed_server_leaves_no_process_and_starts_again_with_its_results(tmp_path, weights):
    with working(tmp_path, weights) as jobs:
        first = wait(jobs, jobs.add("generate", WOMAN), *ENDED)
        second = jobs.add("generate", LONG)
        wait(jobs, second, "running")
    command = [sys.executable, REPOSITORY / "2_Tests/app.py", "--outdir", tmp_path, "--port", "0", "--weights", weights]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert "Open http://127.0.0.1:" in server.stdout.readline()
    log = tmp_path / "jobs" / f"{second.id}.log"
    inside = psutil.Process(server.pid)
    children = []
    while not children:  # until it has started the job that was interrupted
        children = inside.children()
    server.send_signal(signal.SIGKILL)
    server.wait()
    server.stdout.close()
    gone, alive = psutil.wait_procs(children, PATIENCE_S)
    assert gone
    assert not alive
    assert log.exists()
    with working(tmp_path, weights) as jobs:
        assert wait(jobs, second, "running").values == second.values
        assert jobs.jobs[first.id].made == first.made
        jobs.cancel(second.id)
        wait(jobs, second, "cancelled")


def given(results, path):
    """An upload of a file, as receive and unpack leave it."""
    place = results / "uploads" / UPLOAD
    place.mkdir(parents=True)
    shutil.copy(path, place)
    unpack(place)
    return place.name


@pytest.mark.slow
def test_a_pet_is_denoised_with_its_standard_deviation_and_its_upload_removed(tmp_path, weights):
    person, results = Demographics("F", 60, 1.65, 66), tmp_path / "results"
    subject = make_subject(person, seed=1, voxel_mm=20.0)
    write_study(tmp_path / "patient", "p1", subject, person, 1)
    write_nifti(tmp_path / "low.nii.gz", Volume(subject.suv.voxels.astype(np.float32), subject.suv.affine))
    (tmp_path / "flat").mkdir()
    for number, path in enumerate(tmp_path.glob("patient/**/*.dcm")):
        shutil.copy(path, tmp_path / "flat" / f"{number}.dcm")
    series = Path(shutil.make_archive(tmp_path / "series", "zip", tmp_path / "flat"))
    with working(results, weights) as jobs:
        for path in (tmp_path / "low.nii.gz", series):
            job = jobs.add("denoise", dict(upload=given(results, path), dose=0.1, samples=2))
            job = wait(jobs, job, *ENDED)
            assert (job.state, job.error) == ("done", "")
            folder = results / "studies" / job.made
            std = read_nifti(folder / "SUV_std.nii.gz").voxels
            assert read_nifti(folder / "input.nii.gz").shape == std.shape
            assert std.max() > 0
            assert (folder / "dicom").exists() == (path == series)
            assert not list((results / "uploads").iterdir())
        failed = jobs.add("denoise", dict(upload=given(results, tmp_path / "low.nii.gz"), dose=2))
        failed = wait(jobs, failed, *ENDED)
        assert failed.state == "failed"
        assert "dose is 2; give the fraction of the normal dose" in failed.error


class Idle(Jobs):
    """A queue that does nothing."""

    def _work(self):
        pass


def test_the_queue_is_bounded_and_kept(tmp_path, weights, monkeypatch):
    monkeypatch.setattr(jobs_module, "LONGEST_QUEUE", 2)
    jobs = Idle(tmp_path, weights)
    first, second = jobs.add("generate", WOMAN), jobs.add("generate", WOMAN)
    with pytest.raises(InputError, match="2 jobs are waiting. Wait for one, or cancel one."):
        jobs.add("generate", WOMAN)
    jobs.cancel(first.id)
    jobs.cancel(first.id)
    with pytest.raises(InputError, match="no such job"):
        jobs.cancel("x")
    (tmp_path / "uploads" / "orphan").mkdir()
    again = Idle(tmp_path, weights)
    assert [(job["id"], job["state"]) for job in again.listed()] == [(second.id, "queued"), (first.id, "cancelled")]
    assert not list((tmp_path / "uploads").iterdir())
    assert json.loads((tmp_path / "jobs" / f"{second.id}.json").read_text())["values"]["age"] == 60


def test_an_upload_stays_until_its_last_job_has_ended(tmp_path, weights):
    jobs = Idle(tmp_path, weights)
    place = tmp_path / "uploads" / UPLOAD
    place.mkdir()
    (place / "low.nii").write_bytes(b"1")
    one, two = (jobs.add("denoise", dict(upload=UPLOAD, dose=0.1)) for _ in range(2))
    jobs.cancel(one.id)
    assert place.exists()
    jobs.cancel(two.id)
    assert not place.exists()


@pytest.mark.parametrize("values", [dict(dose=""), dict(dose=0.1, seed=-1), dict(dose=0.1, sex="F")])
def test_an_upload_whose_form_is_refused_is_removed(tmp_path, weights, values):
    jobs = Idle(tmp_path, weights)
    place = tmp_path / "uploads" / UPLOAD
    place.mkdir()
    (place / "low.nii").write_bytes(b"1")
    with pytest.raises(InputError):
        jobs.add("denoise", dict(values, upload=UPLOAD))
    assert not place.exists()
    assert not jobs.jobs
    with pytest.raises(InputError):  # an id that is a path removes nothing
        jobs.add("denoise", dict(values, upload="../jobs"))
    assert (tmp_path / "jobs").is_dir()


KILLED = """
import os, sys
from totalgen.data.files import atomic
with atomic(sys.argv[1]) as part:
    part.mkdir()
    part.joinpath("input.nii.gz").write_bytes(b"a patient")
    os._exit(9)
"""


def test_what_a_killed_process_left_goes_with_its_job_or_the_next_server_and_results_stay(tmp_path, weights):
    jobs = Idle(tmp_path, weights)
    (tmp_path / "uploads" / UPLOAD).mkdir()
    (tmp_path / "uploads" / UPLOAD / "low.nii").write_bytes(b"1")
    image, body = jobs.add("denoise", dict(upload=UPLOAD, dose=0.1)), jobs.add("generate", WOMAN)
    (tmp_path / "studies" / "edm" / "another").mkdir(parents=True)

    def kill():
        for name in (f"{image.id}/low", "edm/woman"):
            subprocess.run([sys.executable, "-c", KILLED, tmp_path / "studies" / name])
        assert len(list(tmp_path.rglob("input.nii.gz"))) == 2

    kill()
    for job in (image, body):
        job.state = "running"
        jobs._keep(job)
    again = Idle(tmp_path, weights)
    assert not list(tmp_path.rglob("input.nii.gz"))
    kill()
    for job in (image, body):
        again.cancel(job.id)
    assert [path.name for path in (tmp_path / "studies").rglob("*")] == ["edm", "another"]
    (tmp_path / "studies" / image.id).mkdir()  # as servers left it before
    Idle(tmp_path, weights)
    assert not (tmp_path / "studies" / image.id).exists()
    again.jobs[image.id].made = f"{image.id}/low"
    (tmp_path / "studies" / image.id).mkdir()
    again._keep(again.jobs[image.id])
    Idle(tmp_path, weights)
    assert (tmp_path / "studies" / image.id).exists()


def test_a_stray_file_among_the_uploads_is_removed(tmp_path, weights):
    Idle(tmp_path, weights)
    (tmp_path / "uploads" / ".DS_Store").write_text("of a Mac")
    assert Idle(tmp_path, weights).jobs == {}
    assert not list((tmp_path / "uploads").iterdir())


@pytest.mark.parametrize("text", ["{", "{}", '{"id": "a", "kind": "generate", "values": null}', '{"shape": 1}'])
def test_a_damaged_job_file_is_named_with_its_cure(tmp_path, weights, text):
    Idle(tmp_path, weights)
    (tmp_path / "jobs" / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"jobs/a\.json: (is no JSON|holds no job) \(.*\)\. Remove or restore it\.$"):
        Idle(tmp_path, weights)


def test_two_pages_do_not_share_a_folder(tmp_path, weights, run_script):
    (tmp_path / "results").mkdir()
    with locked(tmp_path / "results", "the page"):
        command = ("2_Tests/app.py", "--outdir", tmp_path / "results", "--port", 0, "--weights", weights)
        process = run_script(*command)
    assert process.returncode == 2
    assert "the page is at work there" in process.stderr


def test_a_job_that_cannot_be_started_does_not_stop_the_queue(tmp_path, weights):
    with working(tmp_path, weights) as jobs:
        with jobs.changed:  # the worker waits until both are there
            first, second = jobs.add("generate", WOMAN), jobs.add("generate", WOMAN)
            for job in (first, second):
                (tmp_path / "jobs" / f"{job.id}.log").mkdir()
        for job in (first, second):
            assert "Is a directory. It is a folder" in wait(jobs, job, *ENDED).error
            kept = json.loads((tmp_path / "jobs" / f"{job.id}.json").read_text())
            assert kept["state"] == "failed"  # and is not begun again by the next server


def test_a_report_of_the_cohort_is_linked_where_it_was_written(tmp_path, weights):
    jobs = Idle(tmp_path, weights)
    job = jobs.add("generate", WOMAN)
    assert not jobs.listed()[0]["report"]
    job.made = "edm/woman"
    assert not jobs.listed()[0]["report"]
    (tmp_path / "studies" / "edm" / "report").mkdir(parents=True)
    (tmp_path / "studies" / "edm" / "report" / "report.html").write_text("<!doctype html>")
    assert jobs.listed()[0]["report"]

"""The queue of the page: one job at a time, each in a process of its own, kept on disk so that a killed server goes on.

<results>/jobs/<id>.json holds a job, <id>.log what its process wrote besides, studies/ the results, uploads/ the files
that were given; they are removed when their job has ended, and so is all that a job without a result has written.
"""

import contextlib
import dataclasses
import json
import secrets
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from totalgen.app.uploads import is_upload
from totalgen.app.work import outdir_of, plan
from totalgen.data.files import atomic, error_text, sweep
from totalgen.data.text_files import read_json
from totalgen.errors import InputError

LONGEST_QUEUE = 20
STOP_S = 5.0  # after which a process that does not end is killed
REMOVE = "Remove or restore it."  # a file of a job
ENDED = ("done", "failed", "cancelled")


@dataclass
class Job:
    """What was asked for, and how far it is. state: queued, running or one of ENDED;  progress: of work.follow;
    made: <cohort>/<study> below studies/;  doubts: in words;  seconds: from its start to its end."""

    id: str
    kind: str
    values: dict[str, Any]
    state: str = "queued"
    created: float = 0.0
    seconds: float = 0.0
    progress: dict[str, Any] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    made: str = ""
    error: str = ""


def read_job(path: Path) -> Job:
    """The job that a file holds. Raises InputError for anything else."""
    try:
        job = Job(**read_json(path, REMOVE))
    except TypeError as error:
        raise InputError(f"{path}: holds no job ({str(error).removeprefix('Job.__init__() ')}). {REMOVE}") from None
    if not isinstance(job.values, dict):
        raise InputError(f"{path}: holds no job (values is a {type(job.values).__name__}). {REMOVE}")
    return job


class Jobs:
    """The jobs of a results folder, the oldest first, and the thread that does them one after the other."""

    def __init__(self, results: Path, weights: Path):
        self.results, self.weights = results.resolve(), weights.resolve()
        for name in ("jobs", "studies", "uploads"):
            (self.results / name).mkdir(parents=True, exist_ok=True)
        self.changed = threading.Condition(threading.RLock())
        self.process: subprocess.Popen | None = None
        self.closing = False
        found = [read_job(path) for path in (self.results / "jobs").glob("*.json")]
        self.jobs = {job.id: job for job in sorted(found, key=lambda job: job.created)}
        for job in self.jobs.values():
            if job.state == "running":  # its server was killed: what is done is found again
                job.state, job.progress, job.doubts = "queued", {}, []
            self._clear(job)
        waiting = {job.values.get("upload") for job in self.jobs.values() if job.state not in ENDED}
        for upload in (self.results / "uploads").iterdir():
            if not upload.is_dir():  # such as .DS_Store
                upload.unlink()
            elif upload.name not in waiting:
                shutil.rmtree(upload)
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def add(self, kind: str, values: dict[str, Any]) -> Job:
        """Put a job at the end of the queue. Raises InputError for what no job can be made of."""
        job = Job(secrets.token_hex(8), kind, values, created=time.time())
        try:
            job.values = plan(vars(job), self.results, self.weights).values
            with self.changed:
                if sum(each.state == "queued" for each in self.jobs.values()) >= LONGEST_QUEUE:
                    raise InputError(f"{LONGEST_QUEUE} jobs are waiting. Wait for one, or cancel one.")
                self._keep(job)
                self.jobs[job.id] = job
                self.changed.notify_all()
        except Exception:
            self._discard(values.get("upload") if isinstance(values, dict) else None)  # it comes again with the form
            raise
        return job

    def cancel(self, identity: str) -> None:
        """Take a job out of the queue, or end its process. Nothing happens to one that has ended."""
        with self.changed:
            job = self.jobs.get(identity)
            if job is None:
                raise InputError("there is no such job. Load the page again.")
            if job.state == "queued":
                self._end(job, "cancelled")
            elif job.state == "running":
                job.state = "cancelled"  # _work sees it when the process has ended
                self._stop()

    def listed(self) -> list[dict[str, Any]]:
        """All jobs as plain values, the newest first, with the names of the ``files`` of their study and whether
        there is a ``report`` of their cohort."""
        with self.changed:
            return [
                dataclasses.asdict(job) | dict(files=self._files(job), report=self._has_report(job))
                for job in reversed(self.jobs.values())
            ]

    def close(self) -> None:
        """End the process of the running job, which is queued again by the next server, and the thread."""
        with self.changed:
            self.closing = True
            self._stop()
            self.changed.notify_all()
        self.thread.join()

    def _work(self):
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.closing or self._next() is not None)
                if self.closing:
                    return
                job = self._next()
            try:
                self._do(job)
            except OSError as error:  # such as a full disk: the next job may be smaller
                with self.changed, contextlib.suppress(OSError):  # what cannot be kept is known here at least
                    job.error = error_text(error)
                    self._end(job, "failed")

    def _do(self, job):
        """Start the process of a job, unless it has been cancelled, and follow it to its end."""
        with self.changed:
            if self.closing or job.state != "queued":
                return
            job.state = "running"
            self._keep(job)
            started = time.monotonic()
            log = (self.results / "jobs" / f"{job.id}.log").open("wb")
            command = [sys.executable, "-m", "totalgen.app.work", str(self.results), str(self.weights), job.id]
            self.process = process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, encoding="utf-8"
            )
        with log, process:
            self._follow(job, process)
        with self.changed:
            self.process = None
            job.seconds = time.monotonic() - started
            if self.closing:
                self._clear(job)
                return
            if job.state == "running" and not (job.made or job.error):
                job.error = "its process ended before it was done: too little memory? See the .log file in jobs/."
            self._end(job, "cancelled" if job.state == "cancelled" else "done" if job.made else "failed")

    def _next(self):
        return next((job for job in self.jobs.values() if job.state == "queued"), None)

    def _follow(self, job, process):
        """Take over what a process says until it ends."""
        for text in process.stdout:
            line = json.loads(text)
            with self.changed:
                if "share" in line:
                    job.progress = line
                elif "doubt" in line:
                    job.doubts = [*job.doubts, line["doubt"]]
                else:
                    job.made, job.error = line.get("made", job.made), line.get("error", job.error)
                self.changed.notify_all()

    def _has_report(self, job):
        """Whether 3_compare_cohorts.py --outdir <studies of the cohort>/report was run."""
        return bool(job.made) and (self.results / "studies" / job.made).parent.joinpath("report/report.html").is_file()

    def _files(self, job):
        folder = self.results / "studies" / job.made
        return sorted(path.name for path in folder.iterdir()) if job.made and folder.is_dir() else []

    def _stop(self):
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def _end(self, job, state):
        job.state = state
        self.changed.notify_all()
        self._discard(job.values.get("upload"))
        self._clear(job)
        self._keep(job)

    def _clear(self, job):
        """Remove what the ended process of a job without a result has left: the image of a patient may be in it."""
        if job.made:
            return
        folder = outdir_of(vars(job), self.results / "studies")
        sweep(folder)
        if job.state in ENDED and folder.name == job.id:
            shutil.rmtree(folder, ignore_errors=True)

    def _discard(self, upload):
        """Remove an upload that no job waits for."""
        with self.changed:
            still = {each.values.get("upload") for each in self.jobs.values() if each.state not in ENDED}
            if is_upload(upload) and upload not in still:
                shutil.rmtree(self.results / "uploads" / upload, ignore_errors=True)

    def _keep(self, job):
        with atomic(self.results / "jobs" / f"{job.id}.json") as part:
            part.write_text(json.dumps(dataclasses.asdict(job)))

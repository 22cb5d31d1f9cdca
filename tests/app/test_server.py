"""The page answers itself and nobody else: hostile requests on a real loopback socket are refused."""

import asyncio
import errno
import http.client
import io
import json
import os
import shutil
import socket
import tempfile
import urllib.request
import zipfile
from urllib.parse import quote

import pytest
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from totalgen.app.server import LARGEST_FORM, OwnOrigin, zipped

WOMAN = dict(sex="F", age=60, height_cm=165, weight_kg=66)
FORM = json.dumps(dict(kind="generate", values=WOMAN)).encode()
DENOISE = json.dumps(dict(kind="denoise", values=dict(upload="../..", dose=0.1))).encode()
JSON = {"Content-Type": "application/json"}


def answer(port, method, path, body=None, headers=()):
    """(status, headers, text) of one request, whose path and headers are sent as they are."""
    headers = dict(headers)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    found = response.status, dict(response.getheaders()), response.read().decode(errors="replace")
    connection.close()
    return found


@pytest.fixture(scope="module")
def quiet(served):
    """The page without a worker: what is asked for stays in the queue."""
    results, port, jobs = served
    with jobs.changed:
        jobs.closing = True
        jobs.changed.notify()
    jobs.thread.join()
    secret = results.parent / "secret.txt"
    secret.write_text("secret")
    (results / "studies" / "edm" / "one").mkdir(parents=True)
    (results / "studies" / "edm" / "one" / "SUV.nii.gz").write_bytes(b"0123456789")
    shutil.copytree(results / "studies" / "edm" / "one", results / "studies" / "edm" / ".one")
    (results / "studies" / "edm" / ".salt").write_text("secret")
    (results / "studies" / "link").symlink_to(results.parent)
    return results, port, jobs


HOSTILE = {
    # name: (method, path, body, headers, status, words of the answer)
    "another host": ("GET", "/", None, {"Host": "evil.example"}, 403, "the Host is not this page"),
    "rebound host": ("GET", "/api/jobs", None, {"Host": "evil.example:{port}"}, 403, "the Host is not this page"),
    "another port": ("GET", "/api/jobs", None, {"Host": "127.0.0.1:1"}, 403, "the Host is not this page"),
    "any address": ("GET", "/api/jobs", None, {"Host": "0.0.0.0:{port}"}, 403, "the Host is not this page"),
    "another origin": ("POST", "/api/jobs", FORM, JSON | {"Origin": "http://evil.example"}, 403, "from another site"),
    "no origin": ("POST", "/api/jobs", FORM, JSON | {"Origin": "null"}, 403, "from another site"),
    "origin of another port": ("POST", "/api/jobs", FORM, JSON | {"Origin": "http://127.0.0.1:1"}, 403, "another site"),
    "cross-site without origin": ("POST", "/api/jobs", FORM, JSON | {"Sec-Fetch-Site": "cross-site"}, 403, "another"),
    "form of another site": ("POST", "/api/jobs", FORM, {"Content-Type": "text/plain"}, 400, "no application/json"),
    "upload of another site": ("POST", "/api/uploads?name=a.nii", b"1", {"Origin": "http://evil.example"}, 403, "site"),
    "cancel of another site": ("DELETE", "/api/jobs/1", None, {"Origin": "http://evil.example"}, 403, "another site"),
    "way up": ("GET", "/files/../../secret.txt", None, {}, 404, ""),
    "encoded way up": ("GET", "/files/%2e%2e/%2e%2e/secret.txt", None, {}, 404, ""),
    "twice encoded way up": ("GET", "/files/%252e%252e/%252e%252e/secret.txt", None, {}, 404, ""),
    "way up with backslashes": ("GET", "/files/..%5c..%5csecret.txt", None, {}, 404, ""),
    "absolute path": ("GET", "/files//etc/passwd", None, {}, 404, ""),
    "link out of the folder": ("GET", "/files/link/secret.txt", None, {}, 404, ""),
    "jobs are not files": ("GET", "/files/../jobs/", None, {}, 404, ""),
    "code of the server": ("GET", "/static/../server.py", None, {}, 404, ""),
    "salt of a folder": ("GET", "/files/edm/.salt", None, {}, 404, ""),
    "file in a hidden folder": ("GET", "/files/edm/.one/SUV.nii.gz", None, {}, 404, ""),
    "archive of a hidden folder": ("GET", "/api/studies/edm/.one/nifti.zip", None, {}, 404, ""),
    "archive of a long name": ("GET", f"/api/studies/{'a' * 300}/one/nifti.zip", None, {}, 404, ""),
    "archive of a zero byte": ("GET", "/api/studies/a%00b/one/nifti.zip", None, {}, 404, ""),
    "long upload": ("POST", "/api/jobs", DENOISE.replace(b"../..", b"a" * 300), JSON, 400, "no such upload"),
    "archive of a folder above": ("GET", "/api/studies/%2e%2e/%2e%2e/nifti.zip", None, {}, 404, ""),
    "archive through a link": ("GET", "/api/studies/link/results/nifti.zip", None, {}, 404, ""),
    "archive of another kind": ("GET", "/api/studies/edm/one/all.zip", None, {}, 404, ""),
    "large form": ("POST", "/api/jobs", b" " * (LARGEST_FORM + 1), JSON, 400, "the form is larger than"),
    "no JSON": ("POST", "/api/jobs", b"{", JSON, 400, "no JSON object"),
    "deep JSON": ("POST", "/api/jobs", b"[" * 60000, JSON, 400, "no JSON object"),
    "list": ("POST", "/api/jobs", b"[]", JSON, 400, "no JSON object"),
    "unknown kind": ("POST", "/api/jobs", b'{"kind": "../x", "values": {}}', JSON, 400, "Known: generate"),
    "no values": ("POST", "/api/jobs", b'{"kind": "generate"}', JSON, 400, "values is no object"),
    "half a character": ("POST", "/api/jobs", FORM.replace(b'"F"', b'"\\ud800"'), JSON, 400, 'sex is \\"\\ud800'),
    "half as a kind": ("POST", "/api/jobs", rb'{"kind": "\udfff", "values": 1}', JSON, 400, "Known: generate"),
    "half as a field": ("POST", "/api/jobs", FORM.replace(b"age", rb"\ud800"), JSON, 400, "Known: "),
    "upload as a path": ("POST", "/api/jobs", DENOISE, JSON, 400, "no such upload"),
    "name of an upload as a path": ("POST", "/api/uploads?name=x%2f..%2fa.nii", b"1", {}, 400, "a path separator"),
    "program as an upload": ("POST", "/api/uploads?name=a.sh", b"1", {}, 400, "does not end in .nii"),
    "job of nobody": ("DELETE", "/api/jobs/..%2fx", None, {}, 404, ""),
    "another method": ("PUT", "/api/jobs", FORM, JSON, 405, ""),
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "words"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_request_is_refused(quiet, method, path, body, headers, status, words):
    results, port, jobs = quiet
    before = jobs.listed()
    sent = {name: value.replace("{port}", str(port)) for name, value in headers.items()}
    found, _, text = answer(port, method, path, body, sent)
    print(method, path, sent, "→", found, text[:100])
    assert found == status
    assert words in text
    assert "secret" not in text
    assert "Traceback" not in text
    assert jobs.listed() == before
    assert not list((results / "uploads").iterdir())


def test_two_hosts_are_refused(quiet):
    _, port, _ = quiet
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.example\r\n\r\n".encode())
        assert connection.recv(1000).split()[1] in (b"400", b"403")


def test_a_browser_leaves_the_usual_port_out():
    named = {port: OwnOrigin(None, port).refusal("GET", Headers({"Host": "localhost"})) for port in (80, 8000)}
    assert named[80] == ""
    assert "the Host is not this page" in named[8000]


def test_it_listens_on_the_loopback_interface_only(quiet):
    _, port, _ = quiet
    with socket.socket() as other:
        other.bind(("127.0.0.2", port))  # taken, were it bound to every address


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_page_may_be_read_and_used_under_its_own_names(quiet, host):
    _, port, jobs = quiet
    own = {"Host": f"{host}:{port}", "Origin": f"http://{host}:{port}", "Sec-Fetch-Site": "same-origin"}
    status, headers, text = answer(port, "GET", "/", headers=own)
    assert status == 200
    assert "synthetic, trained on phantoms, not a patient" in text
    assert "http" not in headers["content-security-policy"]
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    status, _, text = answer(port, "POST", "/api/jobs", FORM, own | JSON)
    assert status == 201
    job = jobs.listed()[0]
    assert (job["id"], job["state"]) == (json.loads(text)["id"], "queued")
    assert answer(port, "DELETE", f"/api/jobs/{job['id']}", headers=own)[0] == 204
    assert jobs.listed()[0]["state"] == "cancelled"


def test_files_of_studies_can_be_fetched_whole_in_part_and_as_an_archive(quiet):
    _, port, _ = quiet
    assert answer(port, "GET", "/files/edm/one/SUV.nii.gz")[2] == "0123456789"
    assert answer(port, "GET", "/files/edm/one/SUV.nii.gz", headers={"Range": "bytes=2-3"})[2] == "23"
    status, headers, _ = answer(port, "GET", "/api/studies/edm/one/nifti.zip")
    assert status == 200
    assert 'filename="one-nifti.zip"' in headers["content-disposition"]


@pytest.mark.parametrize(
    ("name", "method", "path", "body", "headers"),
    [
        ("receive", "POST", "/api/uploads?name=a.nii", b"1", {}),
        ("unpack", "POST", "/api/uploads?name=a.nii", b"1", {}),
        ("zipped", "GET", "/api/studies/edm/one/nifti.zip", None, {}),
        ("Jobs._keep", "POST", "/api/jobs", FORM, JSON),
    ],
)
def test_a_full_disk_is_named_with_its_cure(quiet, monkeypatch, name, method, path, body, headers):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    results, port, jobs = quiet
    monkeypatch.setattr(f"totalgen.app.server.{name}", full)
    status, _, text = answer(port, method, path, body, headers)
    assert status == 400
    assert f"{results}: No space left on device. Free some space on this disk of the server, and try again." in text
    shutil.rmtree(results / "uploads")
    (results / "uploads").mkdir()


@pytest.mark.parametrize("asked", ["bytes=2-3", "bytes=9999999-", "nonsense", "bytes=5-2"])
def test_an_archive_comes_whole_and_leaves_nothing(quiet, tmp_path, monkeypatch, asked):
    results, port, _ = quiet
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = sorted(results.rglob("*"))
    address = f"http://127.0.0.1:{port}/api/studies/edm/one/nifti.zip"
    with urllib.request.urlopen(urllib.request.Request(address, headers={"Range": asked}), timeout=60) as response:
        assert response.status == 200
        content = response.read()
        assert int(response.headers["content-length"]) == len(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("one/SUV.nii.gz") == b"0123456789"
    assert sorted(results.rglob("*")) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["Müller", 'a "b"'])
def test_an_archive_has_the_name_of_its_study_and_is_closed_when_its_reader_leaves(tmp_path, name):
    (tmp_path / "studies" / "edm" / name).mkdir(parents=True)
    (tmp_path / "studies" / "edm" / name / "SUV.nii.gz").write_bytes(b"0123456789")
    response = zipped(tmp_path / "studies", "edm", name, "nifti")
    assert quote(f"{name}-nifti.zip") in response.headers["content-disposition"]
    assert [path.name for path in tmp_path.iterdir()] == ["studies"]

    async def gone(message):
        raise OSError("the reader has left")

    with pytest.raises(ClientDisconnect):
        asyncio.run(response(dict(type="http", asgi=dict(spec_version="2.4")), None, gone))
    assert response.file.closed

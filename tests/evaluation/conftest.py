import pytest

from totalgen.evaluation import figures


@pytest.fixture
def tables_only(monkeypatch):
    """Without the pictures, which take seconds, for tests that read only tables."""

    def pixel(path, *arguments, **options):
        path.write_bytes(b"a picture")
        return 1

    for name in ("violins", "differences", "bmi_distributions", "against_demographics", "bland_altman"):
        monkeypatch.setattr(figures, name, pixel)

"""Tables and JSON as people save them are read or refused in one line that says how to save them."""

import json
import os

import pandas as pd
import pytest

from totalgen.data.demographics import check_people, read_cohort
from totalgen.data.subjects import read_table
from totalgen.data.text_files import read_csv, read_json, read_json_lines, read_text
from totalgen.errors import InputError

HEAD = "subject,sex,age_years,height_m,weight_kg,split\n"
ROWS = "p1,F,60,1.65,66,test\np2,M,60,1.80,80,test\n"
READERS = {"cohort": read_cohort, "table": read_table, "text": read_text, "any": read_csv}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    "raw",
    [
        (HEAD + ROWS).encode(),
        ("\ufeff" + HEAD + ROWS).encode(),
        (HEAD + ROWS).replace("\n", "\r\n").encode(),
        (HEAD + ROWS + ",,,,,\n\n , ,,,,\n").encode(),
        (HEAD.replace(",", ", ") + ROWS).encode(),
    ],
    ids=["plain", "byte order mark", "CRLF", "blank rows", "blanks after commas"],
)
def test_tables_of_any_editor_are_one_table(tmp_path, reader, raw):
    (tmp_path / "t.csv").write_bytes(raw)
    table = reader(tmp_path / "t.csv")
    assert list(table["subject"]) == ["p1", "p2"]
    assert list(table.columns) == HEAD.strip().split(",")
    assert [float(v) for v in table["age_years"]] == [60, 60]


BAD_TABLES = {
    "empty": (b"", "is empty"),
    "blank": (b"\n\n", "is empty"),
    "utf16": ((HEAD + ROWS).encode("utf-16"), "UTF-16"),
    "utf16 without a mark": ((HEAD + ROWS).encode("utf-16-le"), "UTF-16"),
    "cp1252": ((HEAD.strip() + ",remark\np1,F,60,1.65,66,test,M\u00fcnchen\n").encode("cp1252"), "line 2 is not UTF-8"),
    "xlsx": (b"PK\x03\x04" + bytes(range(256)) * 4, "a spreadsheet"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "a picture"),
    "semicolons": ((HEAD + ROWS).replace(",", ";").encode(), "separated by semicolons"),
    "tabs": ((HEAD + ROWS).replace(",", "\t").encode(), "separated by tabs"),
    "a row too long": ((HEAD + ROWS + "p3,F,60,1.65,66,test,more\n").encode(), "line 4 has 7 cells, the first 6"),
    "a row too short": ((HEAD + "p1,F,60\n").encode(), "line 2 has 3 cells, the first 6"),
    "decimal commas": ((HEAD + "p1,F,60,1,65,66,test\n").encode(), "line 2 has 7 cells, the first 6"),
    "two columns": ((HEAD.strip() + ",sex\np1,F,60,1.65,66,test,F\n").encode(), "two columns sex"),
    "an open quote": ((HEAD + '"p1,F,60,1.65,66,test\n').encode(), "cannot be read as a table"),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("name", BAD_TABLES)
def test_what_is_no_table_is_refused_with_its_cure(tmp_path, reader, name):
    raw, words = BAD_TABLES[name]
    (tmp_path / "t.csv").write_bytes(raw)
    with pytest.raises(InputError, match=f"t.csv: .*{words}") as caught:
        reader(tmp_path / "t.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_folder_is_no_table(tmp_path, reader):
    with pytest.raises(InputError, match="is a folder"):
        reader(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(InputError, match="is a pipe or device"):
        read_csv(tmp_path / "t.csv")


@pytest.mark.parametrize(("cell", "column"), [("old", "age_years"), ("1.65 m", "height_m"), ("?", "weight_kg")])
def test_a_cell_that_is_no_number_is_named(tmp_path, cell, column):
    row = pd.DataFrame([dict(subject="p1", sex="F", age_years="60", height_m="1.65", weight_kg="66", split="test")])
    row[column] = cell
    row.to_csv(tmp_path / "t.csv", index=False)
    words = cell.replace("?", "[?]")
    with pytest.raises(InputError, match=rf'row 2 \(p1\): {column} is "{words}", which is no number'):
        read_cohort(tmp_path / "t.csv")


WRONG_ROWS = {  # row → words
    "p2,F,old,1.65,66,test": 'row 4 \\(p2\\): age_years is "old"',
    "p2,F,60,165,66,test": "row 4, subject p2: height is 165 m",
    "p1,F,60,1.65,66,test": "row 4: subject 'p1' is in row 2 already",
}


@pytest.mark.parametrize("blank", ["", ",,,,,", "  , ,,,,"])
@pytest.mark.parametrize("row", WRONG_ROWS)
def test_blank_rows_count_where_a_row_is_named(tmp_path, blank, row):
    path = tmp_path / "t.csv"
    path.write_text(f"{HEAD}p1,F,60,1.65,66,test\n{blank}\n{row}\n")
    with pytest.raises(InputError, match=WRONG_ROWS[row]):
        check_people(read_cohort(path), path)


@pytest.mark.parametrize("raw", [b"", b"{", b"[1, 2]", b"\xff\xfe{}", b"\x89PNG", b"{\"a\": 1} x"])
def test_what_is_no_json_object_is_refused_by_name(tmp_path, raw):
    (tmp_path / "a.json").write_bytes(raw)
    with pytest.raises(InputError, match=r"a.json: .* Restore the file\."):
        read_json(tmp_path / "a.json")


def test_a_log_that_was_cut_loses_its_last_line_and_a_damaged_one_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(dict(step=1)) + "\n" + '{"step": 2')
    assert read_json_lines(path) == [dict(step=1)]
    path.write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(InputError, match="log.jsonl: line 2 is no JSON object"):
        read_json_lines(path)

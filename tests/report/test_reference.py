from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from oodray.config import RunConfig
from oodray.report.reference import BEGIN, END, settings_table, with_settings_table

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference.md"


def test_the_document_is_in_step() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == with_settings_table(text), "run `make reference`"


def test_every_setting_has_a_row() -> None:
    names = [row.split("|")[1].strip() for row in settings_table().splitlines()]
    assert names[2:] == [f"`{field.name}`" for field in fields(RunConfig)]


def test_a_row_says_what_its_declaration_says() -> None:
    rows = settings_table().splitlines()
    assert "| `k` | `--k` | a whole number from 1 to 255 | `5` | yes | Clusters per image. |" in rows
    [switch] = [row for row in rows if row.startswith("| `normalize_features`")]
    assert "| `--normalize-features` / `--raw-features` | true or false | `false` | yes |" in switch
    [fewest] = [row for row in rows if row.startswith("| `fewest_workers`")]
    assert fewest.split("|")[2].strip() == ""


def test_every_row_has_every_cell() -> None:
    assert {row.replace("\\|", "").count("|") for row in settings_table().splitlines()} == {7}


def test_what_stands_around_the_table_is_kept() -> None:
    text = f"before\n{BEGIN}an old table\n{END}after\n"
    made = with_settings_table(text)
    assert made.startswith(f"before\n{BEGIN}")
    assert made.endswith(f"{END}after\n")
    assert "an old table" not in made
    assert with_settings_table(made) == made


@pytest.mark.parametrize("text", ["", BEGIN, END])
def test_a_document_without_the_marks_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the marks of the table are not there"):
        with_settings_table(text)

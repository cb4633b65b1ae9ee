"""Reading the text files of a dataset folder: ``labels.csv``, JSON Lines and ``dataset.yaml``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gsco.errors import DatasetError


def read_text(path: Path) -> str:
    """A UTF-8 file's text (a byte order mark is dropped); DatasetError names the file."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DatasetError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"is not UTF-8 text (byte {error.start})", where=str(path), remedy="Save it as UTF-8."
        ) from None


def read_csv(path: Path, required: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Rows of a CSV file as (line number, column → stripped text); empty lines are left out.

    Columns may be parted by comma, semicolon or tab; column names are taken in lower case.

    Raises:
        DatasetError: not text, a required column missing, a column twice, or a row of another length.
    """
    where = str(path)
    text = read_text(path)
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    columns: list[str] | None = None
    try:
        line = 1
        for cells in reader:
            start, line = line, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = [cell.strip().lower() for cell in cells]
                _check_columns(columns, required, where)
                continue
            if len(cells) != len(columns):
                raise DatasetError(
                    f"row {start} has {len(cells)} cells, the header has {len(columns)}", where=where
                )
            rows.append((start, {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}))
    except csv.Error as error:
        raise DatasetError(f"row {reader.line_num} is not CSV ({error})", where=where) from None
    if columns is None:
        raise DatasetError("is empty", where=where, remedy=f"Its first line is {','.join(required)}.")
    return rows


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSON Lines file as (line number, object); DatasetError names file and line."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"line {number} is not JSON ({error})", where=str(path)) from None
        if not isinstance(value, dict):
            raise DatasetError(f"line {number} is not an object in braces", where=str(path))
        yield number, value


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, {} where there is no file; DatasetError where it is no mapping."""
    if not path.exists():
        return {}
    import yaml

    text = read_text(path)
    try:
        value = yaml.safe_load(text)
        # Option keys are text as it stands: YAML would read `no` as false and `01` as 1.
        literal = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 (makes text, lists, mappings only)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DatasetError(f"is not YAML ({' '.join(str(error).split())})", where=str(path)) from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DatasetError("must hold keys and values, such as 'task: diagnosis'", where=str(path))
    about = {str(key): entry for key, entry in value.items()}
    if about.get("options") is not None:
        about["options"] = literal["options"]
    return about


def _check_columns(columns: list[str], required: tuple[str, ...], where: str) -> None:
    missing = [name for name in required if name not in columns]
    if missing:
        raise DatasetError(
            f"has no column {' and '.join(missing)} (it has {', '.join(columns)})",
            where=where,
            remedy=f"Name the columns {','.join(required)} in the first line.",
        )
    double = next((name for name in columns if columns.count(name) > 1), None)
    if double is not None:
        raise DatasetError(f"has the column {double!r} twice", where=where)

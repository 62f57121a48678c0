"""Tables as `quantal train` reads and encodes them, without Keras."""

import gzip
import io
import json
import sys

import numpy as np
import pandas
import pytest

from quantal._command.columns import (
    BUCKETS,
    MOST_VALUES,
    CategoryColumn,
    DateColumn,
    NumberColumn,
    date_format,
)
from quantal._command.datasets import Wanted, read_dataset
from quantal._command.encoding import TableEncoding, learn_columns, useful_columns
from quantal._command.errors import Unfit, Unreadable
from quantal._command.reading import dialect_of, read
from quantal._models.feature_plan import Feature, FeaturePlan

pytestmark = pytest.mark.without_keras

ROWS = np.arange(40)


def encoded(table):
    """An encoding learned from all rows of a table."""
    columns = learn_columns("table", table, np.arange(len(table)))
    return TableEncoding(columns, "target", None)


def features(table, encoding=None):
    """A frame of the features of a table, by their names."""
    encoding = encoding or encoded(table)
    rows = encoding.encode("table", table)
    names = [feature.name for feature in encoding.plan.features]
    return pandas.DataFrame(encoding.plan.expand(rows), columns=names)


# Reading


@pytest.mark.parametrize(
    ("text", "separator", "decimal"),
    [
        ("a,b\n1,2\n3,4\n", ",", "."),
        ("a;b\n1.5;2\n3;4\n", ";", "."),
        ("a;b;c\n1,5;2,5;3,5\n3;4;5\n", ";", ","),
        ("a\tb\n1,5\t2\n", "\t", ","),
        ("a|b\n1|2\n", "|", "."),
        ('a,b\n"x;y",2\n"z;w",4\n', ",", "."),
        ('a;b\n"x, and y";2\n"z";4\n', ";", "."),
        ("a\n1\n2\n", ",", "."),
        ("when;x\n01.02.2020;1,5\n", ";", ","),
    ],
)
def test_dialects(text, separator, decimal):
    assert dialect_of(text) == (separator, decimal)


def test_text_is_read_whatever_its_dialect_packing_and_encoding(tmp_path, monkeypatch):
    table = pandas.DataFrame({"a": [1.5, 2.25], "b": ["Zürich", "Köln"]})
    text = table.to_csv(sep=";", decimal=",", index=False)
    for name, content in {
        "utf8.csv": text.encode(),
        "mark.csv": text.encode("utf-8-sig"),
        "wide.txt": text.encode("utf-16"),
        "windows.csv": text.encode("cp1252"),
        "packed.csv.gz": gzip.compress(text.encode()),
        "tabs.tsv": table.to_csv(sep="\t", index=False).encode(),
    }.items():
        (tmp_path / name).write_bytes(content)
        pandas.testing.assert_frame_equal(read(str(tmp_path / name)), table)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    pandas.testing.assert_frame_equal(read("-"), table)


def test_entries_that_mean_missing_and_columns_that_stay_text(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("age,code\n?,007\n-,008\nNA,009\n4,010\n")
    table = read(str(path), as_text=["code"])
    assert table["age"].isna().tolist() == [True, True, True, False]
    assert table["code"].tolist() == ["007", "008", "009", "010"]


def test_what_is_no_table_is_refused(tmp_path):
    for name, content, message in [
        ("zeros.csv", b"a,b\n1,\x002\n", "bytes of zero"),
        ("uneven.csv", b"a,b\n1,2,3\n4,5,6\n", "cannot be read"),
        ("line.csv", b"no table", "no line of a header"),
        ("table.csv.gz", b"not packed", "cannot be read"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Unreadable, match=message):
            read(str(tmp_path / name))
    with pytest.raises(Unreadable, match=r"Expected one of digits.* \.csv, .* - for a text"):
        read("absent.csv")


# Columns


def test_numbers_and_their_gaps():
    table = pandas.DataFrame({"age": [1.0, np.nan, 3, 5], "is_new": [True, False, True, True]})
    got = features(table)
    assert list(got) == ["age", "age is missing", "is_new"]
    assert got["age"].tolist() == [1, 3, 3, 5]
    assert got["age is missing"].tolist() == [0, 1, 0, 0]
    assert got["is_new"].tolist() == [1, 0, 1, 1]


def test_words_and_their_gaps():
    table = pandas.DataFrame(
        {"size": ["S", "M", None, " L "], "plan": ["gold", "basic", "gold", "gold"]}
    )
    encoding = encoded(table)
    got = features(table, encoding)
    assert list(got) == ["size=L", "size=M", "size=S", "size is missing", "plan=gold"]
    assert got.to_numpy().tolist() == [
        [0, 0, 1, 0, 1],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 1, 1],
        [1, 0, 0, 0, 1],
    ]
    new = pandas.DataFrame({"plan": [None, "silver"], "size": ["XL", "S"]})
    assert features(new, encoding).to_numpy().tolist() == [[0, 0, 0, 0, 0], [0, 0, 1, 0, 0]]
    remarks = " ".join(encoding.remarks(new.assign(more=1)))
    assert "not used: more" in remarks
    assert "size holds 'XL', which was never in training" in remarks
    assert "plan holds 'silver'" in remarks
    assert "plan is missing in 1 row, and never was in training" in remarks


def test_many_words_share_features():
    words = [f"town {index % 50}" for index in range(100)] + ["town 3"] * 5
    column = CategoryColumn.learned("table", pandas.Series(words, name="town"))
    assert len(column.values) == MOST_VALUES
    assert "town 3" in column.values
    assert len(column.features(0)) == MOST_VALUES + BUCKETS
    (codes,) = column.numbers("table", pandas.Series(["town 3", "unheard of", "unheard of"]))
    assert codes[0] == 1 + column.values.index("town 3")
    # Files depend on the checksum: the same word has the same feature for ever.
    assert codes[1] == codes[2] == 1 + MOST_VALUES + 1
    (codes,) = column.numbers("table", pandas.Series([f"village {i}" for i in range(200)]))
    assert len(set(codes)) == BUCKETS
    assert column.remarks(pandas.Series(["unheard of"])) == []


@pytest.mark.parametrize(
    ("words", "format"),
    [
        (["2020-01-31", "2021-12-01"], "ISO8601"),
        (["2020-01-31 10:30:00", "2021-12-01 08:00:00"], "ISO8601"),
        (["31.01.2020", "01.12.2021"], "%d.%m.%Y"),
        (["31/01/2020", "01/12/2021"], "%d/%m/%Y"),
        (["01/31/2020", "12/01/2021"], "%m/%d/%Y"),
        (["01/02/2020", "02/01/2021"], "%m/%d/%Y"),
        (["31 Jan 2020", "1 Dec 2021"], "%d %b %Y"),
        (["2020-01-31", "soon"], None),
        (["S", "M"], None),
        (["A12", "B7"], None),
    ],
)
def test_formats_of_dates(words, format):
    assert date_format(pandas.Series(words)) == format


def test_dates():
    words = ["01.01.1970", "02.01.1970", None, "01.02.1970"]
    column = DateColumn.learned("table", pandas.Series(words, name="when"), "%d.%m.%Y")
    got = features(pandas.DataFrame({"when": words}))
    assert got["when.days"].tolist() == [0, 1, 1, 31]
    assert got["when is missing"].tolist() == [0, 0, 1, 0]
    assert got["when.month=2"].tolist() == [0, 0, 0, 1]
    assert column.parts["weekday"] == ("Thu", "Fri", "Sun")
    assert "hour" not in column.parts
    with pytest.raises(Unfit, match=r"'when' of table holds 'soon' in row 1.*like 31.12.2020"):
        column.numbers("table", pandas.Series(["soon"], name="when"))


def test_dates_of_another_format_than_in_training():
    """They are read where they leave no doubt, and it is said."""
    words = pandas.Series(["01.01.1970", "02.01.1970", "01.02.1970"], name="when")
    column = DateColumn.learned("table", words, "%d.%m.%Y")
    expected = column.numbers("table", words)
    remark = "when is written like {}, and in training like 31.12.2020: read so"
    for others, example in [
        (["1970-01-01", "1970-01-02", "1970-02-01"], "2020-12-31"),
        (["1970/01/01", "1970/01/02", "1970/02/01"], "2020-12-31"),
        (["1 Jan 1970", "2 Jan 1970", "1 Feb 1970"], "31 Dec 2020"),
    ]:
        others = pandas.Series(others, name="when")
        np.testing.assert_array_equal(column.numbers("table", others), expected)
        assert column.remarks(others) == [remark.format(example)]
    assert column.remarks(words) == []
    days = column.numbers("table", pandas.Series(["13/02/1970", "01/02/1970"], name="when"))[0]
    assert days.tolist() == [43, 31]
    for doubtful in [["01/02/1970"], ["1970-01-01", "02.01.1970"]]:
        with pytest.raises(Unfit, match="one other format that leaves no doubt"):
            column.numbers("table", pandas.Series(doubtful, name="when"))


def test_times_and_dates_of_a_type_of_their_own():
    times = pandas.Series(pandas.to_datetime(["2020-01-01 06:00", "2020-01-02 18:00"]))
    got = features(pandas.DataFrame({"when": times, "zoned": times.dt.tz_localize("UTC")}))
    assert got["when.days"].tolist() == [18262.25, 18263.75]
    # Of two values one feature says all.
    assert got["when.hour=18"].tolist() == got["zoned.hour=18"].tolist() == [0, 1]


def test_a_word_among_numbers_is_damage_and_half_of_them_are_words():
    numbers = [str(number) for number in range(39)]
    with pytest.raises(Unfit, match="'age' of table holds 'old' in row 40"):
        encoded(pandas.DataFrame({"age": [*numbers, "old"]}))
    (column,) = encoded(pandas.DataFrame({"size": ["36", "38", "M", "L"] * 5})).columns
    assert isinstance(column, CategoryColumn)
    (column,) = encoded(pandas.DataFrame({"age": ["1", "2", None, "4"]})).columns
    assert column == NumberColumn("age", True, 2.0)


@pytest.mark.parametrize(
    ("name", "entries", "reason"),
    [
        ("Unnamed: 0", ROWS, "counts the rows"),
        ("row", ROWS + 1, "counts the rows"),
        ("Unnamed: 0", (ROWS * 7) % 40, "counts the rows"),
        ("customer_id", (ROWS * 7) % 40 + 1000, "identifiers"),
        ("customerId", (ROWS * 7) % 40 + 1000, "identifiers"),
        ("name", [f"Person {row}" for row in ROWS], "40 different texts in 40 rows"),
        ("empty", [None] * 40, "is missing in every row"),
        ("same", ["x"] * 40, "is the same in every row"),
        ("price", (ROWS * 7) % 40 + 1000, None),
        ("paid", ROWS * 1.5, None),
        ("valid", ROWS % 2, None),
        ("when", pandas.date_range("2020-01-01", periods=40).astype(str), None),
        ("kind", ["a", "b"] * 20, None),
    ],
)
def test_columns_that_cannot_help_are_named_and_dropped(name, entries, reason):
    table = pandas.DataFrame({"x": ROWS * 0.5, name: entries})
    useful, remarks = useful_columns("table", table, keep=())
    assert list(useful) == (["x"] if reason else ["x", name])
    if reason:
        (remark,) = remarks
        assert remark.startswith(name)
        assert reason in remark
        assert list(useful_columns("table", table, keep=[name])[0]) == ["x", name]


# A whole table


def test_an_encoding_is_the_same_as_json():
    table = pandas.DataFrame(
        {
            "age": [1.0, np.nan, 3, 5],
            "size": ["S", "M", None, "L"],
            "when": ["2020-01-31", "2020-02-01", "2020-02-03", None],
        }
    )
    encoding = TableEncoding(encoded(table).columns, "left", ("no", "yes"))
    again = TableEncoding.from_dict(json.loads(json.dumps(encoding.to_dict())))
    assert again.plan == encoding.plan
    np.testing.assert_array_equal(again.encode("t", table), encoding.encode("t", table))
    assert FeaturePlan.from_dict(json.loads(json.dumps(encoding.plan.to_dict()))) == encoding.plan
    shuffled = table[["when", "age", "size"]]
    np.testing.assert_array_equal(encoding.encode("t", shuffled), encoding.encode("t", table))
    with pytest.raises(Unfit, match=r"t has no column 'size'\. It has age, when"):
        encoding.encode("t", table.drop(columns="size"))
    with pytest.raises(Unfit, match=r"in version 2\. Expected 1"):
        TableEncoding.from_dict({**encoding.to_dict(), "version": 2})


def test_plans_that_are_none():
    for data in (
        FeaturePlan((Feature(3, "number", 0.0, "x"),), 2).to_dict(),
        FeaturePlan((Feature(0, "square", 0.0, "x"),), 2).to_dict(),
    ):
        with pytest.raises(ValueError, match="Expected at least one, of the kinds"):
            FeaturePlan.from_dict(data)


def test_held_out_rows_teach_nothing(tmp_path):
    """Medians, words and scalings are those of the training rows."""
    random = np.random.default_rng(0)
    table = pandas.DataFrame({"x": random.normal(size=50), "y": random.normal(size=50)})
    table.to_csv(tmp_path / "table.csv", index=False)
    held_out = read_dataset(str(tmp_path / "table.csv")).held_out
    table.loc[held_out, "x"] = 1e6
    table.loc[held_out[0], "x"] = np.nan
    table.to_csv(tmp_path / "table.csv", index=False)
    dataset = read_dataset(str(tmp_path / "table.csv"))
    np.testing.assert_array_equal(dataset.held_out, held_out)
    expected = np.delete(table["x"].to_numpy(), held_out)
    assert dataset.encoding.columns == (NumberColumn("x", False, np.median(expected)),)
    np.testing.assert_allclose(dataset.feature_scaler.mean_, expected.mean(), rtol=1e-5)


def test_what_is_wanted(tmp_path):
    table = pandas.DataFrame({"a": ROWS * 0.5, "b": ROWS % 3, "c": ROWS * 2.5, "y": ROWS % 2})
    path = str(tmp_path / "table.csv")
    table.to_csv(path, index=False)
    dataset = read_dataset(path, Wanted(target="b", drop=["c"], held_out=0.5))
    assert [column.name for column in dataset.encoding.columns] == ["a", "y"]
    assert (dataset.encoding.target, dataset.encoding.classes) == ("b", (0, 1, 2))
    assert len(dataset.held_out) == 20
    for wanted in (Wanted(drop=["d"]), Wanted(keep=["d"])):
        with pytest.raises(Unfit, match="'d'"):
            read_dataset(path, wanted)

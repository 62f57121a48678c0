"""A table shows the same data as text, as HTML, by rich and as a frame."""

import html.parser
import json
import math

import numpy as np
import pytest

from quantal._core.table import Column, Table, bars_as_svg, bars_as_text, shortened
from quantal._core.views import Views, plain

pytestmark = pytest.mark.without_keras

LONG = "every kernel that meets <data> & is of fan-in 4096, as the rules say"


def example():
    return Table(
        [
            Column("weight", shorten="start"),
            Column("bytes", show="{:,}".format, align="right"),
            Column("used", bars=True),
            Column("why", "reason", shorten="end"),
        ],
        [
            ("network/block_1/attention/query/kernel", 12345, [0.5, 0, 0.25, 0.25], LONG),
            ("bias", None, None, ""),
        ],
        "Weights",
        ["12,345 bytes together"],
    )


def test_text_is_aligned_and_fits_its_width():
    lines = example().text(80).splitlines()
    assert lines[0] == "Weights"
    assert lines[-1] == "12,345 bytes together"
    head, first, second = lines[1:-1]
    assert max(map(len, lines)) == 80
    assert first.index("12,345") + len("12,345") == head.index("bytes") + len("bytes")
    assert second.split() == ["bias", "-", "-"]
    assert "attention/query/kernel" in first
    assert "█·▄▄" in first
    assert first.endswith("…")
    assert LONG in example().text(None)
    assert str(example()) == example().text(100)


def test_no_cell_is_cut_beyond_recognition():
    narrow = example().text(10).splitlines()
    assert "…uery/kernel" in narrow[2]


def test_facts_have_no_head():
    assert str(Table.of_facts([("loss", 1), ("proved", None)])) == "loss    1\nproved  -"
    assert "<thead>" not in Table.of_facts([("loss", 1)]).html()


def test_shortened():
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdef", 4) == "abc…"
    assert shortened("abcdef", 4, "start") == "…def"


def test_bars_stand_for_shares():
    assert bars_as_text([0, 0.125, 1]) == "·▁█"
    assert bars_as_text([0, 0]) == "··"
    assert bars_as_text([]) == ""
    # 256 shares are added up to 8 blocks, and to 16 bars.
    assert bars_as_text([1 / 256] * 256) == "█" * 8
    assert bars_as_svg([1 / 256] * 256).count("<rect") == 16
    picture = bars_as_svg([0.75, 0.25, 0])
    assert 'aria-label="shares 75 %, 25 %, 0 %"' in picture
    assert picture.count("<rect") == 3


class Reader(html.parser.HTMLParser):
    """Collects the tags that are open, the texts, and what is asked from outside."""

    def __init__(self):
        super().__init__()
        self.open, self.texts, self.outside = [], [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.outside += [value for name, value in attrs if name in ("src", "href")]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_html_is_closed_escaped_and_needs_nothing_else():
    reader = Reader()
    reader.feed(example().html())
    assert reader.open == []
    assert reader.outside == []
    assert LONG in reader.texts
    assert "reason" in reader.texts
    assert "<data>" not in example().html()
    assert example()._repr_html_() == example().html()


def test_a_frame_has_the_data_and_not_their_texts():
    pandas = pytest.importorskip("pandas")
    frame = example().to_frame()
    assert frame.columns.tolist() == ["weight", "bytes", "used", "why"]
    assert frame["bytes"][0] == 12345
    assert pandas.isna(frame["bytes"][1])


def test_rich_draws_it(capsys, monkeypatch):
    rich = pytest.importorskip("rich")
    console = rich.console.Console(width=60, no_color=True)
    console.print(example())
    drawn = capsys.readouterr().out
    assert "█·▄▄" in drawn
    assert "12,345 bytes together" in drawn
    assert "".join(drawn.split()).count("meets<data>&") == 1
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    example().print()
    assert "12,345" in capsys.readouterr().out


def test_without_a_terminal_and_without_rich_it_is_plain_text(capsys, monkeypatch):
    example().print()
    assert capsys.readouterr().out == f"{example()}\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setitem(__import__("sys").modules, "rich", None)
    example().print()
    assert capsys.readouterr().out == f"{example()}\n"


def test_without_pandas_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'quantal\[command\]', or use to_dict"):
        example().to_frame()


class Result(Views):
    def table(self):
        return example()

    def to_dict(self):
        return {"vector": np.array([1 + 2j]), "loss": np.float32(0.5), "bound": math.nan}


def test_views_of_a_result():
    result = Result()
    assert str(result) == str(example())
    assert result._repr_html_() == example().html()
    assert json.loads(result.to_json()) == {
        "vector": {"real": [1.0], "imag": [2.0]},
        "loss": 0.5,
        "bound": None,
    }


def test_plain_data():
    data = {1: (True, None, "a", 2), "array": np.array([1.5, math.inf]), "kind": np.str_("b")}
    expected = {"1": [True, None, "a", 2], "array": [1.5, None], "kind": "b"}
    assert plain(data) == expected
    assert type(plain(np.int64(3))) is int
    assert plain(1j) == {"real": 0.0, "imag": 1.0}

"""The page that `quantal.report` writes: what it says, and that it needs nothing else."""

import html.parser
import re
import shutil
import subprocess

import keras
import numpy as np
import pytest

import quantal
from conftest import on_one_backend
from repository import SOURCE

pytestmark = on_one_backend

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(html.parser.HTMLParser):
    """A page's elements, and whether each is closed in turn."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), tuple(self.open)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "style" not in self.open:
            self.words.append(text)

    def all(self, name):
        return [attributes for tag, attributes, _ in self.elements if tag == name]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page with everything, of a small model, and the one that needs the least."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("pages")
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")
    layers = [keras.layers.Dense(4, activation="relu"), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((6,)), *layers], name="net")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    new = quantal.discretize(model, "ternary")
    new.compile("adam", loss, metrics=["accuracy"])
    history = new.fit(x, y, epochs=2, verbose=0)
    names = ["height", "width", "depth", "weight", "age", "<price>"]
    quantal.report(
        new, folder / "whole.html", history=history, data=(x, y), compared_with=model, names=names,
        title='Nets & "others" <script>alert(1)</script> @body@',
    )  # fmt: skip
    quantal.report(new, folder / "least.html")
    accuracy = new.evaluate(x, y, verbose=0, return_dict=True)["accuracy"]
    quantal.save(new, folder / "net.quantal")
    size = (folder / "net.quantal").stat().st_size
    return folder, accuracy, size


def test_what_the_page_says(pages):
    folder, accuracy, size = pages
    page = Page((folder / "whole.html").read_text())
    text = "".join(page.words)
    assert [a["id"] for a in page.all("h2")] == [
        "float-against-listed", "weights", "pictures", "single-changes", "how-to-load-it"
    ]  # fmt: skip
    assert 'Nets & "others" <script>alert(1)</script> @body@' in text
    assert "38weights" in text.replace(" ", "")
    assert f"{size / 1e3:.3g} kBthe file of quantal.save" in text
    assert f"{accuracy:.4g}accuracy on the data given" in text
    assert "The run over 2 epochs: the loss went from" in text
    assert "single change" in text
    for name in ("height", "<price>", "quantal.load"):
        assert name in text
    least = Page((folder / "least.html").read_text())
    assert [a["id"] for a in least.all("h2")] == ["weights", "pictures", "how-to-load-it"]


def test_the_page_needs_nothing_else(pages):
    text = (pages[0] / "whole.html").read_text()
    page = Page(text)
    assert page.all("script") == []
    targets = [
        target
        for _, attributes, _ in page.elements
        for name, target in attributes.items()
        if name in ("src", "href", "xlink:href", "data", "srcset", "action")
    ]
    assert targets
    assert [target for target in targets if not target.startswith(("#", "data:"))] == []
    assert not re.search(r"@import|url\((?!#|data:)", text)


def test_pictures_have_words_and_names_of_their_own(pages):
    page = Page((pages[0] / "whole.html").read_text())
    pictures = [a for tag, a, around in page.elements if tag == "svg" and "figure" in around]
    assert len(pictures) == 3
    for attributes in page.all("svg"):
        assert attributes["role"] == "img"
        assert len(attributes["aria-label"]) > 10
    assert all(len(attributes["aria-label"]) > 40 for attributes in pictures)
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    # Every part that a picture refers to is there.
    text = (pages[0] / "whole.html").read_text()
    references = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    assert references
    assert references <= set(ids)


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(parts, [0.2126, 0.7152, 0.0722]))


def contrast(one, other):
    """The ratio of WCAG 2.2: 1 for the same colour, 21 for black on white."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def schemes():
    css = (SOURCE / "_report" / "page.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)
    return [dict(re.findall(r"--(\w+): (#\w{6})", text)) for text in (light, dark)]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_texts_and_pictures_are_seen(scheme):
    from quantal.plots._drawing import LINES, colors_of

    colors = schemes()[scheme]
    for text in ("ink", "quiet"):
        for ground in ("page", "card"):
            assert contrast(colors[text], colors[ground]) >= 4.5  # AA for text
    ends = [
        "#" + "".join(f"{round(255 * part):02x}" for part in color[:3])
        for color in colors_of(np.array([-1.0, 1.0]))
    ]
    for color in (*LINES[:4], *ends):
        assert contrast(color, colors["page"]) >= 3  # AA for what is no text


def test_that_check_of_contrast_can_fail():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#999999", "#ffffff") < 3


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_chromium_shows_the_page(pages, tmp_path):
    """It runs a script that reports what went wrong, and how wide the page is on a phone."""
    text = (pages[0] / "whole.html").read_text()
    trap = (
        "<script>window.faults = [];"
        "addEventListener('error', event => faults.push(String(event.message || event.target)),"
        " true);"
        "addEventListener('load', () => {document.title = JSON.stringify({faults,"
        " requests: performance.getEntriesByType('resource').map(entry => entry.name)"
        ".filter(name => !name.startsWith('data:')), wide: document.documentElement.scrollWidth,"
        " screen: innerWidth, drawn: [...document.querySelectorAll('figure svg')]"
        ".every(svg => svg.getBoundingClientRect().height > 100)})})</script>"
    )
    path = tmp_path / "trapped.html"
    path.write_text(text.replace("<title>", f"{trap}<title>", 1))
    shown = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         "--window-size=500,900", "--virtual-time-budget=3000", f"--user-data-dir={tmp_path}/user",
         "--dump-dom", f"file://{path}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ":CONSOLE" not in shown.stderr
    title = re.search(r"<title>(.*?)</title>", shown.stdout, flags=re.DOTALL)[1]
    assert '"faults":[]' in title
    assert '"requests":[]' in title
    assert '"drawn":true' in title
    wide, screen = (int(re.search(rf'"{name}":(\d+)', title)[1]) for name in ("wide", "screen"))
    assert wide <= screen  # Nothing but pictures and tables scrolls sideways.


@keras.saving.register_keras_serializable("report")
class WithoutArguments(keras.Model):
    """It cannot be created from its config, so that no file of quantal.save could be loaded."""

    def __init__(self, dense=None):
        super().__init__()
        self.dense = dense

    def call(self, x):
        return self.dense(x)


def test_only_ways_that_save_the_model_are_shown(tmp_path, monkeypatch):
    model = WithoutArguments(quantal.Discrete(keras.layers.Dense(2), "ternary"))
    model(np.ones((1, 3), "float32"))
    with pytest.raises(ValueError, match="is not saved"):
        quantal.save(model, tmp_path / "net.quantal")
    monkeypatch.chdir(tmp_path)
    path = quantal.report(model, "page.html")
    assert path == tmp_path / "page.html"
    text = "".join(Page(path.read_text()).words)
    assert "quantal.load(" not in text
    assert "load_model(" not in text
    assert "quantal.save refuses this model: the note under its weights says why." in text
    assert text.count("quantal.save refuses the model: ") == 1
    (save,) = re.findall(r"^model\.save_weights.*", text, flags=re.MULTILINE)
    (load,) = re.findall(r"^model\.load_weights.*", text, flags=re.MULTILINE)
    other = WithoutArguments(quantal.Discrete(keras.layers.Dense(2), "ternary"))
    other(np.ones((1, 3), "float32"))
    exec(save, {"model": model})
    exec(load, {"model": other})
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_what_is_refused(tmp_path):
    free = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="free")
    with pytest.raises(ValueError, match="'free' has no parameter on a list"):
        quantal.report(free, tmp_path / "page.html")
    with pytest.raises(TypeError, match="Expected a Keras model"):
        quantal.report("model.keras", tmp_path / "page.html")
    model = keras.Sequential([keras.Input((2,)), quantal.LearnableMultiplier()], name="signs")
    x = np.ones((4, 2), "float32")
    with pytest.raises(ValueError, match="'signs' is not compiled"):
        quantal.report(model, tmp_path / "page.html", data=(x, x))
    with pytest.raises(TypeError, match=r"Expected a pair of inputs and targets, data=\(x, y\)"):
        quantal.report(model, tmp_path / "page.html", data=x)
    with pytest.raises(TypeError, match=r"Expected what model\.fit returned"):
        quantal.report(model, tmp_path / "page.html", history=[1])
    assert list(tmp_path.iterdir()) == []  # No half-written page.
    with pytest.raises(FileNotFoundError):
        quantal.report(model, tmp_path / "no" / "page.html")

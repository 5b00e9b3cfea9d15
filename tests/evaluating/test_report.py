"""The report: one file that shows an evaluation to whoever opens it, offline."""

import base64
import html.parser
import json
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from tiny_captioner import SAMPLES

import captioner
from captioner.evaluating import report as evaluation_report

EVIL = (
    "<script>alert('pwned')</script> & \"two\" <img src=x onerror=alert(1)>"
    + " long" * 9
    + "x" * 3000
)


BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)


class Page(html.parser.HTMLParser):
    """What a browser would make of a page: its elements, and the text in them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if data.strip() and not {"script", "style"} & set(self.open):
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The sample photos as dev split, with captions by two captioners."""
    folder = tmp_path_factory.mktemp("photos")
    lines = (SAMPLES / "captions.csv").read_text("utf-8").splitlines()
    names = sorted({line.partition(",")[0] for line in lines[1:]})
    for name in names:
        (folder / name).write_bytes((SAMPLES / name).read_bytes())
    rows = [f"{line},dev" for line in lines[1:]]
    (folder / "captions.csv").write_text("\n".join(["image,caption,split", *rows]))
    texts = ["a kitten plays with a ball of yarn on a red blanket", "a dog", "", EVIL]
    for file, shift in (("a.jsonl", 0), ("b.jsonl", 1)):
        rows = [
            {"image": n, "captions": [texts[(i + shift) % 4], "a dog"], "score": -i / 7}
            for i, n in enumerate(names)
        ]
        (folder / file).write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def evaluation(photos):
    return captioner.evaluate(
        photos / "a.jsonl",
        photos / "captions.csv",
        output=photos / "out",
        compare_with=photos / "b.jsonl",
        java_metrics=False,
    )


@pytest.fixture
def page(photos, evaluation):
    return Page((photos / "out" / "report.html").read_text(encoding="utf-8"))


def test_it_needs_nothing_but_itself(page, photos, evaluation):
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "base"), tag
        for name in ("src", "href", "srcset", "action"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
    text = (photos / "out" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import|fetch\(", text)
    (policy,) = [m["content"] for m in page.all("meta") if "content" in m][1:]
    assert policy.startswith("default-src 'none'")


def test_texts_of_others_stay_texts(page):
    (script,) = page.all("script")
    assert script == {}
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert page.texts.count(EVIL) >= 4  # as one text, by both captioners


def test_it_has_scores_with_intervals_and_plots(page, evaluation):
    texts = " ".join(page.texts)
    for name, (low, high) in evaluation.intervals.items():
        assert f"{evaluation.scores[name]:.4f} {low:.4f} to {high:.4f}" in texts
        found = evaluation.comparison[name]
        assert f"{found['other']:.4f} {found['difference']:+.4f}" in texts
        assert f"{evaluation.oracle[name]:.4f}" in texts
    # Scores, differences, CIDEr, lengths, calibration.
    assert len(page.all("svg")) == 5
    numbers = [
        float(value)
        for tag in ("rect", "circle", "line")
        for attributes in page.all(tag)
        for name, value in attributes.items()
        if name in ("x", "y", "cx", "cy", "x1", "x2", "width", "height")
    ]
    assert len(numbers) > 50 and np.isfinite(numbers).all()
    assert min(numbers) >= 0 and max(numbers) <= 480
    for name, value in evaluation.protocol.items():
        assert name in page.texts and str(value) in page.texts


def test_it_shows_each_photo_with_its_captions_and_references(page, evaluation):
    articles = page.all("article")
    ciders = sorted(each["cider"] for each in evaluation.scores_each.values())
    assert [float(a["data-cider"]) for a in articles] == pytest.approx(ciders, abs=1e-6)
    assert all({"data-score", "data-difference"} <= a.keys() for a in articles)
    for line in (SAMPLES / "captions.csv").read_text("utf-8").splitlines()[1:]:
        name, _, text = line.partition(",")
        assert name in page.texts and text.strip().strip('"') in page.texts
    assert "(empty)" in page.texts
    images = page.all("img")
    assert len(images) == len(articles) == 10
    for image in images:
        kind, _, data = image["src"].partition(",")
        assert kind == "data:image/jpeg;base64"
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 1)
        assert pixels.shape[:2] == (int(image["height"]), int(image["width"]))
        assert max(pixels.shape) == 160 and pixels.std() > 10
    assert sum(len(image["src"]) for image in images) < 150_000


# Does in the page what a reader does, and writes down what is to be seen.
DRIVER = """
<script>
const found = {}, field = document.getElementById("search");
const choice = document.getElementById("sort");
const seen = () => [...document.querySelectorAll("article")].filter(
  card => card.getClientRects().length);
const captions = () => seen().map(card => card.querySelector(".caption").textContent);
const type = text => {
  field.value = text;
  field.dispatchEvent(new Event("input"));
  return [seen().length, document.getElementById("shown").textContent];
};
const choose = value => {
  choice.value = value;
  choice.dispatchEvent(new Event("change"));
  return seen().map(card => +(card.dataset[value] ?? card.dataset.cider));
};
found.all = type("");
found.kitten = type("KITTEN yarn");
found.kittens = captions();
found.nothing = type("no such words");
type("");
for (const option of choice.options) found[option.value] = choose(option.value);
found.images = [...document.images].map(image => image.complete && image.naturalWidth);
found.scripts = document.scripts.length;
found.alerts = window.alerts || 0;
found.wide = document.documentElement.scrollWidth > innerWidth;
found.tall = Math.max(...seen().map(card => card.getBoundingClientRect().height));
found.loaded = performance.getEntriesByType("resource").map(entry => entry.name)
  .filter(name => !name.startsWith("data:"));
found.texts = [...document.querySelectorAll("svg text, dd")].filter(
  text => !text.textContent.trim() || /NaN|undefined/.test(text.textContent)).length;
const written = document.createElement("pre");
written.textContent = JSON.stringify(found);
document.body.replaceChildren(written);
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium to open it with")
@pytest.mark.parametrize("width", [500, 1300])
def test_in_a_browser_it_is_searched_and_sorted(photos, evaluation, tmp_path, width):
    text = (photos / "out" / "report.html").read_text(encoding="utf-8")
    start = "<script>window.alert = () => { window.alerts = 1; };</script>"
    text = text.replace("<title>", start + "<title>").replace("</body>", DRIVER)
    page = tmp_path / "page.html"
    page.write_text(text, encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--disable-background-networking", "--disable-component-update"]
    command += ["--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--window-size={width},900", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    (written,) = re.findall("<pre>(.*)</pre>", done.stdout)
    found = json.loads(html.unescape(written))
    assert found["all"] == [10, "10 shown"]
    count, shown = found["kitten"]
    assert 0 < count < 10 and shown == f"{count} shown"
    assert "a kitten plays with a ball of yarn on a red blanket" in found["kittens"]
    assert found["nothing"] == [0, "0 shown"]
    ciders = sorted(each["cider"] for each in evaluation.scores_each.values())
    assert found["worst"] == pytest.approx(ciders, abs=1e-6)
    assert found["best"] == pytest.approx(ciders[::-1], abs=1e-6)
    assert found["score"] == sorted(found["score"])
    assert found["difference"] == sorted(found["difference"])
    assert len(found["images"]) == 10 and min(found["images"]) > 50
    # Nothing that a caption holds has run, and nothing else was asked for.
    assert found["scripts"] == 3 and found["alerts"] == 0 and found["loaded"] == []
    assert not found["wide"] and found["tall"] < 700 and found["texts"] == 0


def test_long_captions_share_a_bar(photos, tmp_path):
    lines = (photos / "a.jsonl").read_text().splitlines()
    rows = [{**json.loads(line), "captions": ["dog " * 3000]} for line in lines]
    rows[3]["captions"] = ["a dog"]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    captioner.evaluate(
        tmp_path / "a.json",
        photos / "captions.csv",
        output=tmp_path / "out",
        java_metrics=False,
    )
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert re.findall("<title>([0-9+]+): ([1-9][0-9]*)</title>", page)[-2:] == [
        ("2", "1"),
        ("40+", "9"),
    ]


def test_of_many_images_it_shows_the_worst_and_the_best(photos, monkeypatch, tmp_path):
    monkeypatch.setattr(evaluation_report, "MAX_IMAGES", 4)
    evaluation = captioner.evaluate(
        photos / "a.jsonl", photos / "captions.csv", output=tmp_path, java_metrics=False
    )
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    shown = [float(attributes["data-cider"]) for attributes in page.all("article")]
    ciders = sorted(each["cider"] for each in evaluation.scores_each.values())
    assert shown == pytest.approx(ciders[:2] + ciders[-2:], abs=1e-6)
    assert "Images (4 of 10)" in page.texts


def test_predictions_need_no_photo_that_can_be_read(photos, tmp_path):
    for file in photos.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    for photo in tmp_path.glob("*.jpg"):
        photo.write_text("not a photo")
    captioner.evaluate(
        tmp_path / "a.jsonl",
        tmp_path / "captions.csv",
        output=tmp_path / "out",
        java_metrics=False,
    )
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert page.texts.count("no photo") == 10 and not page.all("img")

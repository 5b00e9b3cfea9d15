"""An evaluation as one HTML file that needs nothing else: no network, no other file."""

import base64
import collections
import html

import cv2
import numpy as np

from captioner.files import atomic_write
from captioner.images.image_files import ImageError, load_image
from captioner.pages.plots import bar_plot, interval_plot
from captioner.progress import progress_bar

# So many photos at most, half of them the worst and half the best.
MAX_IMAGES = 1000
THUMBNAIL_SIZE = 160  # of the longer side, in pixels
MAX_LENGTH = 40  # words of a caption; longer ones share a bar

_NAMES = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "cider_plain": "CIDEr, plain",
    "meteor": "METEOR",
    "spice": "SPICE",
    "distinct": "Distinct captions",
    "copied": "Copied from training",
    "vocabulary": "Words used",
    "mean_length": "Mean length",
    "empty": "Empty captions",
    "bad_endings": "Bad endings",
    "repeated_words": "A word twice in a row",
    "repeated_phrases": "Three words twice",
    "self_bleu_4": "Self-BLEU-4",
    "n_best_self_bleu_4": "Self-BLEU-4 among those of an image",
}
_SHARES = ("copied", "bad_endings", "repeated_words", "repeated_phrases")


def write_report(path, evaluation, references, images):
    """Writes an evaluation as a web page to look through.

    Scores with their intervals, plots, and the photos with their captions, worst
    first, to be searched and sorted. Photos are small JPEGs in the page itself. With
    more than 1,000 images the page has the 500 worst and the 500 best by CIDEr.

    Args:
        path: of the file, which is replaced.
        evaluation: an `Evaluation`.
        references: dict of image id to the list of its captions by people.
        images: dict of image id to whatever `load_image` takes.

    Raises:
        OSError: the file cannot be written.

    Example:

    ```python
    examples = captioner.load_dataset("scenes:64").examples("test")
    write_report(
        "report.html",
        captioner.evaluate("run/preset", "scenes:64", split="test"),
        {example["image/id"]: example["captions"] for example in examples},
        {example["image/id"]: example["image"] for example in examples},
    )
    ```
    """
    page = _PAGE.format(
        title=_text(
            f"{evaluation.protocol.get('preset') or evaluation.protocol['predictions']}"
            f" on {evaluation.protocol['dataset']}, {evaluation.protocol['split']}"
        ),
        style=_STYLE,
        script=_SCRIPT,
        protocol=_table(evaluation.protocol.items()),
        counts=_text(
            "{images} images, {references} references".format(**evaluation.protocol)
        ),
        scores=_scores(evaluation),
        captions=_captions(evaluation),
        images=_images(evaluation, references, images),
    )
    # replace: a file name need not be valid text.
    with atomic_write(path, "w", encoding="utf-8", errors="replace") as file:
        file.write(page)


def _text(value):
    return html.escape(str(value))


def _table(rows, head=None):
    """Rows of texts as an HTML table; the first of each row is its name."""
    lines = []
    if head:
        cells = "".join(f"<th scope=col>{_text(cell)}</th>" for cell in head)
        lines.append(f"<thead><tr>{cells}</tr></thead>")
    for name, *cells in rows:
        cells = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
        lines.append(f"<tr><th scope=row>{_text(name)}</th>{cells}</tr>")
    return f"<div class=wide><table>{''.join(lines)}</table></div>"


def _scores(evaluation):
    rows = []
    for name, value in evaluation.scores.items():
        low, high = evaluation.intervals[name]
        row = [_NAMES[name], f"{value:.4f}", f"{low:.4f} to {high:.4f}"]
        if evaluation.oracle:
            row.append(f"{evaluation.oracle[name]:.4f}")
        rows.append(row)
    head = ["", "score", "95 % interval"]
    if evaluation.oracle:
        head.append("best of several")
    plot = interval_plot(
        "Scores with their 95 % intervals",
        {
            _NAMES[name]: (value, *evaluation.intervals[name])
            for name, value in evaluation.scores.items()
        },
    )
    scores = f"<div class=pair>{_table(rows, head)}{plot}</div>{_missing(evaluation)}"
    if not evaluation.comparison:
        return scores
    rows = [
        (
            _NAMES[name],
            f"{found['other']:.4f}",
            f"{found['difference']:+.4f}",
            "{:+.4f} to {:+.4f}".format(*found["interval"]),
            f"{found['better']:.1%}",
        )
        for name, found in evaluation.comparison.items()
    ]
    head = ("", "other", "difference", "95 % interval", "better in")
    plot = interval_plot(
        "Differences with their 95 % intervals; right of 0 is better",
        {
            _NAMES[name]: (found["difference"], *found["interval"])
            for name, found in evaluation.comparison.items()
        },
    )
    other = _text(evaluation.protocol["compare_with"])
    return (
        f"{scores}<h2>Compared with {other}</h2>"
        f"<div class=pair>{_table(rows, head)}{plot}</div>"
    )


def _missing(evaluation):
    """A line for each metric that could not be run, and why."""
    return "".join(
        f"<p class=facts>{_NAMES[name]} is {_text(evaluation.protocol[name])}</p>"
        for name in ("meteor", "spice")
        if str(evaluation.protocol[name]).startswith("missing")
    )


def _captions(evaluation):
    """How the captions are written: plots, and a tile for each figure."""
    ciders = [scores["cider"] for scores in evaluation.scores_each.values()]
    top = max(1.0, float(np.ceil(max(ciders))))
    counts, edges = np.histogram(ciders, bins=20, range=(0, top))
    plots = [
        bar_plot(
            "Images by the CIDEr of their caption",
            [(f"{a:.2f}", n) for a, n in zip(edges, counts.tolist())],
        ),
        bar_plot("Captions by their number of words", _by_length(evaluation.diversity)),
    ]
    if evaluation.calibration:
        spearman = evaluation.calibration["spearman"]
        found = "none" if spearman is None else f"{spearman:.2f}"
        plots.append(
            bar_plot(
                "Mean CIDEr of a fifth of the captions each, from the lowest to the "
                f"highest score of the captioner; rank correlation {found}",
                [
                    (f"{part['score']:.2f}", part["quality"])
                    for part in evaluation.calibration["bins"]
                ],
            )
        )
    tiles = []
    for name, value in evaluation.diversity.items():
        if name in _NAMES:
            if value is None:
                value = "unknown"
            elif name in _SHARES:
                value = f"{value:.1%}"
            elif isinstance(value, float):
                value = f"{value:.3f}"
            tiles.append(f"<div><dt>{_NAMES[name]}</dt><dd>{_text(value)}</dd></div>")
    return (
        f"<div class=plots>{''.join(plots)}</div><dl class=tiles>{''.join(tiles)}</dl>"
    )


def _by_length(diversity):
    """Bars from the shortest caption to the longest; all long ones are one bar."""
    counts = collections.Counter()
    for length, count in diversity["lengths"].items():
        counts[min(length, MAX_LENGTH)] += count
    bars = [(str(n), counts[n]) for n in range(min(counts), max(counts) + 1)]
    if MAX_LENGTH in counts:
        bars[-1] = (f"{MAX_LENGTH}+", counts[MAX_LENGTH])
    return bars


def _images(evaluation, references, images):
    ciders = {i: each["cider"] for i, each in evaluation.scores_each.items()}
    worst_first = sorted(ciders, key=ciders.get)
    shown = worst_first
    if len(shown) > MAX_IMAGES:
        shown = shown[: MAX_IMAGES // 2] + shown[-(MAX_IMAGES // 2) :]
    cards = []
    with progress_bar("report", total=len(shown)) as bar:
        for image_id in shown:
            cards.append(_card(evaluation, references, images, image_id))
            bar.update()
    left_out = "".join(
        f"<li>{_text(reason)}</li>" for reason in evaluation.left_out.values()
    )
    if left_out:
        left_out = f"<h2>Left out</h2><ul>{left_out}</ul>"
    all_of = (
        f"{len(shown)} of {len(ciders)}" if len(shown) < len(ciders) else len(shown)
    )
    has_scores = bool(evaluation.caption_scores)
    return _IMAGES.format(
        count=_text(all_of),
        by_score="<option value=score>least sure first</option>" if has_scores else "",
        by_difference=(
            "<option value=difference>worse than the other first</option>"
            if evaluation.other_captions
            else ""
        ),
        cards="\n".join(cards),
        left_out=left_out,
    )


def _card(evaluation, references, images, image_id):
    each = evaluation.scores_each[image_id]
    data = {"cider": each["cider"]}
    lines = [
        f"<p class=caption>{_text(evaluation.captions[image_id]) or '(empty)'}</p>"
    ]
    facts = [f"CIDEr {each['cider']:.2f}", f"ROUGE-L {each['rouge_l']:.2f}"]
    if image_id in evaluation.caption_scores:
        data["score"] = evaluation.caption_scores[image_id]
        facts.append(f"score {data['score']:.2f}")
    lines.append(f"<p class=facts>{', '.join(facts)}</p>")
    if evaluation.other_captions:
        other = evaluation.other_captions[image_id]
        data["difference"] = each["cider"] - other["cider"]
        lines.append(
            f"<p class=other>{_text(other['caption']) or '(empty)'}</p>"
            f"<p class=facts>the other, CIDEr {other['cider']:.2f}</p>"
        )
    people = "".join(f"<li>{_text(text)}</li>" for text in references[image_id])
    attributes = " ".join(f"data-{name}={value:.6f}" for name, value in data.items())
    return (
        f"<article {attributes}>{_thumbnail(images[image_id])}<div>{''.join(lines)}"
        f"<ul>{people}</ul><p class=facts>{_text(image_id)}</p></div></article>"
    )


def _thumbnail(image):
    try:
        pixels = load_image(image)
    except ImageError:  # predictions need no photo that can be read
        return "<div class=absent>no photo</div>"
    height, width = pixels.shape[:2]
    scale = min(1.0, THUMBNAIL_SIZE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 75])
    data = base64.b64encode(data).decode()
    return (
        f'<img src="data:image/jpeg;base64,{data}" alt="" loading=lazy '
        f"width={size[0]} height={size[1]}>"
    )


_STYLE = """
:root { color-scheme: light dark; --text: #1c1f24; --soft: #5d6673; --paper: #fff;
  --card: #f5f6f8; --line: #d9dde3; --mark: #2563c9; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ee; --soft: #9aa5b4;
  --paper: #14171c; --card: #1e232b; --line: #343c48; --mark: #7fb0ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; color: var(--text);
  background: var(--paper); font: 16px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0 1rem; }
th, td { text-align: left; padding: .2rem .7rem .2rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
th { font-weight: 600; } .wide th, .wide td { white-space: nowrap; }
.wide thead th { white-space: normal; }
details th, details td { white-space: normal; overflow-wrap: anywhere; }
.pair { display: flex; flex-wrap: wrap; gap: 0 2rem; }
.pair figure { flex: 1 1 20rem; }
.plots { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit,
  minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0 0 1rem; max-width: 34rem; }
.tiles { display: grid; gap: .5rem; margin: 0 0 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.tiles div { display: flex; flex-direction: column-reverse; justify-content: flex-end;
  padding: .5rem .7rem; background: var(--card); border-radius: .5rem; }
.tiles dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.tiles dt { color: var(--soft); font-size: .85rem; }
figcaption, .facts { color: var(--soft); font-size: .85rem; }
svg { width: 100%; height: auto; overflow: visible; }
svg rect, svg circle { fill: var(--mark); }
svg line { stroke: var(--mark); stroke-width: 2; }
svg line.grid { stroke: var(--line); stroke-width: .5; }
svg line.zero { stroke: var(--soft); stroke-width: 1; }
svg text { fill: var(--soft); font-size: 11px; text-anchor: middle; }
svg text.name { text-anchor: end; fill: var(--text); }
form { position: sticky; top: 0; display: flex; flex-wrap: wrap; gap: .5rem;
  padding: .6rem 0; background: var(--paper); align-items: center; z-index: 1; }
input, select { font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--line); border-radius: .4rem; padding: .4rem .6rem; }
input { flex: 1 1 12rem; min-width: 0; }
#images { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill,
  minmax(min(100%, 23rem), 1fr)); }
article { display: flex; gap: .8rem; padding: .7rem; background: var(--card);
  border-radius: .5rem; content-visibility: auto; contain-intrinsic-size: auto 14rem;
  overflow-wrap: anywhere; }
article[hidden] { display: none; }
article img, .absent { flex: none; width: 8rem; height: auto; align-self: flex-start;
  border-radius: .3rem; }
.absent { color: var(--soft); border: 1px dashed var(--line); padding: 2rem .5rem;
  text-align: center; }
article > div:last-child { flex: 1; min-width: 0; max-height: 32rem; overflow-y: auto; }
article p { margin: 0 0 .3rem; } article ul { margin: .3rem 0; padding-left: 1.1rem;
  font-size: .9rem; }
.caption { font-weight: 600; } .other { font-style: italic; }
"""

_SCRIPT = """
const list = document.getElementById("images");
const cards = [...list.children];
const search = document.getElementById("search");
const sort = document.getElementById("sort");
const shown = document.getElementById("shown");
const texts = new Map(cards.map(c => [c, c.textContent.toLowerCase()]));
function update() {
  const words = search.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let count = 0;
  for (const card of cards) {
    card.hidden = !words.every(word => texts.get(card).includes(word));
    count += !card.hidden;
  }
  shown.textContent = count + " shown";
}
function order() {
  const [key, sign] = sort.value === "best" ? ["cider", -1]
    : [sort.value === "worst" ? "cider" : sort.value, 1];
  cards.sort((a, b) => sign * (a.dataset[key] - b.dataset[key]));
  list.append(...cards);
}
search.addEventListener("input", update);
sort.addEventListener("change", order);
document.querySelector("form").addEventListener("submit", e => e.preventDefault());
order();
update();
"""

_IMAGES = """
<h2>Images ({count})</h2>
<form><input id=search type=search placeholder="Search captions, references, ids"
 aria-label="Search"> <select id=sort aria-label="Sort"><option value=worst>worst first
</option><option value=best>best first</option>{by_score}{by_difference}</select>
<output id=shown aria-live=polite></output></form>
<div id=images>
{cards}
</div>
{left_out}
"""

# The policy forbids what the page does without: any load from anywhere.
_PAGE = """<!doctype html>
<html lang=en>
<head>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<meta http-equiv=Content-Security-Policy content="default-src 'none'; img-src data:;
 style-src 'unsafe-inline'; script-src 'unsafe-inline'; form-action 'none'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p class=facts>{counts}. CIDEr is CIDEr-D, as everybody reports it. An interval holds
95 % of the scores of as many images drawn with replacement.</p>
{scores}
<h2>How the captions are written</h2>
{captions}
<details><summary>Protocol</summary>{protocol}</details>
{images}
<script>{script}</script>
</body>
</html>
"""

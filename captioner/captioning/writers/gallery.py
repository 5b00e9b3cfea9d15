"""All photos with their captions on one page that needs nothing else."""

import base64
import html

from captioner.files import as_text


def write_gallery(file, results, info):
    """One HTML file: small photos, captions, scores, a search box, and an order with
    the least likely captions first. It opens offline; nothing is loaded from anywhere.
    """
    names = ", ".join(each["name"] for each in info.settings["preset"])
    # A file name that is no text comes as surrogates.
    with as_text(file, errors="replace") as text:
        text.write(_HEAD.format(presets=html.escape(names), style=_STYLE))
        for each in results:
            text.write(_card(each, info.thumbnail(each.path)))
        text.write(_FOOT.format(script=_SCRIPT))


def _card(result, thumbnail):
    name = html.escape(result.path)
    if result.error is not None:
        return (
            f"<article class=failed data-score=-1e9><div class=absent>no photo</div>"
            f"<div><p class=caption>{html.escape(result.error)}</p>"
            f"<p class=facts>{name}</p></div></article>\n"
        )
    image = "<div class=absent>no preview</div>"
    if thumbnail:
        source = base64.b64encode(thumbnail).decode()
        image = f'<img src="data:image/jpeg;base64,{source}" alt="" loading=lazy>'
    kept = result.score is None
    score = "kept" if kept else f"score {result.score:.2f}"
    others = "".join(f"<li>{html.escape(text)}</li>" for text in result.captions[1:])
    return (
        f"<article data-score={1e9 if kept else result.score}>{image}<div>"
        f"<p class=caption>{html.escape(result.caption)}</p>"
        + (f"<ul>{others}</ul>" if others else "")
        + f"<p class=facts>{score} · {name}</p></div></article>\n"
    )


_STYLE = """
:root { color-scheme: light dark; --text: #1c1f24; --soft: #5d6673; --paper: #fff;
  --card: #f5f6f8; --line: #d9dde3; --bad: #a33018; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ee; --soft: #9aa5b4;
  --paper: #14171c; --card: #1e232b; --line: #343c48; --bad: #ff9c85; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 80rem; color: var(--text);
  background: var(--paper); font: 16px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.3rem; margin: 0; }
form { position: sticky; top: 0; display: flex; flex-wrap: wrap; gap: .5rem;
  padding: .6rem 0; background: var(--paper); align-items: center; z-index: 1; }
input, select { font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--line); border-radius: .4rem; padding: .4rem .6rem; }
input { flex: 1 1 12rem; min-width: 0; }
main { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill,
  minmax(min(100%, 15rem), 1fr)); }
article { background: var(--card); border-radius: .5rem; overflow: hidden;
  overflow-wrap: anywhere; content-visibility: auto;
  contain-intrinsic-size: auto 16rem; }
article[hidden] { display: none; }
article > div:last-child { padding: .6rem .7rem; }
img { display: block; width: 100%; height: 11rem; object-fit: cover; }
.absent { height: 11rem; display: grid; place-items: center; color: var(--soft);
  border-bottom: 1px dashed var(--line); }
p { margin: 0 0 .3rem; } ul { margin: 0 0 .3rem; padding-left: 1.1rem;
  font-size: .9rem; }
.caption { font-weight: 600; } .failed .caption { color: var(--bad); }
.facts { color: var(--soft); font-size: .8rem; }
"""

_SCRIPT = """
const list = document.querySelector("main");
const given = [...list.children];
const search = document.getElementById("search");
const order = document.getElementById("order");
const shown = document.getElementById("shown");
const texts = new Map(given.map(c => [c, c.textContent.toLowerCase()]));
function update() {
  const words = search.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let count = 0;
  for (const card of given) {
    const fits = words.every(word => texts.get(card).includes(word));
    card.hidden = !fits;
    count += fits;
  }
  shown.textContent = count + " of " + given.length;
}
function sort() {
  const cards = [...given];
  const sign = {given: 0, low: 1, high: -1}[order.value];
  if (sign) cards.sort((a, b) => sign * (a.dataset.score - b.dataset.score));
  list.append(...cards);
}
search.addEventListener("input", update);
order.addEventListener("change", sort);
document.querySelector("form").addEventListener("submit", e => e.preventDefault());
update();
"""

# The policy forbids what the page does without: any load from anywhere.
_HEAD = """<!doctype html>
<html lang=en>
<head>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<meta http-equiv=Content-Security-Policy content="default-src 'none'; img-src data:;
 style-src 'unsafe-inline'; script-src 'unsafe-inline'; form-action 'none'">
<title>Captions</title>
<style>{style}</style>
</head>
<body>
<h1>Captions</h1>
<p class=facts>{presets}</p>
<form><input id=search type=search placeholder="Search captions and file names"
 aria-label="Search"> <select id=order aria-label="Order">
<option value=given>in order</option><option value=low>least likely first</option>
<option value=high>most likely first</option></select>
<output id=shown aria-live=polite></output></form>
<main>
"""

_FOOT = """</main>
<script>{script}</script>
</body>
</html>
"""

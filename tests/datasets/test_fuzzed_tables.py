"""Hypothesis drives the readers: what was written is read, and rubbish is one line."""

import csv
import io
import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from captioner.datasets import load_dataset
from captioner.datasets.mix import split_mix
from captioner.datasets.photo_search import PhotoSearch
from captioner.datasets.spec import split_options, with_options
from captioner.evaluating.predictions import read_predictions

NAMES = ["a.jpg", "photos/b.png", "photos/deep/ü c.webp"]
some_or_many = pytest.mark.parametrize(
    "count", [40, pytest.param(3000, marks=(pytest.mark.slow, pytest.mark.fuzz))]
)
# No lone surrogates, which are no text, and no null, which is in no text file.
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
rows = st.lists(st.tuples(st.sampled_from(NAMES), text), min_size=1, max_size=6)


def run(test, count):
    """Runs a test of Hypothesis with so many examples."""
    settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )(test)()


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def captions(dataset):
    return {
        example["image/id"]: example["captions"]
        for split in dataset.splits
        for example in dataset.examples(split)
    }


def expected(rows):
    found = {}
    for name, caption in rows:
        if caption.strip():
            found.setdefault(name, []).append(" ".join(caption.split()))
    return found


def read(path):
    """Captions of a dataset, none if there is no usable image."""
    try:
        return captions(load_dataset(path))
    except ValueError as error:
        if "no usable image" in str(error):
            return {}
        raise


@some_or_many
def test_a_csv_is_read_as_it_was_written(folder, count):
    @given(
        rows,
        st.sampled_from(",;\t|"),
        st.sampled_from(["\n", "\r\n"]),
        st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
        st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    )
    @example([("a.jpg", '"\n,\r"')], ",", "\r\n", "utf-8", csv.QUOTE_MINIMAL)
    def test(rows, delimiter, line_end, encoding, quoting):
        if any("\r" in caption for _, caption in rows):
            quoting = csv.QUOTE_ALL  # Python 3.11 writes it without quotation marks
        buffer = io.StringIO(newline="")
        writer = csv.writer(
            buffer, delimiter=delimiter, lineterminator=line_end, quoting=quoting
        )
        writer.writerows([("image", "caption"), *rows])
        path = folder / "t.csv"
        path.write_bytes(buffer.getvalue().encode(encoding))
        assert read(path) == expected(rows)

    run(test, count)


@some_or_many
def test_json_is_read_as_it_was_written(folder, count):
    @given(rows, st.booleans())
    def test(rows, ascii_only):
        objects = [{"image": name, "caption": caption} for name, caption in rows]
        lines = [json.dumps(each, ensure_ascii=ascii_only) for each in objects]
        (folder / "t.jsonl").write_text("\n".join(lines), encoding="utf-8", newline="")
        assert read(folder / "t.jsonl") == expected(rows)
        (folder / "t.json").write_text(json.dumps(objects))
        assert read(folder / "t.json") == expected(rows)

    run(test, count)


@some_or_many
def test_rubbish_is_refused_in_one_line(folder, count):
    pieces = st.sampled_from(
        [b"image,caption\n", b"image\tcaption\r\n", b"a.jpg", b",", b"\t", b'"', b"\n"]
        + [b"\r", b"\0", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"A dog", b"split"]
        + [b'{"image": "a.jpg", ', b'"caption": ', b'"x"}', b"[", b"]", b"{", b"}"]
        + [b"null", b"1e999", b'{"images": [', b'"annotations"', b'"data": {', b":"]
    )
    suffixes = st.sampled_from([".csv", ".tsv", ".jsonl", ".json", ".txt", ".tar"])

    @given(st.lists(pieces | st.binary(max_size=4), max_size=20), suffixes)
    def test(parts, suffix):
        path = folder / f"t{suffix}"
        path.write_bytes(b"".join(parts))
        for reader in (load_dataset, read_predictions):
            try:
                reader(path)
            except ValueError as error:
                assert len(str(error).splitlines()) == 1, error

    run(test, count)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text | st.just("a.jpg"),
    lambda child: (
        st.lists(child, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "image images caption captions split id image_id file_name annotations "
                "sentences raw filename filepath data result type value text".split()
            ),
            child,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@some_or_many
def test_json_of_any_shape_is_read_or_refused(folder, count):
    @given(json_values)
    def test(value):
        path = folder / "t.json"
        path.write_text(json.dumps(value))
        for spec in ("", "karpathy:", "coco:", "json:", "label_studio:"):
            try:
                load_dataset(f"{spec}{path}")
            except ValueError as error:
                assert len(str(error).splitlines()) == 1, error

    run(test, count)


@some_or_many
def test_photos_are_searched_for_under_any_name(folder, count):
    names = st.text(
        st.sampled_from("ab./\\:?%é\u0301ÄäJjpg0 "), min_size=1, max_size=20
    )

    @given(st.dictionaries(names, st.sampled_from([None, "train"]), max_size=8))
    def test(names):
        for chosen in (False, True):
            found = PhotoSearch([str(folder)], chosen).locate(names)
            assert set(found) <= set(names)
            for path in found.values():
                assert path.endswith((".jpg", ".png", ".webp"))

    run(test, count)


@some_or_many
def test_specs_with_options_and_mixes_are_read_as_written(count):
    plain = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
        lambda spec: not split_options(spec)[1]
    )

    @given(plain, plain, st.integers(1, 100))
    def test(spec, image_dir, weight):
        whole = with_options(spec, image_dir=image_dir, dev_fraction=0.25)
        found, options = split_options(whole)
        assert found == spec and options["image_dir"] == image_dir
        if "'" not in whole:
            mixed = split_mix(f"'{whole}'*{weight}+scenes")
            assert mixed == [(whole, weight), ("scenes", 1)]

    run(test, count)

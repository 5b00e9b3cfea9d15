"""Tables as people and programs write them: CSV, JSON lines, JSON, Label Studio."""

import json

import pytest

from captioner.datasets import load_dataset


def captions(dataset):
    return {
        example["image/id"]: example["captions"]
        for split in dataset.splits
        for example in dataset.examples(split)
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for name in "ab":
        (tmp_path / "photos" / f"{name}.jpg").touch()
    return tmp_path


BOTH = {"photos/a.jpg": ["A dög"], "photos/b.jpg": ["A cat"]}
TABLE = "image,caption\nphotos/a.jpg,A dög\nphotos/b.jpg,A cat\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(folder, encoding, line_end):
    path = folder / "t.csv"
    path.write_bytes(TABLE.replace("\n", line_end).encode(encoding))
    assert captions(load_dataset(path)) == BOTH
    if line_end != "\r":
        rows = "\n".join(
            json.dumps({"image": i, "caption": c}, ensure_ascii=False)
            for i, (c,) in BOTH.items()
        )
        path = folder / "t.jsonl"
        path.write_bytes(rows.replace("\n", line_end).encode(encoding))
        assert captions(load_dataset(path)) == BOTH


def test_an_encoding_without_a_mark_is_refused_with_its_line(folder):
    path = folder / "t.csv"
    path.write_bytes(TABLE.encode("cp1252"))
    with pytest.raises(ValueError, match="t.csv is not UTF-8 text: .* in line 2. Save"):
        load_dataset(path)


@pytest.mark.parametrize(
    "header, row",
    [
        ("image;caption", "photos/a.jpg;A dög"),
        ("path\ttext", "photos/a.jpg\tA dög"),
        ("Image_ID, Caption", "photos/a.jpg, A dög"),
        (",filepath,comment", "0,photos/a.jpg,A dög"),
        ("path,caption,score,error,kind", "photos/a.jpg,A dög,-1.5,,"),
    ],
)
def test_columns_and_delimiters(folder, header, row):
    path = folder / "t.csv"
    path.write_text(f"{header}\n{row}\n")
    assert list(captions(load_dataset(path)).values()) == [["A dög"]]


def test_a_table_without_the_columns_is_refused_with_its_first_line(folder):
    path = folder / "t.csv"
    for line in ("photos/a.jpg,A dog", "filepath,title", ""):
        path.write_text(f"{line}\nphotos/a.jpg,A dog\n")
        with pytest.raises(ValueError, match="columns image and caption.*'%s'" % line):
            load_dataset(path)


@pytest.mark.parametrize(
    "rows, line",
    [
        (["a.jpg,A dog", 'b.jpg,"Big cat', "a.jpg,x", "b.jpg,y"], 3),
        (["a.jpg,A dog", 'b.jpg,"Big cat', "a.jpg,x", 'b.jpg,"y"'], 3),
        (['a.jpg,"A dog" named "Rex"', "b.jpg,y"], 2),
        (['a.jpg,"A dog,\nrunning"', "b.jpg,x", 'b.jpg,"open'], 5),
        (['a.jpg,"open', *["b.jpg,y"] * 30_000], 2),  # more than a field may hold
    ],
)
def test_an_open_quotation_mark_is_reported_at_its_first_line(folder, rows, line):
    path = folder / "t.csv"
    path.write_text("\n".join(["image,caption", *rows]) + "\n")
    with pytest.raises(ValueError, match=f"t.csv, line {line}: a quotation mark"):
        load_dataset(path)


def test_the_jsonl_of_caption_counts_the_best_caption_once(folder):
    rows = [
        {
            "path": "photos/a.jpg",
            "caption": "A dog",
            "score": -1.0,
            "error": None,
            "kind": None,
            "captions": ["A dog", "The dog"],
            "scores": [-1.0, -2.0],
        },
        {"path": "photos/b.jpg", "caption": "A cat", "score": -1.0},
        {"path": "photos/c.jpg", "caption": None, "error": "empty", "kind": "empty"},
    ]
    path = folder / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert captions(load_dataset(path)) == {
        "photos/a.jpg": ["A dog", "The dog"],
        "photos/b.jpg": ["A cat"],
    }


def test_a_json_list_and_what_its_keys_must_be(folder):
    path = folder / "t.json"
    rows = [{"image": "photos/a.jpg", "caption": ["A dog", "One dog"], "id": 1}]
    path.write_text(json.dumps(rows))
    for spec in (path, f"json:{path}"):
        assert captions(load_dataset(spec)) == {"photos/a.jpg": ["A dog", "One dog"]}
    path.write_text(json.dumps([{"photo": "photos/a.jpg", "words": "A dog"}]))
    with pytest.raises(ValueError, match="Received: the keys photo, words"):
        load_dataset(path)
    path.write_text('{"a": 1}')
    with pytest.raises(ValueError, match="is no captions file"):
        load_dataset(path)


# -- Hugging Face image folders ---------------------------------------------


@pytest.mark.parametrize("table", ["metadata.csv", "metadata.jsonl", "captions.tsv"])
def test_an_image_folder_has_all_of_its_splits(tmp_path, table):
    for split, count in (("train", 3), ("validation", 2), ("test", 1)):
        (tmp_path / split).mkdir()
        rows = [(f"{i}.png", f"Photo {i} of {split}") for i in range(count)]
        for name, _ in rows:  # the same names in each split
            (tmp_path / split / name).touch()
        if table.endswith("jsonl"):
            lines = [json.dumps({"file_name": n, "text": t}) for n, t in rows]
        else:
            tab = "\t" if table.endswith("tsv") else ","
            lines = [f"file_name{tab}text", *(tab.join(row) for row in rows)]
        (tmp_path / split / table).write_text("\n".join(lines))
    for spec in (tmp_path, f"imagefolder:{tmp_path}"):
        dataset = load_dataset(spec)
        assert dataset.summary().images == {"train": 3, "dev": 2, "test": 1}
        example = dataset.examples("dev")[1]
        assert example["image/id"] == "validation/1.png"
        assert example["image"] == str(tmp_path / "validation" / "1.png")
        assert example["captions"] == ["Photo 1 of validation"]


def test_a_folder_without_split_folders_is_no_image_folder(tmp_path):
    with pytest.raises(ValueError, match="no folders train, validation or test"):
        load_dataset(f"imagefolder:{tmp_path}")


# -- Label Studio -----------------------------------------------------------


def task(image, *texts, area="caption", **annotation):
    result = [
        {"type": "textarea", "from_name": area, "value": {"text": list(texts)}},
        {"type": "choices", "from_name": "kind", "value": {"choices": ["x"]}},
    ]
    return {"data": {"image": image}, "annotations": [{"result": result, **annotation}]}


def test_label_studio_json(folder):
    tasks = [
        task("/data/upload/1/a1b2c3d4-a.jpg", "A dog", "One dog"),
        task("/data/local-files/?d=photos%2Fb.jpg", "A cat"),
        task("/data/upload/1/a1b2c3d4-b.png", "Cancelled", was_cancelled=True),
        {"data": {"text": "no image"}, "annotations": []},
    ]
    path = folder / "export.json"
    path.write_text(json.dumps(tasks))
    for spec in (path, f"label_studio:{path}"):
        dataset = load_dataset(spec)
        assert sorted(captions(dataset).values()) == [["A cat"], ["A dog", "One dog"]]
        assert ("object 4", "task without an image") in dataset.summary().left_out
        assert "found by the end of their paths: 2 images" in str(dataset.summary())


def test_label_studio_csv_and_min_json(folder):
    image = "/data/upload/1/a1b2c3d4-a.jpg"
    (folder / "e.csv").write_text(f"image,id,caption,annotator\n{image},0,A dog,1\n")
    (folder / "e.json").write_text(
        json.dumps([{"image": image, "id": 0, "caption": "A dog"}])
    )
    for name in ("e.csv", "e.json"):
        dataset = load_dataset(folder / name)
        assert list(captions(dataset).values()) == [["A dog"]]


def test_label_studio_areas(folder):
    path = folder / "export.json"
    path.write_text(json.dumps([task("photos/a.jpg", "A dog", area="words")]))
    assert list(captions(load_dataset(path)).values()) == [["A dog"]]
    both = task("photos/a.jpg", "A dog", area="words")
    both["annotations"] += task("", "Nice", area="remarks")["annotations"]
    path.write_text(json.dumps([both]))
    with pytest.raises(ValueError, match="name the one .* Received: remarks, words"):
        load_dataset(path)
    both["annotations"] += task("", "One dog")["annotations"]
    path.write_text(json.dumps([both]))
    assert list(captions(load_dataset(path)).values()) == [["One dog"]]
    path.write_text(json.dumps([{"data": {"image": "a"}, "annotations": [7]}]))
    with pytest.raises(ValueError, match="object 1: no task of Label Studio"):
        load_dataset(path)

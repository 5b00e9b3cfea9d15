"""CHAIR: which objects a caption names, and which of them no reference has."""

import pytest

from captioner.metrics import chair
from captioner.metrics.chair import OBJECTS, objects_of


def test_there_are_the_80_objects_of_coco():
    assert len(OBJECTS) == 80


@pytest.mark.parametrize("name", OBJECTS)
def test_each_object_is_named_by_its_own_words(name):
    words = [name, *filter(None, OBJECTS[name].split(", "))]
    for word in words:
        assert objects_of(f"a photo of a {word} here".split()) == {name}, word


@pytest.mark.parametrize(
    "caption, objects",
    [
        ("a hot dog in a bun", {"hot dog"}),
        ("a dog next to a hot dog", {"dog", "hot dog"}),
        ("a train track in the woods", set()),
        ("three women and a child riding ponies", {"person", "horse"}),
        ("a teddy bear on a bed", {"teddy bear", "bed"}),
        ("a glass of red wine on a table", {"wine glass", "dining table"}),
        ("a baseball player swings a bat", {"person", "baseball bat"}),
        ("the sky is blue", set()),
        ("", set()),
    ],
)
def test_phrases_hide_the_words_in_them(caption, objects):
    assert objects_of(caption.split()) == objects


def test_an_object_of_a_reference_is_not_hallucinated():
    references = [[["a", "kitten"], ["a", "cat", "on", "a", "sofa"]], [["a", "boat"]]]
    captions = [["a", "cat", "on", "a", "couch"], ["a", "man", "in", "a", "canoe"]]
    found = chair(captions, references)
    assert found["chair_i"] == 1 / 4
    assert found["chair_s"] == 1 / 2
    assert found["objects"] == 4
    assert found["hallucinated"] == {"person": 1}


def test_captions_without_objects():
    found = chair([["red", "lines"]], [[["a", "dog"]]])
    assert found["chair_i"] is None
    assert found["chair_s"] == 0


def test_captions_and_references_go_together():
    with pytest.raises(ValueError):
        chair([["a"], ["b"]], [[["a"]]])

import random

import pytest
import tensorflow as tf

from captioner.tokenizers.tokenizer import SPECIAL_TOKENS, Tokenizer

CAPTIONS = [
    "A dog runs.",
    "A dog's ball isn't here",
    "Two dogs in T-shirts!",
    "a café in Москва",
    "the dogs' 2 balls",
]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_captions(CAPTIONS)


def round_trip(tokenizer, text):
    return tokenizer.detokenize(tokenizer.tokenize([text])).numpy()[0].decode()


def words_of(text):
    """The words that a caption brings into a vocabulary, sorted."""
    vocabulary = Tokenizer.from_captions([text]).vocabulary
    return sorted(vocabulary[len(SPECIAL_TOKENS) :])


@pytest.mark.parametrize(
    "text",
    [
        "a dog runs",
        "a dog's ball",
        "a dog's dogs's 2 café's t-shirts",
        "the ball isn't here",
        "two t-shirts",
        "a café in москва",
        "",
    ],
)
def test_known_text_comes_back_exactly(tokenizer, text):
    assert round_trip(tokenizer, text) == text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("A DOG runs , here .", "a dog runs here"),
        ("A dog\u2019s ball", "a dog's ball"),
        ("the dogs' ball", "the dogs ball"),
        ("'a' dog - runs--here", "a dog [UNK]"),
        ("CAFÉ, МОСКВА", "café москва"),
        ("a\tdog\n runs ", "a dog runs"),
        ("[PAD] [END] dog", "[UNK] [UNK] dog"),
        ("a zebra runs", "a [UNK] runs"),
    ],
)
def test_other_text_comes_back_plain(tokenizer, text, plain):
    assert round_trip(tokenizer, text) == plain


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dog's", ["'s", "dog"]),
        ("it's Bob's", ["'s", "bob", "it"]),
        ("dogs'", ["dogs"]),
        ("isn't", ["isn't"]),
        ("rock 'n' roll", ["n", "rock", "roll"]),
        ("black-and-white", ["black-and-white"]),
        ("- ' -- '' -'", []),
        ("!?.", []),
        ("", []),
    ],
)
def test_words(text, words):
    assert words_of(text) == words


def test_what_is_written_reads_back_as_the_same_words():
    """Whatever a caption looks like: its words, written, are the same words."""
    rng = random.Random(0)
    texts = ["".join(rng.choices("ast's'- -é.3", k=9)) for _ in range(2000)]
    texts = [text for text in texts if text.count("'s") < 2]  # no "dog's's"
    tokenizer = Tokenizer.from_captions(texts)
    token_ids = tokenizer.tokenize(texts)
    written = tokenizer.detokenize(token_ids)
    assert tokenizer.tokenize(written).to_list() == token_ids.to_list()


def test_special_tokens_come_first(tokenizer):
    assert tokenizer.vocabulary[:4] == ["[PAD]", "[START]", "[END]", "[UNK]"]
    ids = tokenizer.pad_id, tokenizer.start_id, tokenizer.end_id, tokenizer.unknown_id
    assert ids == (0, 1, 2, 3)
    assert tokenizer.vocabulary_size == len(tokenizer.vocabulary)


def test_vocabulary_is_ordered_by_count_then_alphabet():
    tokenizer = Tokenizer.from_captions(["b c", "c a", "a c"])
    assert tokenizer.vocabulary[4:] == ["c", "a", "b"]


def test_vocabulary_does_not_depend_on_the_order_of_captions(tokenizer):
    shuffled = Tokenizer.from_captions(reversed(CAPTIONS))
    assert shuffled.vocabulary == tokenizer.vocabulary


def test_min_count():
    tokenizer = Tokenizer.from_captions(["a dog", "a cat", "a dog"], min_count=2)
    assert tokenizer.vocabulary[4:] == ["a", "dog"]
    assert tokenizer.tokenize(["a cat"]).to_list() == [[4, tokenizer.unknown_id]]


def test_unknown_rate():
    tokenizer = Tokenizer.from_captions(["a dog"])
    assert tokenizer.unknown_rate(["a dog", "a cat"]) == 0.25
    assert tokenizer.unknown_rate(["..."]) == 0.0


def test_no_captions_still_make_a_tokenizer():
    assert Tokenizer.from_captions([]).vocabulary == list(SPECIAL_TOKENS)


def test_assets_round_trip(tokenizer, tmp_path):
    tokenizer.save_assets(tmp_path)
    loaded = Tokenizer.from_assets(tmp_path)
    assert loaded.vocabulary == tokenizer.vocabulary
    assert round_trip(loaded, "a dog's café") == "a dog's café"


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        (["a", "dog"], "must start with"),
        ([*SPECIAL_TOKENS, "dog", "dog"], "twice.*'dog'"),
    ],
)
def test_bad_vocabulary(vocabulary, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer(vocabulary)


def test_detokenize_stops_at_the_end_token(tokenizer):
    a, dog, runs = tokenizer.tokenize(["a dog runs"]).to_list()[0]
    token_ids = [
        [tokenizer.start_id, a, dog, tokenizer.end_id, runs, tokenizer.end_id],
        [a, dog, runs, tokenizer.pad_id, tokenizer.pad_id, tokenizer.pad_id],
        [tokenizer.end_id] + 5 * [tokenizer.pad_id],
    ]
    texts = tokenizer.detokenize(tf.constant(token_ids)).numpy().tolist()
    assert texts == [b"a dog", b"a dog runs", b""]


def test_detokenize_keeps_leading_dimensions(tokenizer):
    token_ids = tf.zeros((2, 3, 5), tf.int32)
    assert tokenizer.detokenize(token_ids).shape == (2, 3)


def test_in_tf_data(tokenizer):
    texts = tf.data.Dataset.from_tensor_slices(CAPTIONS).batch(2)
    batches = texts.map(lambda text: tokenizer.detokenize(tokenizer.tokenize(text)))
    found = [text.decode() for batch in batches for text in batch.numpy()]
    assert found == [round_trip(tokenizer, text) for text in CAPTIONS]


def test_detokenize_in_an_exported_graph(tokenizer, tmp_path):
    """Core ops only: the graph runs where nothing but TensorFlow is registered."""
    module = tf.Module()
    module.detokenize = tf.function(
        tokenizer.detokenize, input_signature=[tf.TensorSpec((None, None), tf.int32)]
    )
    tf.saved_model.save(module, str(tmp_path))
    graph = module.detokenize.get_concrete_function().graph
    assert not {"PyFunc", "EagerPyFunc"} & {op.type for op in graph.get_operations()}

    loaded = tf.saved_model.load(str(tmp_path))
    token_ids = tokenizer.tokenize(["a dog's ball", "two dogs"]).to_tensor()
    assert loaded.detokenize(token_ids).numpy().tolist() == [
        b"a dog's ball",
        b"two dogs",
    ]


def test_words_are_counted_as_they_are_split():
    counts = Tokenizer.count_words(["A dog's ball.", "a Café"])
    assert counts == {"a": 2, "dog": 1, "'s": 1, "ball": 1, "café": 1}
    assert Tokenizer.count_words([]) == {}
    made = Tokenizer.from_counts(Tokenizer.count_words(CAPTIONS), min_count=2)
    assert made.vocabulary == Tokenizer.from_captions(CAPTIONS, 2).vocabulary


def test_more_words_leave_the_ids_of_the_old_ones(tokenizer):
    more = tokenizer.with_words(["zebra", "dog", "emu"])
    assert more.vocabulary == [*tokenizer.vocabulary, "zebra", "emu"]
    assert round_trip(more, "a zebra runs") == "a zebra runs"

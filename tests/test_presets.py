import copy
import gc
import io
import json
import os
import pathlib
import shutil

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import captioner
from captioner import presets
from captioner.presets import PresetError
from captioner.tasks.image_captioner import ImageCaptioner


@pytest.fixture(scope="module")
def saved(tiny_captioner, tmp_path_factory):
    return tiny_captioner.save_to_preset(
        tmp_path_factory.mktemp("presets") / "tiny",
        recipe={"seed": 1},
        scores={"cider": 0.5},
        card="# Tiny",
    )


@pytest.fixture
def preset(saved, tmp_path):
    """A copy of a whole preset, to be damaged."""
    return shutil.copytree(saved, tmp_path / "tiny")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty `$CAPTIONER_HOME`."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("CAPTIONER_HOME", str(home))
    return home


def change_config(preset, **changes):
    """Change a configuration and sign it, as someone with bad intent would.

    A key such as `caption_model__hidden_dim` reaches into the nested dict.
    """
    config = presets.read_json(preset, "config.json")
    for key, value in changes.items():
        *path, last = key.split("__")
        inner = config
        for name in path:
            inner = inner[name]
        inner[last] = value
    presets.write_json(preset / "config.json", config)
    presets.write_metadata(preset)


def test_a_preset_is_complete(saved):
    files = {path.relative_to(saved).as_posix() for path in saved.rglob("*.*")}
    assert files == {
        "config.json",
        "model.weights.h5",
        "assets/vocabulary.txt",
        "recipe.json",
        "scores.json",
        "metadata.json",
        "README.md",
    }
    metadata = presets.read_json(saved, "metadata.json")
    assert set(metadata["files"]) == files - {"metadata.json", "README.md"}
    assert {"captioner_version", "keras_version", "tensorflow_version"} < set(metadata)
    presets.verify_preset(saved)


@pytest.mark.parametrize(
    "name", ["config.json", "model.weights.h5", "assets/vocabulary.txt", "scores.json"]
)
def test_a_changed_file_is_refused(preset, name):
    data = bytearray((preset / name).read_bytes())
    data[len(data) // 2] ^= 1
    (preset / name).write_bytes(data)
    with pytest.raises(PresetError, match=f"{name}: does not match its checksum"):
        ImageCaptioner.from_preset(preset)


def test_a_truncated_file_is_refused(preset):
    weights = preset / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(PresetError, match="model.weights.h5: does not match"):
        presets.verify_preset(preset)


@pytest.mark.parametrize("name", ["model.weights.h5", "assets/vocabulary.txt"])
def test_a_missing_file_is_refused(preset, name):
    (preset / name).unlink()
    with pytest.raises(PresetError, match=f"{name}: missing from the preset"):
        presets.verify_preset(preset)


def test_missing_metadata_is_refused(preset):
    (preset / "metadata.json").unlink()
    with pytest.raises(PresetError, match="metadata.json: cannot be read"):
        presets.verify_preset(preset)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"files": []}', "{}", '{"files": {}}', "\udc80"]
)
def test_metadata_that_lists_nothing_is_refused(preset, text):
    (preset / "metadata.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(PresetError, match="metadata.json: "):
        presets.verify_preset(preset)


@pytest.mark.parametrize(
    "name", ["config.json", "model.weights.h5", "assets/vocabulary.txt"]
)
def test_a_file_without_checksum_is_refused(preset, name):
    metadata = presets.read_json(preset, "metadata.json")
    del metadata["files"][name]
    presets.write_json(preset / "metadata.json", metadata)
    with pytest.raises(PresetError, match=f"no checksum of {name}"):
        presets.verify_preset(preset)


def test_readers_may_edit_the_card(preset):
    (preset / "README.md").write_text("# Mine")
    presets.verify_preset(preset)


def test_metadata_that_names_a_file_elsewhere_is_refused(preset):
    outside = preset.parent / "outside.txt"
    outside.write_text("secret")
    for name in ("../outside.txt", str(outside)):
        metadata = presets.read_json(preset, "metadata.json")
        metadata["files"][name] = presets.file_sha256(outside)
        presets.write_json(preset / "metadata.json", metadata)
        with pytest.raises(PresetError, match="names a file outside itself"):
            presets.verify_preset(preset)
        del metadata["files"][name]


def test_a_link_that_leads_elsewhere_is_refused(preset):
    weights = preset / "model.weights.h5"
    weights.rename(preset.parent / "elsewhere.h5")
    weights.symlink_to(preset.parent / "elsewhere.h5")
    with pytest.raises(PresetError, match="names a file outside itself"):
        presets.verify_preset(preset)


def test_found_by_path_and_by_name(saved, home, monkeypatch):
    shutil.copytree(saved, home / "mine")
    assert presets.find_preset(str(saved)) == saved
    assert presets.find_preset("mine") == home / "mine"
    assert home / "mine" in presets.list_presets()
    monkeypatch.chdir(saved.parent)
    assert presets.find_preset("tiny").resolve() == saved


def test_captioner_home_comes_first(repository, home):
    shipped = repository / "models" / "efficientnet_lite2_imagenet"
    assert presets.find_preset(shipped.name) == shipped
    (home / shipped.name).mkdir()
    (home / shipped.name / "config.json").write_text("{}")
    assert presets.find_preset(shipped.name) == home / shipped.name
    names = [preset.name for preset in presets.list_presets()]
    assert names.count(shipped.name) == 1


def test_an_unknown_name_lists_the_known_ones(saved, home):
    shutil.copytree(saved, home / "mine")
    with pytest.raises(PresetError, match="No preset 'yours' .*mine") as caught:
        ImageCaptioner.from_preset("yours")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../tiny", "x/../../tiny", "..", "", "."])
def test_a_name_does_not_climb_out_of_the_folders(saved, home, name):
    shutil.copytree(saved, home.parent / "tiny")
    with pytest.raises(PresetError, match="No preset"):
        presets.find_preset(name)


def fill(folder, text):
    (folder / "config.json").write_text(text)
    (folder / "model.weights.h5").write_text(text)


@pytest.mark.parametrize("old", [None, "old"])
def test_a_preset_that_fails_to_be_written_leaves_nothing(tmp_path, old):
    if old:
        with presets.new_preset(tmp_path / "mine") as folder:
            fill(folder, old)
    with pytest.raises(OSError, match="No space left"):
        with presets.new_preset(tmp_path / "mine") as folder:
            fill(folder, "new")
            raise OSError("No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == (["mine"] if old else [])
    if old:
        presets.verify_preset(tmp_path / "mine")
        assert (tmp_path / "mine" / "config.json").read_text() == "old"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_full_disk_is_one_clear_line(tiny_captioner, tmp_path, capfd, dtype):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file above these bytes: the weights do not fit, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OSError) as caught:
            tiny_captioner.save_to_preset(tmp_path / "mine", dtype=dtype)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    gc.collect()  # HDF5 complains from files that it could not close
    assert caught.value.filename == str(tmp_path / "mine")
    assert caught.value.strerror == "File too large"
    assert capfd.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


def test_a_preset_replaces_a_preset(tmp_path):
    for text in ("old", "new"):
        with presets.new_preset(tmp_path / "in" / "mine") as folder:
            fill(folder, text)
            if text == "old":
                (folder / "scores.json").write_text("{}")
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["mine"]
    presets.verify_preset(tmp_path / "in" / "mine")
    assert (tmp_path / "in" / "mine" / "config.json").read_text() == "new"
    assert not (tmp_path / "in" / "mine" / "scores.json").exists()


def test_anyone_may_read_a_preset(tmp_path):
    with presets.new_preset(tmp_path / "mine") as folder:
        fill(folder, "{}")
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o755


def test_an_empty_folder_becomes_a_preset(tmp_path):
    (tmp_path / "mine").mkdir()
    with presets.new_preset(tmp_path / "mine") as folder:
        fill(folder, "{}")
    presets.verify_preset(tmp_path / "mine")


def test_a_foreign_folder_or_file_is_not_replaced(tiny_captioner, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("precious")
    (tmp_path / "notes").write_text("precious")
    for name in ("photos", "notes"):
        with pytest.raises(PresetError, match="is not a preset, not overwritten"):
            tiny_captioner.save_to_preset(tmp_path / name)
    assert (tmp_path / "photos" / "a.jpg").read_text() == "precious"
    assert (tmp_path / "notes").read_text() == "precious"


def test_a_folder_that_only_looks_like_a_preset_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "metadata.json").write_text('{"my": "photos"}')
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"precious")
    with pytest.raises(PresetError, match="not a preset"):
        with presets.new_preset(tmp_path / "mine") as folder:
            fill(folder, "{}")
    assert (tmp_path / "mine" / "photo.jpg").read_bytes() == b"precious"


def test_half_written_presets_are_not_listed(home):
    """What a killed run leaves: the temporary folder of a preset."""
    with presets.new_preset(home / "mine") as folder:
        fill(folder, "{}")
        killed = shutil.copytree(folder, home / f"{folder.name}killed")
    found = [preset.name for preset in presets.list_presets()]
    assert "mine" in found
    assert killed.name not in found


@pytest.mark.parametrize(
    "change",
    [
        {"caption_model__hidden_dim": 10**9},
        {"caption_model__hidden_dim": 0},
        {"caption_model__hidden_dim": "8"},
        {"caption_model__hidden_dim": True},
        {"caption_model__num_layers": 1.5},
        {"caption_model__dtype": {"class_name": "DTypePolicy"}},
        {"image_converter__image_size": [4096, 4096]},
        {"caption_model__intermediate_dim": 10**9},
        {"caption_model__num_layers": 10**9},
        {"caption_model__vocabulary_size": 10**9},
        {"caption_model__image_feature_shape": [10**9, 1024]},
        {"caption_model__image_feature_shape": [4, 10**9]},
        {"caption_model__image_feature_shape": [4]},
        {"caption_model__vision_backbone__image_size": [10**6, 10**6]},
        {"max_sequence_length": 10**9},
        {"image_converter__image_size": [10**9, 64]},
        {"sampler__config": {"num_beams": 10**9}},
        {"sampler__config": {"constraints": {"max_length": 10**9}}},
        {"sampler__config": {"constraints": {"banned": ["a b"] * 10**5}}},
        {"sampler": {"name": "random", "config": {"num_hypotheses": 10**9}}},
    ],
    ids=str,
)
def test_sizes_that_would_eat_the_memory_are_refused_unbuilt(
    preset, change, monkeypatch
):
    change_config(preset, **change)
    monkeypatch.setattr(
        "captioner.tasks.image_captioner.CaptionModel.from_config",
        lambda config: pytest.fail("was built"),
    )
    with pytest.raises(PresetError, match="tiny: cannot be rebuilt") as caught:
        ImageCaptioner.from_preset(preset)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"caption_model__mixer": "nope"},
        {"caption_model__hidden_dim": 8},
        {"caption_model__vision_backbone__architecture": "nope"},
        {"caption_model__vision_backbone": "vgg16"},
        {"caption_model__image_feature_shape": [1, 1024]},
        {"caption_model": None},
        {"image_converter": None},
        {"sampler__name": "nope"},
        {"sampler__config": {"nope": 1}},
        {"sampler__config": {"constraints": {"nope": 1}}},
        {"sampler__config": {"constraints": 3}},
    ],
    ids=str,
)
def test_a_configuration_that_fits_nothing_is_refused(preset, change):
    change_config(preset, **change)
    with pytest.raises(PresetError, match="cannot be rebuilt|does not have") as caught:
        ImageCaptioner.from_preset(preset)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "null", "3"])
def test_a_configuration_that_is_no_dict_is_refused(preset, text):
    (preset / "config.json").write_text(text)
    presets.write_metadata(preset)
    with pytest.raises(PresetError, match="config.json: "):
        ImageCaptioner.from_preset(preset)


def test_a_preset_of_another_class_is_refused(preset):
    change_config(preset, class_name="Other")
    with pytest.raises(PresetError, match="holds a Other, not an ImageCaptioner"):
        ImageCaptioner.from_preset(preset)


def test_a_backbone_alone_is_no_captioner():
    with pytest.raises(PresetError, match="not an ImageCaptioner"):
        ImageCaptioner.from_preset("efficientnet_lite2_imagenet")


@pytest.mark.parametrize(
    "change",
    [
        {"caption_model__hidden_dim": 16_384},
        {"caption_model__num_layers": 128, "caption_model__hidden_dim": 4_096},
        {"caption_model__intermediate_dim": 65_536},
        {"caption_model__vision_backbone__architecture": "convnext_xlarge"},
    ],
    ids=str,
)
def test_sizes_whose_product_would_eat_the_memory_take_none(preset, change):
    change_config(preset, **change)
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PresetError, match="rebuilt|does not have|model of config.json"):
        ImageCaptioner.from_preset(preset)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300_000  # kB; it would be a gigabyte or more


def test_a_sampler_that_keeps_too_much_of_a_photo(tiny_captioner, tmp_path):
    words = " ".join(f"word{i}" for i in range(1_100))
    tokenizer = captioner.Tokenizer.from_captions([words])
    model = captioner.CaptionModel(
        tokenizer.vocabulary_size,
        (1, 4),
        None,
        "transformer",
        num_layers=1,
        hidden_dim=64,
    )
    converter = captioner.ImageConverter((8, 8))
    made = ImageCaptioner(
        model, captioner.CaptionPreprocessor(converter, tokenizer, 1_024)
    )
    preset = made.save_to_preset(tmp_path / "wide")
    change_config(preset, sampler__config={"num_beams": 1_024})
    with pytest.raises(PresetError, match="decodes 491 beams .* Received: 1024"):
        ImageCaptioner.from_preset(preset)


def sign_weights(preset, change):
    """Let a function change the open weights file, and sign it."""
    with h5py.File(preset / "model.weights.h5", "r+") as file:
        matrices = []
        file.visititems(
            lambda name, item: matrices.append(name) if hasattr(item, "ndim") else None
        )
        matrices = [name for name in matrices if file[name].ndim == 2]
        change(file, matrices[0])
    presets.write_metadata(preset)


def external_link(file, name):
    file[name.rsplit("/", 1)[0]]["other"] = h5py.ExternalLink("/etc/hosts", "/x")


def external_link_in_place(file, name):
    del file[name]
    file[name] = h5py.ExternalLink("/etc/hosts", "/x")


def soft_link(file, name):
    file["other"] = h5py.SoftLink(f"/{name}")


def hard_link(file, name):
    file["other"] = file[name]


def loop(file, name):
    file[name.rsplit("/", 1)[0]]["loop"] = file["/"]


def external_storage(file, name):
    shape = file[name].shape
    del file[name]
    size = 4 * shape[0] * shape[1]
    external = [("/etc/hosts", 0, size)]
    file.create_dataset(name, shape, "float32", external=external)


def virtual(file, name):
    shape = file[name].shape
    del file[name]
    layout = h5py.VirtualLayout(shape, "float32")
    layout[:] = h5py.VirtualSource("/etc/hosts", "x", shape=shape)
    file.create_virtual_dataset(name, layout)


def not_stored(file, name):
    del file[name]
    file.create_dataset(name, (40_000, 30_000), "float32")


def compressed(file, name):
    value = file[name][()] * 0
    del file[name]
    file.create_dataset(name, data=value, compression="gzip")


def text(file, name):
    del file[name]
    file.create_dataset(name, data=["a", "b"])


@pytest.mark.parametrize(
    "change",
    [
        external_link,
        external_link_in_place,
        soft_link,
        hard_link,
        loop,
        external_storage,
        virtual,
        not_stored,
        compressed,
        text,
    ],
    ids=lambda change: change.__name__,
)
def test_weights_that_are_not_in_the_file_itself(preset, change, monkeypatch):
    sign_weights(preset, change)
    monkeypatch.setattr(
        "keras.Model.load_weights", lambda *_, **__: pytest.fail("was read")
    )
    with pytest.raises(PresetError, match="model.weights.h5: .*must not") as caught:
        ImageCaptioner.from_preset(preset)
    assert "\n" not in str(caught.value)


def test_tensors_of_other_shapes_are_refused_unread(preset, monkeypatch):
    def grow(file, name):
        value = file[name][()]
        del file[name]
        file[name] = np.concatenate([value, value])

    sign_weights(preset, grow)
    monkeypatch.setattr(
        "keras.Model.load_weights", lambda *_, **__: pytest.fail("was read")
    )
    with pytest.raises(PresetError, match="holds weights of the shape .* not have"):
        ImageCaptioner.from_preset(preset)


def test_weights_that_are_missing(preset):
    def remove(file, name):
        del file[name]

    sign_weights(preset, remove)
    with pytest.raises(PresetError, match="model of config.json has .* weights"):
        ImageCaptioner.from_preset(preset)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers(preset, value):
    def spoil(file, name):
        file[name][0, 0] = value

    sign_weights(preset, spoil)
    with pytest.raises(PresetError, match="model.weights.h5: .* not finite numbers"):
        ImageCaptioner.from_preset(preset)


@pytest.mark.parametrize("weights", ["imagenet", "outside"])
def test_a_configuration_chooses_no_weights(preset, tmp_path, weights, monkeypatch):
    outside = tmp_path / "outside.weights.h5"
    outside.write_bytes(b"not to be opened")
    given = str(outside) if weights == "outside" else weights
    change_config(preset, caption_model__vision_backbone__weights=given)
    monkeypatch.setattr(
        "keras.utils.get_file", lambda *_, **__: pytest.fail("is downloaded")
    )
    made = ImageCaptioner.from_preset(preset)
    assert made.backbone.get_config()["weights"] is None


@pytest.mark.parametrize("name", ["metadata.json", "config.json"])
def test_a_pipe_is_not_waited_for(preset, name):
    (preset / name).unlink()
    os.mkfifo(preset / name)
    with pytest.raises(PresetError):
        ImageCaptioner.from_preset(preset)


def test_a_pipe_among_the_assets_is_not_waited_for(preset):
    (preset / "assets" / "vocabulary.txt").unlink()
    os.mkfifo(preset / "assets" / "vocabulary.txt")
    with pytest.raises(PresetError, match="missing from the preset"):
        presets.verify_preset(preset)
    metadata = presets.read_json(preset, "metadata.json")
    del metadata["files"]["assets/vocabulary.txt"]
    presets.write_json(preset / "metadata.json", metadata)
    with pytest.raises(PresetError, match="no checksum of assets/vocabulary.txt"):
        presets.verify_preset(preset)


def test_json_of_any_size_is_not_read(preset):
    with (preset / "config.json").open("w") as file:
        file.truncate(presets.MAX_JSON_BYTES + 1)
    with pytest.raises(PresetError, match="config.json: .*16,777,217 bytes"):
        presets.read_json(preset, "config.json")


def test_a_folder_here_does_not_take_the_place_of_a_known_preset(
    saved, home, tmp_path, monkeypatch
):
    shutil.copytree(saved, home / "mine")
    shutil.copytree(saved, tmp_path / "here" / "mine")
    monkeypatch.chdir(tmp_path / "here")
    assert presets.find_preset("mine") == home / "mine"
    assert presets.find_preset("./mine").resolve() == tmp_path / "here" / "mine"


GOLDEN = pathlib.Path(__file__).parent / "golden" / "version_0_1_0"


@pytest.mark.parametrize("name", ["lstm_additive", "transformer_attention"])
def test_presets_of_version_0_1_0_load_and_caption_as_then(name):
    made = ImageCaptioner.from_preset(GOLDEN / name)
    expected = json.loads((GOLDEN / "captions.json").read_text())[name]
    found = made.generate_results(np.load(GOLDEN / "image_features.npy"))
    assert [[each.text for each in result.hypotheses] for result in found] == [
        row["captions"] for row in expected
    ]
    np.testing.assert_allclose(
        [result.score for result in found],
        [row["score"] for row in expected],
        rtol=1e-4,
    )


# What a fuzzer puts in the place of a value of `config.json`.
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["lstm", "greedy", "vgg16", "float16", "mixed_float16", "pad", ""]),
    st.lists(st.integers(-3, 70_000), max_size=4),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
    st.sampled_from(
        [
            {"class_name": "Lambda", "module": "keras.layers", "config": {}},
            {"class_name": "system", "module": "os", "config": {}},
            {"class_name": "function", "module": "keras.utils", "config": "get_file"},
            {"class_name": "Sequential", "module": "keras", "config": {"layers": []}},
        ]
    ),
)


def places(value, path=()):
    """The paths of all values in a nest of dicts and lists."""
    yield path
    if isinstance(value, dict):
        value = value.items()
    elif isinstance(value, list):
        value = enumerate(value)
    else:
        return
    for key, inner in value:
        yield from places(inner, (*path, key))


def fuzz(preset, count):
    config = presets.read_json(preset, "config.json")
    all_places = [place for place in places(config) if place]

    @settings(max_examples=count, deadline=None, database=None, derandomize=True)
    @given(
        st.lists(st.tuples(st.sampled_from(all_places), ODD), min_size=1, max_size=2)
    )
    def run(changes):
        odd = copy.deepcopy(config)
        for place, value in changes:
            inner = odd
            try:
                for key in place[:-1]:
                    inner = inner[key]
                inner[place[-1]] = copy.deepcopy(value)
            except (KeyError, IndexError, TypeError):
                pass  # what the change before it has replaced
        presets.write_json(preset / "config.json", odd)
        presets.write_metadata(preset)
        try:
            made = ImageCaptioner.from_preset(preset)
        except PresetError as error:
            assert "\n" not in str(error) and len(str(error)) < 2_000
        else:
            features = np.zeros((1, *made.feature_spec.shape), "float32")
            assert isinstance(made.generate(features)[0], str)

    run()


@pytest.fixture
def small_preset(tmp_path):
    """One that loads in no time."""
    return shutil.copytree(GOLDEN / "lstm_additive", tmp_path / "small")


def test_odd_configurations_are_refused_or_work(small_preset):
    fuzz(small_preset, 40)


@pytest.mark.fuzz
@pytest.mark.slow
def test_many_odd_configurations_are_refused_or_work(small_preset, preset):
    fuzz(small_preset, 1_500)
    fuzz(preset, 150)


def test_shrink_weights():
    weights = io.BytesIO()
    rng = np.random.default_rng(0)
    large = rng.normal(size=(100, 100)).astype("float32")
    small = rng.normal(size=(100,)).astype("float32")
    with h5py.File(weights, "w") as file:
        file["layer/large"], file["layer/small"] = large, small
        file["layer/seed"] = np.arange(5000)
        file["layer"].attrs["name"] = "layer"
    shrunk = presets.shrink_weights(weights.getvalue())
    assert len(shrunk) < len(weights.getvalue()) - 15_000
    with h5py.File(io.BytesIO(shrunk)) as file:
        assert file["layer/large"].dtype == "float16"
        np.testing.assert_array_equal(file["layer/large"], large.astype("float16"))
        np.testing.assert_array_equal(file["layer/small"], small)
        np.testing.assert_array_equal(file["layer/seed"], np.arange(5000))
        assert file["layer"].attrs["name"] == "layer"


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "scores.json"
    presets.write_json(path, {"café": 1})
    with pytest.raises(TypeError):
        presets.write_json(path, {"café": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"café": 1}
    assert [each.name for each in tmp_path.iterdir()] == [path.name]

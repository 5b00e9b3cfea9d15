"""The folder of a training: nothing is mixed, and only one training is at work."""

import dataclasses

import pytest

import captioner
from captioner.training.run_folder import RunFolder
from captioner.training.training_options import TrainingOptions


def recipe(**options):
    options = TrainingOptions(init_from="none", **options)
    return {"train": {"dataset": "scenes:64", **dataclasses.asdict(options)}}


@pytest.fixture
def folder(tmp_path):
    """That of a run that can be resumed."""
    made = RunFolder(tmp_path / "run")
    with made.lock():
        made.write_recipe(recipe(epochs=3, hidden_dim=16))
        made.note(dataset="scenes:64")
    return RunFolder(tmp_path / "run", resume=True)


def test_only_one_training_is_at_work_in_a_folder(tmp_path, folder):
    with folder.lock():
        for again in (folder, RunFolder(folder.path, resume=True)):
            with pytest.raises(ValueError, match="Another training is at work in"):
                with again.lock():
                    pass
        with pytest.raises(ValueError, match="Another training is at work in"):
            captioner.train(output=folder.path, resume=True)
    with folder.lock():
        pass  # it is free again


def test_of_two_new_trainings_the_second_is_refused(tmp_path):
    """Both saw that there was nothing."""
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    for each in (first, second):
        each.refuse_other_files()
    with first.lock():
        with pytest.raises(ValueError, match="Another training is at work"):
            with second.lock():
                pass
        first.write_recipe(recipe())
    with pytest.raises(ValueError, match="is not empty.*--resume"):
        with second.lock():
            pass


def test_features_may_be_there_already(tmp_path):
    (tmp_path / "features").mkdir()
    RunFolder(tmp_path).refuse_other_files()
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="is not empty: choose another output"):
        RunFolder(tmp_path).refuse_other_files()


def test_only_what_extends_a_run_may_change(folder):
    options, changed = folder.options({})
    assert options.epochs == 3 and options.hidden_dim == 16 and not changed
    options, changed = folder.options({"epochs": 5, "hidden_dim": 16, "patience": 9})
    assert (options.epochs, options.patience) == (5, 9)
    assert changed == {"epochs": [3, 5], "patience": [4, 9]}
    with pytest.raises(ValueError, match="with other options: hidden_dim=16, seed=0"):
        folder.options({"epochs": 5, "hidden_dim": 32, "seed": 1})
    # What was left to the program may be left to it again.
    options, changed = folder.options({"fusion": None, "init_from": "none"})
    assert not changed


def test_epochs_that_are_over_cannot_be_extended(folder):
    done = [{"stage": "crossentropy"}] * 3
    folder.check_extension({"epochs": [3, 5], "cider_epochs": [0, 1]}, done)
    with pytest.raises(ValueError, match="has done 3 epochs.*epochs=2"):
        folder.check_extension({"epochs": [3, 2]}, done)
    done.append({"stage": "cider"})
    with pytest.raises(ValueError, match="is over.*gone on to cider_epochs.*epochs=5"):
        folder.check_extension({"epochs": [3, 5]}, done)
    with pytest.raises(ValueError, match="is over.*fine_tune_epochs=1"):
        folder.check_extension({"fine_tune_epochs": [0, 1]}, done)
    folder.check_extension({"cider_epochs": [1, 5]}, done)


def test_a_recipe_of_another_version_is_refused(folder):
    other = recipe()
    del other["train"]["flips"]
    folder.write_recipe(other)
    with pytest.raises(ValueError, match="another version.*--init-from"):
        folder.options({})


def test_what_has_changed_is_named(folder):
    folder.note(words="a", pixels="b")
    folder.check_fingerprints({"words": "a", "pixels": "b"})
    with pytest.raises(ValueError, match="^words changed since the training in"):
        folder.check_fingerprints({"words": "c", "pixels": "b"})


def test_clean_deletes_what_only_resume_needs(folder):
    for name in ("checkpoint/ckpt", "features/vgg16/a.npy", "preset/config.json"):
        (folder.path / name).parent.mkdir(parents=True)
        (folder.path / name).write_bytes(bytes(1000))
    assert folder.disposable_bytes() == 2000
    folder.clean()
    left = {path.name for path in folder.path.iterdir()}
    assert left == {"preset", "recipe.json", "run.json", ".lock"}
    assert RunFolder(folder.path, resume=True).run_info["cleaned"]

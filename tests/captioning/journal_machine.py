"""Drives runs over a folder at random: photos come, change and go, people write into
sidecars, and runs are killed at any step. See test_resume.py.

    python journal_machine.py EXAMPLES STEPS [SEED]

A process of its own, without TensorFlow, which forks the runs that it kills.
"""

import csv
import os
import shutil
import sys
import tempfile
from pathlib import Path

import hypothesis
from hypothesis import stateful, strategies
from stand_in import caption_of, run

from captioner.journal import Journal

names = strategies.sampled_from("abcd")
contents = strategies.integers(0, 99)


class PhotoFolder(stateful.RuleBasedStateMachine):
    """A folder of photos, what people do with it, and what must be true."""

    def __init__(self):
        super().__init__()
        # In memory where there is such a place: runs wait for their disk often.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(dir=memory))
        os.chdir(self.folder)
        os.mkdir("photos")
        self.photos, self.own = {}, {}  # name: content, name: words of people
        self.clock = 1_700_000_000
        self.csvs = {None}  # contents that captions.csv may have

    def teardown(self):
        os.chdir("/")
        shutil.rmtree(self.folder)

    def photo(self, name):
        return Path("photos", f"{name}.jpg")

    @stateful.initialize()
    def there_are_photos(self):
        for number, name in enumerate("abc"):
            self.a_photo_comes_or_changes(name, number)
        self.a_run_ends()

    @stateful.rule(name=names, content=contents)
    def a_photo_comes_or_changes(self, name, content):
        self.photos[name] = f"photo {content}".encode()
        self.photo(name).write_bytes(self.photos[name])
        self.touch(name)

    @stateful.rule(name=names)
    def a_photo_is_broken(self, name):
        self.photos[name] = b"bad"
        self.photo(name).write_bytes(b"bad")
        self.touch(name)

    @stateful.rule(name=names)
    def touch(self, name):
        if name in self.photos:
            self.clock += 1  # that of a disk is too coarse for such a pace
            os.utime(self.photo(name), (self.clock, self.clock))

    @stateful.rule(name=names)
    def a_photo_goes(self, name):
        if name in self.photos and len(self.photos) > 1:
            del self.photos[name]
            self.photo(name).unlink()

    @stateful.rule(name=names, number=contents)
    def somebody_writes(self, name, number):
        self.own[name] = f"my words {number}"
        self.photo(name).with_suffix(".txt").write_text(self.own[name])

    @stateful.rule(name=names)
    def a_sidecar_goes(self, name):
        self.own.pop(name, None)
        self.photo(name).with_suffix(".txt").unlink(missing_ok=True)

    @stateful.rule(name=names, content=contents, steps=strategies.integers(1, 25))
    def a_run_is_killed_after_a_change_and_continued(self, name, content, steps):
        self.a_photo_comes_or_changes(name, content)
        self.a_run_is_killed(steps)
        self.a_run_ends()

    @stateful.rule(steps=strategies.integers(1, 25))
    def a_run_is_killed(self, steps):
        child = os.fork()
        if not child:
            self.die_after(steps)
            self.run()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) in (0, 9)
        output = Path("captions.csv")
        found = output.read_bytes() if output.exists() else None
        # The old one or the new one, but never half of one.
        if found not in self.csvs:
            self.check_rows()
            self.csvs = {found}

    @stateful.rule()
    def a_run_ends(self):
        self.run()
        self.check_rows()
        self.csvs = {Path("captions.csv").read_bytes()}
        for name, content in self.photos.items():
            sidecar = self.photo(name).with_suffix(".txt")
            if name in self.own:
                assert sidecar.read_text() == self.own[name]
            elif content != b"bad":
                assert sidecar.read_text() == caption_of(content) + "\n"
        assert not [path for path in Path(".").rglob(".*.part")]
        before = Path("done.log").read_text()
        self.run()
        assert Path("done.log").read_text() == before, "done twice"
        assert Path("captions.csv").read_bytes() in self.csvs

    @stateful.invariant()
    def words_of_people_stay(self):
        for name, text in self.own.items():
            assert self.photo(name).with_suffix(".txt").read_text() == text

    def check_rows(self):
        with open("captions.csv", newline="") as file:
            rows = {row["path"]: row for row in csv.DictReader(file)}
        assert list(rows) == [str(self.photo(name)) for name in sorted(self.photos)]
        for name, content in self.photos.items():
            row = rows[str(self.photo(name))]
            # Where somebody wrote later than a run captioned, both are right.
            right = {self.own.get(name)}
            right |= {""} if content == b"bad" else {caption_of(content)}
            assert row["caption"] in right, (row, right)

    def run(self):
        Path("done.log").touch()
        run(sidecars=True)

    @staticmethod
    def die_after(steps):
        """End this process at one of the steps that are seen from outside."""
        steps = iter(range(steps))

        def counted(function):
            def call(*arguments, **options):
                if next(steps, None) is None:
                    os._exit(9)
                result = function(*arguments, **options)
                if next(steps, None) is None:
                    os._exit(9)
                return result

            return call

        for name in ("replace", "link", "unlink", "mkdir"):
            setattr(os, name, counted(getattr(os, name)))
        Journal._execute = counted(Journal._execute)


def main(examples, steps, seed=None):
    settings = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=seed is None,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],  # to find a shorter example takes minutes
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    machine = PhotoFolder
    if seed is not None:
        machine = hypothesis.seed(seed)(machine)
    stateful.run_state_machine_as_test(machine, settings=settings)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""Kills runs over a folder at random moments, many times; see test_resume.py.

    python killed_runs.py FOLDER NUMBER_OF_KILLS SEED

A process of its own, without TensorFlow: it forks a run, kills it (`kill -9`) and
starts it again until one comes to its end, and again with a new folder. A stand-in for
the model writes a caption that depends on the photo alone; all else is what users have.
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from stand_in import StandIn, run

NUM_PHOTOS = 40
StandIn.seconds = 0.001


def run_once():
    run(
        output=["captions.csv", "captions.jsonl", "gallery.html"],
        sidecars=True,
        xmp=True,
        existing="append",
    )


def make_photos(folder):
    folder.mkdir(parents=True)
    os.chdir(folder)
    for number in range(NUM_PHOTOS):
        photo = Path("photos", f"{number % 3}", f"{number}.jpg")
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_text(f"{'bad ' * (number % 7 == 3)}photo {number}")
        if number % 4 == 0:
            photo.with_suffix(".txt").write_text("my own words\n")


def tree():
    """All that a user sees: every file but the journal, with its content."""
    return {
        str(path): path.read_bytes()
        for path in sorted(Path(".").rglob("*"))
        if path.is_file() and path.name != "done.log" and "sqlite" not in path.name
    }


def run_and_kill(delay):
    """Whether a run came to its end before it was killed."""
    child = os.fork()
    if not child:
        try:
            run_once()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def main(folder, kills, seed):
    random.seed(seed)
    make_photos(folder / "whole")
    start = time.perf_counter()
    run_once()
    seconds = time.perf_counter() - start
    whole = tree()
    killed = trials = 0
    while killed < kills:
        make_photos(folder / "killed")
        own = 0
        while not run_and_kill(random.uniform(0, 1.2 * seconds)):
            own += 1
        assert tree() == whole, set(tree()) ^ set(whole)
        done = Path("done.log").read_text().split("\n")[:-1]
        # What was under way when it was killed is done again, and nothing else.
        assert len(set(done)) == NUM_PHOTOS and len(done) <= NUM_PHOTOS + 3 * own
        killed += own
        trials += 1
        os.chdir(folder)
        shutil.rmtree(folder / "killed")
    print(f"{killed} kills, {trials} runs")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), int(sys.argv[2]), int(sys.argv[3]))

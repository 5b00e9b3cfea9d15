"""The notebooks: they run from top to bottom, and can be read without running them."""

import re

import nbformat
import pytest
from nbclient import NotebookClient

TRAIN_A_CAPTIONER = "01_train_a_captioner.ipynb"
EPOCHS = 10
FIGURES = 5


def read_notebook(repository, name):
    notebook = nbformat.read(repository / "notebooks" / name, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook):
    """All that its cells print on standard output."""
    return "".join(
        output.text
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )


def figures(notebook):
    return [
        output
        for cell in code_cells(notebook)
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


def greedy_scores(notebook):
    """What `report("greedy", ...)` printed: percent exactly right, BLEU-4, CIDEr."""
    found = re.search(
        r"^greedy +exactly right: +([\d.]+)% +BLEU-4: ([\d.]+) +CIDEr: ([\d.]+)$",
        printed(notebook),
        re.MULTILINE,
    )
    assert found, printed(notebook)
    return tuple(float(number) for number in found.groups())


def epoch_losses(notebook):
    lines = re.findall(r"^epoch +\d+ +loss ([\d.]+)", printed(notebook), re.MULTILINE)
    return [float(loss) for loss in lines]


def test_the_notebook_can_be_read_without_running_it(repository):
    path = repository / "notebooks" / TRAIN_A_CAPTIONER
    notebook = read_notebook(repository, TRAIN_A_CAPTIONER)
    cells = code_cells(notebook)
    # From one run of the whole, from top to bottom.
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1))
    # Warnings, start-up notes and tracebacks are nothing to read.
    outputs = [output for cell in cells for output in cell.outputs]
    noise = [o for o in outputs if o.get("name") == "stderr" or "ename" in o]
    assert noise == [], f"rerun it or clear these outputs: {noise}"
    assert len(figures(notebook)) == FIGURES
    assert 1 < len(epoch_losses(notebook)) <= EPOCHS  # it may stop early
    assert greedy_scores(notebook)[0] >= 95
    assert path.stat().st_size < 1.5e6
    # Nor are the folders of whoever ran it.
    shown = [output.get("data", {}).get("text/plain", "") for output in outputs]
    sources = [cell.source for cell in notebook.cells]
    text = "\n".join([printed(notebook), *shown, *sources])
    assert not re.search(r"/(home|root|tmp|work|Users)\b", text)


def test_the_notebook_uses_the_public_names_only(repository):
    import captioner

    notebook = read_notebook(repository, TRAIN_A_CAPTIONER)
    source = "\n".join(cell.source for cell in code_cells(notebook))
    assert not re.search(r"from captioner|import captioner\.", source)
    names = set(re.findall(r"\bcaptioner\.(\w+)", source))
    assert {"ImageCaptioner", "train", "training_batches", "export"} <= names
    assert names <= set(captioner.__all__)


@pytest.mark.slow
def test_the_notebook_runs(repository, tmp_path, monkeypatch):
    # A checkout as the notebook sees it, and a place for its temporary files.
    notebooks, temporary = tmp_path / "notebooks", tmp_path / "temporary"
    notebooks.mkdir()
    temporary.mkdir()
    (tmp_path / "data").symlink_to(repository / "data", target_is_directory=True)
    monkeypatch.setenv("TMPDIR", str(temporary))
    notebook = read_notebook(repository, TRAIN_A_CAPTIONER)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None

    client = NotebookClient(
        notebook,
        timeout=3600,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(notebooks)}},
    )
    client.execute()  # raises where a cell fails

    assert "WARNING" not in printed(notebook)
    losses = epoch_losses(notebook)
    assert 1 < len(losses) <= EPOCHS
    assert losses[-1] < losses[0] / 2
    exactly_right, bleu_4, cider = greedy_scores(notebook)
    assert exactly_right >= 95
    assert bleu_4 >= 0.97
    assert cider >= 9.7
    # The reloaded preset says what the captioner said that was saved.
    before, after = re.findall(r"^(?:before|after): +(.+)$", printed(notebook), re.M)
    assert before == after
    assert len(figures(notebook)) == FIGURES
    assert "resumed after epoch 2" in printed(notebook)
    assert "new words, unknown to efficientnet_lite2" in printed(notebook)
    # Nothing stays behind, neither beside the notebook nor anywhere else.
    assert list(notebooks.iterdir()) == []
    assert list(temporary.iterdir()) == []

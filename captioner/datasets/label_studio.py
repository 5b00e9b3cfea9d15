"""The JSON export of Label Studio, a program with which people write captions.

Source: https://labelstud.io/guide/export, "JSON"
"""

import os

from captioner.datasets.dataset_builder import DatasetBuilder
from captioner.datasets.rows import IMAGE_COLUMNS, json_rows, read_json
from captioner.datasets.table import is_caption_column


def is_label_studio(data) -> bool:
    """Whether parsed JSON is such an export: tasks with data and annotations."""
    return bool(
        isinstance(data, list)
        and data
        and isinstance(data[0], dict)
        and isinstance(data[0].get("data"), dict)
        and ("annotations" in data[0] or "completions" in data[0])
    )


def read_label_studio(path, image_dir=None, split_fractions=None):
    """Reads the JSON export of Label Studio.

    The captions are the texts of the text area called `caption` (or `text`,
    `comment`, `sentence`), or of the only text area. Cancelled annotations do not
    count. The image is the task's `image`: a file that was uploaded
    (`/data/upload/1/a1b2c3d4-photo.jpg`), of local storage
    (`/data/local-files/?d=photos/photo.jpg`), or a URL. It is looked for by its file
    name beside the export, with and without the prefix that Label Studio puts before
    the names of uploaded files.

    Args:
        path: str. The file.
        image_dir: str or None. The folder of the photos, where it is elsewhere.
        split_fractions: three floats or None. See `DatasetBuilder`.

    Returns:
        A `CaptionDataset`.

    Raises:
        ValueError: If the file is no such export, there are several text areas and none
            of these names, or nothing usable is left.

    Example:

    ```python
    dataset = read_label_studio("export.json", image_dir="images")
    ```
    """
    data = read_json(path)
    if not is_label_studio(data):
        raise ValueError(
            f"{path} is no JSON export of Label Studio: expected tasks with data and "
            "annotations."
        )
    tasks = []
    try:
        for where, task in json_rows(path, data):
            column = next((key for key in IMAGE_COLUMNS if key in task["data"]), None)
            image = None if column is None else task["data"][column]
            tasks.append((where, image, list(_texts(task))))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}, {where}: no task of Label Studio: {error}"
        ) from error
    areas = sorted({area for _, _, texts in tasks for area, _ in texts})
    named = [area for area in areas if is_caption_column(area)]
    if len(areas) > 1 and not named:
        raise ValueError(
            f'{path} has several text areas; name the one with the captions "caption". '
            f"Received: {', '.join(areas)}"
        )
    base = os.path.dirname(path)
    builder = DatasetBuilder(f"label_studio:{path}", base, image_dir, split_fractions)
    for where, image, texts in tasks:
        if isinstance(image, str) and image.strip():
            captions = [text for area, text in texts if area in (named or areas)]
            builder.add(image.strip(), captions)
        else:
            builder.leave_out(where, "task without an image")
    return builder.build()


def _texts(task):
    """(name of the text area, text) of each text of a task."""
    for annotation in task.get("annotations", task.get("completions")):
        if annotation.get("was_cancelled"):
            continue
        for result in annotation["result"]:
            if result.get("type") == "textarea":
                texts = result["value"]["text"]
                for text in [texts] if isinstance(texts, str) else texts:
                    yield str(result["from_name"]), text

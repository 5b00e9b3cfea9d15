"""Every public name with its signature, so that none changes by accident.

After an intended change: `python tests/test_public_names.py > tests/public_names.txt`
"""

import inspect
import re
from pathlib import Path

import captioner

LIST = Path(__file__).with_name("public_names.txt")


def public_names():
    """The lines of the list: names, signatures, and the methods of classes."""
    lines = []
    for name in sorted(captioner.__all__):
        found = getattr(captioner, name)
        if not inspect.isclass(found):
            lines.append(name + (signature(found) if callable(found) else ""))
            continue
        lines.append(f"class {name}{signature(found)}")
        for method, value in sorted(members(found).items()):
            if isinstance(value, property):
                lines.append(f"    {method}")
            elif callable(value) or isinstance(value, (classmethod, staticmethod)):
                value = getattr(found, method)
                lines.append(f"    {method}{signature(value)}")
    return lines


def members(cls):
    """What a class and our own bases of it define, without a leading underscore."""
    found = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("captioner"):
            found |= vars(base)
    return {name: value for name, value in found.items() if not name.startswith("_")}


def signature(value):
    try:
        text = str(inspect.signature(value))
    except (TypeError, ValueError):
        return ""
    return re.sub(r" at 0x[0-9a-f]+|PosixPath", "", text)


def test_public_names_and_signatures_are_those_of_the_list():
    assert public_names() == LIST.read_text(encoding="utf-8").splitlines()


def test_every_public_name_is_documented():
    missing = []
    for name in captioner.__all__:
        found = getattr(captioner, name)
        if callable(found) and not inspect.getdoc(found):
            missing.append(name)
    assert not missing


if __name__ == "__main__":
    print("\n".join(public_names()))

"""Writes a file as Python programs do: python3 write.py KIND DIR TEXT.

$times says how often. Each write has TEXT and its number.
"""

import json
import os
import sys
import tempfile

kind, directory, text = sys.argv[1:4]
times = int(os.environ.get("times", "1"))
path = os.path.join(directory, "cfg.json")


def replace(content, **names):
    with tempfile.NamedTemporaryFile("w", dir=directory, delete=False, **names) as temp:
        temp.write(content)
        temp.flush()
        os.fsync(temp.fileno())
    os.replace(temp.name, path)


def plain(content):
    replace(content)


def suffix(content):
    replace(content, prefix="cfg.json.", suffix=".tmp")


def atomicwrites(content, overwrite=True):
    from atomicwrites import atomic_write

    with atomic_write(path, overwrite=overwrite) as temp:
        temp.write(content)


def atomicwrites_new(content):
    atomicwrites(content, overwrite=False)


write = {
    "plain": plain,
    "suffix": suffix,
    "atomicwrites": atomicwrites,
    "atomicwrites-new": atomicwrites_new,
}[kind]
for n in range(times):
    write(json.dumps({"text": text, "n": n}))

"""A kubeconfig that is somebody's: entries are added and taken away, and all else stays as it is written.

It is kept as YAML nodes, not as values. A token that is quoted so that it stays text (`"1e5"`) would come back from
values without its quotes, as a number to kubectl; a node keeps its quotes. Only comments are lost, hence the backup.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from auth.statefile import write_private
from cli.failures import Failed

LISTS = {"clusters": "cluster", "users": "user", "contexts": "context"}
BACKUP = ".kulvert-backup"
Document = dict[str, Any]
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_TEXT = "tag:yaml.org,2002:str"
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9/+=_.@:-]*[A-Za-z0-9/+=_.@-]")
_WORDS = frozenset(("true", "false", "null", "yes", "no", "on", "off"))
_WIDE = 1 << 30


class Kubeconfig:
    """The entries by their lists (`LISTS`) and names."""

    def __init__(self, root: yaml.MappingNode, text: str = "") -> None:
        self._root = root
        self._text = text
        self._lists = {key: _List(_get(root, key)) for key in LISTS}

    @classmethod
    def empty(cls) -> Kubeconfig:
        """A new one."""
        return cls(_node({"apiVersion": "v1", "kind": "Config"}))

    @classmethod
    def read(cls, path: Path) -> Kubeconfig:
        """One that is there; an empty one where there is none. :raises Failed: it is something else."""
        try:
            text = path.read_text(encoding="utf-8")
            root = yaml.compose(text, Loader=_Loader)
        except FileNotFoundError:
            return cls.empty()
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
            raise Failed(f"{path} is not YAML: nothing was written") from None
        if root is None:
            return cls(cls.empty()._root, text)
        if not isinstance(root, yaml.MappingNode) or not all(_is_list(root, key) for key in LISTS):
            raise Failed(f"{path} is not a kubeconfig: nothing was written")
        return cls(root, text)

    def names(self, key: str) -> list[str]:
        """Of a list's entries, in its order."""
        return list(self._lists[key].places)

    def entry(self, key: str, name: str) -> Document | None:
        """What is in an entry; every scalar is a text."""
        item = self._lists[key].get(name)
        found = _value(_get(item, LISTS[key])) if item is not None else None
        return found if isinstance(found, dict) else None if item is None else {}

    def put(self, key: str, name: str, value: Document, *, keep: bool = False, drop: tuple[str, ...] = ()) -> None:
        """Add an entry, or renew the one of that name. With `keep`, its fields that neither `value` nor `drop` names
        stay.
        """
        fresh = _node({"name": name, LISTS[key]: value})
        before = self._lists[key].get(name)
        self._lists[key].put(name, _over(before, fresh, LISTS[key], drop) if keep and before is not None else fresh)

    def remove(self, key: str, name: str) -> None:
        """Take an entry away."""
        self._lists[key].remove(name)

    @property
    def current(self) -> str:
        """The current context; empty where there is none."""
        return _text(_get(self._root, "current-context"))

    def use(self, name: str) -> None:
        """Make a context the current one."""
        _set(self._root, "current-context", _node({"": name}).value[0][1])

    def text(self) -> str:
        """As YAML."""
        for key, items in self._lists.items():
            if items.changed:
                _set(self._root, key, items.node())
        return str(yaml.serialize(self._root, Dumper=_Dumper, width=_WIDE, allow_unicode=True))

    def write(self, path: Path) -> Path | None:
        """Whole or not at all, for its owner alone; a symbolic link stays one. Gives the backup's path, if comments had
        to be saved there.
        """
        target, backup = path.resolve(), None
        if has_comments(self._text):
            backup = target.with_name(target.name + BACKUP)
            write_private(backup, self._text.encode())
        write_private(target, self.text().encode())
        return backup


class _List:
    """One of the lists, by names. Of two entries with one name the first counts: kubectl takes neither."""

    def __init__(self, node: yaml.Node | None) -> None:
        found = node.value if isinstance(node, yaml.SequenceNode) else []
        self._items: list[yaml.Node | None] = list(found)
        self.places: dict[str, int] = {}
        for place, item in enumerate(found):
            self.places.setdefault(_text(_get(item, "name")), place)
        self.changed = node is None

    def get(self, name: str) -> yaml.Node | None:
        place = self.places.get(name)
        return None if place is None else self._items[place]

    def put(self, name: str, item: yaml.Node) -> None:
        self.changed = True
        if name in self.places:
            self._items[self.places[name]] = item
        else:
            self.places[name] = len(self._items)
            self._items.append(item)

    def remove(self, name: str) -> None:
        if name in self.places:
            self.changed = True
            self._items[self.places.pop(name)] = None

    def node(self) -> yaml.SequenceNode:
        items = [item for item in self._items if item is not None]
        return yaml.SequenceNode("tag:yaml.org,2002:seq", items, flow_style=not items)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """As client-go locks a kubeconfig: `kubectl config` in another window neither loses our change nor we its.

    :raises Failed: somebody has it.
    """
    target = path.resolve()
    lock = target.with_name(target.name + ".lock")
    lock.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise Failed(f"{lock} is there: another program writes {path}; remove it if none does") from None
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def has_comments(text: str) -> bool:
    """Whether a YAML text says anything between its tokens."""
    if "#" not in text:
        return False
    end = 0
    for token in yaml.scan(text, Loader=_Loader):
        if "#" in text[end : token.start_mark.index]:
            return True
        end = max(end, token.end_mark.index)
    return "#" in text[end:]


class _Quoting(yaml.SafeDumper):
    """Quotes every text that some reader of YAML might take for something else."""


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return dumper.represent_scalar(_TEXT, text, style=None if plain else '"')


_Quoting.add_representer(str, _quoted)


def _node(value: Document) -> Any:
    dumper = _Quoting(io.StringIO(), sort_keys=False)  # it writes nothing there
    return dumper.represent_data(value)


def _value(node: yaml.Node | None) -> Any:
    try:
        return None if node is None else yaml.BaseLoader("").construct_object(node, deep=True)
    except yaml.YAMLError:
        return None


def _get(node: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for name, value in pairs if _text(name) == key), None)


def _set(node: yaml.Node, key: str, value: yaml.Node) -> None:
    for index, (name, _) in enumerate(node.value):
        if _text(name) == key:
            node.value[index] = (name, value)
            return
    node.value.append((yaml.ScalarNode(_TEXT, key), value))


def _over(item: yaml.Node, fresh: yaml.Node, key: str, drop: tuple[str, ...]) -> yaml.Node:
    """The new entry, with the old one's other fields."""
    ours = _get(fresh, key)
    assert ours is not None
    taken = {_text(name) for name, _ in ours.value} | set(drop)
    before = _get(item, key)
    pairs = before.value if isinstance(before, yaml.MappingNode) else []
    ours.value.extend(pair for pair in pairs if _text(pair[0]) not in taken)
    return fresh


def _text(node: yaml.Node | None) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""


def _is_list(root: yaml.MappingNode, key: str) -> bool:
    """A list of mappings, or nothing; and not twice."""
    found = [value for name, value in root.value if _text(name) == key]
    if len(found) != 1:
        return not found
    if isinstance(found[0], yaml.SequenceNode):
        return all(isinstance(item, yaml.MappingNode) for item in found[0].value)
    return _text(found[0]) in ("", "null", "~")

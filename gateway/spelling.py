"""How the server's settings are said: each has one name in three spellings.

    tls.clientCa in the file  =  KULVERT_TLS_CLIENT_CA in the environment  =  --tls-client-ca as a flag

Flags win over the environment, which wins over the file. A setting that does not exist is an error that names its
neighbours: a typing error must not silently leave a limit or an authority at its default. (In the environment names
that are not ours pass, because Kubernetes puts KULVERT_PORT_… there for a Service named kulvert.)
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from auth.yamlnodes import Value, YamlError, read_document
from gateway.config import ConfigError, ServerConfig

ENVIRONMENT = "KULVERT_"
_UPPER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Setting:
    """One leaf of the tree, and its spellings."""

    path: tuple[str, ...]
    kind: Any
    default: Any

    @property
    def flag(self) -> str:
        """Without its two dashes."""
        return "-".join(_UPPER.sub("-", part).lower() for part in self.path)

    @property
    def variable(self) -> str:
        """In the environment."""
        return ENVIRONMENT + self.flag.replace("-", "_").upper()

    @property
    def key(self) -> str:
        """In the file."""
        return ".".join(self.path)


def settings() -> tuple[Setting, ...]:
    """Every setting there is: for flags, their help, and the documentation."""
    return tuple(_leaves(ServerConfig, ()))


def load(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, str]) -> ServerConfig:
    """Settings from all three places; `flags` are by their names without dashes. Raises ConfigError."""
    known = {setting.key: setting for setting in settings()}
    values: dict[str, Any] = {}
    if file is not None:
        values |= _from_file(file, known)
    for setting in known.values():
        if setting.variable in environment:
            values[setting.key] = _parsed(setting, environment[setting.variable], setting.variable)
    by_flag = {setting.flag: setting for setting in known.values()}
    for name, text in flags.items():
        if name not in by_flag:
            raise ConfigError(f"--{name}: there is no such setting{_suggestion(name, by_flag)}")
        values[by_flag[name].key] = _parsed(by_flag[name], text, f"--{name}")
    return _built(ServerConfig, (), values)  # type: ignore[no-any-return]


def _leaves(kind: Any, path: tuple[str, ...]) -> Iterator[Setting]:
    hints = get_type_hints(kind)
    for one in fields(kind):
        here = (*path, _camel(one.name))
        if is_dataclass(hints[one.name]):
            yield from _leaves(hints[one.name], here)
        else:
            yield Setting(here, hints[one.name], one.default if one.default is not MISSING else None)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _built(kind: Any, path: tuple[str, ...], values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(kind)
    given = {}
    for one in fields(kind):
        here = (*path, _camel(one.name))
        if is_dataclass(hints[one.name]):
            given[one.name] = _built(hints[one.name], here, values)
        elif ".".join(here) in values:
            given[one.name] = values[".".join(here)]
    return kind(**given)


def _from_file(file: Path, known: Mapping[str, Setting]) -> dict[str, Any]:
    try:
        root = read_document(file.read_text(encoding="utf-8"), str(file))
        return dict(_walked(root, known))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8") from None
    except YamlError as error:
        raise ConfigError(str(error)) from None


def _walked(value: Value, known: Mapping[str, Setting]) -> Iterator[tuple[str, Any]]:
    """The file's leaves. Unknown names are errors with a suggestion."""
    if not isinstance(value.node, yaml.MappingNode):
        raise value.error("must be a mapping")
    seen: set[str] = set()
    for key, node in value.node.value:
        path = f"{value.path}.{key.value}".lstrip(".")
        here = Value(node, value.source, path, value.seen)
        if path in seen:
            raise here.error("the setting is there twice")
        seen.add(path)
        if path in known:
            yield path, _of_node(here, known[path])
        elif any(name.startswith(path + ".") for name in known):
            yield from _walked(here, known)
        else:
            raise here.error(f"there is no such setting{_suggestion(path, known)}")


def _of_node(value: Value, setting: Setting) -> Any:
    if setting.kind == tuple[str, ...]:
        return value.texts()
    if not isinstance(value.node, yaml.ScalarNode):
        raise value.error("must be a single value")
    return _parsed(setting, str(value.node.value), f"{value.source}:{value.node.start_mark.line + 1}: {value.path}")


def _parsed(setting: Setting, text: str, where: str) -> Any:
    try:
        if text == "0" and setting.kind is int and setting.default == 0:
            return 0  # what is off by default can be said to be
        return _PARSERS[setting.kind](text)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise ValueError(f"{text!r} is no positive whole number")
    return int(text)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,9}(?:\.\d{1,6})?", text, re.ASCII):
        raise ValueError(f"{text!r} is no number of seconds")
    return float(text)


def _path(text: str) -> Path:
    if not text:
        raise ValueError("the path is empty: leave the setting out instead")
    return Path(text)


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_PARSERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: _positive,
    bool: _flag,
    float: _seconds,
    Path: _path,
    Path | None: _path,
    tuple[str, ...]: _list,
}


def _suggestion(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(known))}"

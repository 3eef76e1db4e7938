"""Reads the agent's settings: flags beat the environment, which beats the file; an unknown key is an error,
not a silence.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from agent.address import BadAddress, parse_all
from agent.settings import ConfigError, JoinToken, Settings

PREFIX = "KULVERT_AGENT_"
_CLUSTER = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_LINK_NAME = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE)
TOKEN_FILE = "join_token_file"  # noqa: S105 -- a setting's name
MAX_PATTERN = 1_024
MAX_PATTERNS = 256
NAMES = (*(one.name for one in dataclasses.fields(Settings)), TOKEN_FILE)
"""All settings, in snake_case; `join_token_file` is read into `join_token`."""


def camel(name: str) -> str:
    """A setting's key in the file."""
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


def variable(name: str) -> str:
    """A setting's name in the environment."""
    return PREFIX + name.upper()


def load(path: Path | None, env: Mapping[str, str], flags: Mapping[str, object]) -> Settings:
    """The settings. `flags` are by snake_case names; those that are None are not set. Raises ConfigError."""
    values: dict[str, Any] = _from_file(path) if path is not None else {}
    for source in (_from_env(env), _from_flags(flags)):
        if {"join_token", TOKEN_FILE} & source.keys():
            values.pop("join_token", None)
            values.pop(TOKEN_FILE, None)
        values |= source
    _read_token_file(values)
    return _settings(values)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        read = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(f"{path} is not YAML") from None  # a parser's error quotes the line, which may be a secret
    if not isinstance(read, dict):
        raise ConfigError(f"{path} is not a mapping of settings")
    keys = {camel(name): name for name in NAMES}
    unknown = [str(key) for key in read if key not in keys]
    if unknown:
        raise ConfigError(f"{path}: unknown settings: {', '.join(unknown)}; known are {', '.join(keys)}")
    return {keys[key]: value for key, value in read.items() if value is not None}


def _from_env(env: Mapping[str, str]) -> dict[str, Any]:
    """Names that are not ours pass: Kubernetes puts KULVERT_AGENT_PORT_… there for a Service named kulvert-agent."""
    variables = {variable(name): name for name in NAMES}
    return {variables[key]: value for key, value in env.items() if key in variables and value != ""}


def _from_flags(flags: Mapping[str, object]) -> dict[str, Any]:
    unknown = [name for name in flags if name not in NAMES]
    if unknown:
        raise ConfigError(f"unknown flags: {', '.join(unknown)}")
    return {name: value for name, value in flags.items() if value is not None and value != ()}


def _read_token_file(values: dict[str, Any]) -> None:
    path = values.pop(TOKEN_FILE, None)
    if path is None:
        return
    if "join_token" in values:
        raise ConfigError("joinToken and joinTokenFile are both set: keep one")
    try:
        values["join_token"] = Path(str(path)).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read joinTokenFile, {path}: {getattr(error, 'strerror', 'not text')}") from error


def _settings(values: dict[str, Any]) -> Settings:
    missing = [camel(name) for name in ("servers", "cluster") if not values.get(name)]
    if missing:
        raise ConfigError(f"missing settings: {', '.join(missing)}")
    read: dict[str, Any] = {name: _READERS[name](camel(name), value) for name, value in values.items()}
    return Settings(**read)


def _texts(name: str, value: object) -> tuple[str, ...]:
    """A list, or in the environment and in flags a text with commas."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) and part.strip() for part in parts):
        raise ConfigError(f"{name} must be a list of texts")
    return tuple(part.strip() for part in parts)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable() or len(value) > 253:
        raise ConfigError(f"{name} must be a text of at most 253 printable characters")
    return value


def _path(name: str, value: object) -> Path:
    return value if isinstance(value, Path) else Path(_text(name, value))


def _flag(name: str, value: object) -> bool:
    known = {"true": True, "false": False}
    found = known.get(value) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise ConfigError(f"{name} must be true or false")
    return found


def _patterns(name: str, value: object) -> tuple[str, ...]:
    """An empty list is refused: nobody can say whether it is meant to allow everything, or nothing."""
    found = _texts(name, value)
    if not found or not all(one.isprintable() and len(one) <= MAX_PATTERN for one in found):
        raise ConfigError(f"{name} must be texts of at most {MAX_PATTERN} printable characters: leave it out for none")
    if len(found) > MAX_PATTERNS:
        raise ConfigError(f"{name} must be at most {MAX_PATTERNS} texts")
    return found


def _paths(name: str, value: object) -> tuple[str, ...]:
    """Shapes are checked: a rule that can never match would leave open what somebody meant to close."""
    found = _patterns(name, value)
    if not all(one[0] in "/*" for one in found):
        raise ConfigError(f"{name} must be paths that begin with / (or *)")
    return found


def _verbs(name: str, value: object) -> tuple[str, ...]:
    found = _patterns(name, value)
    if not all(re.fullmatch(r"[a-z*]+", one) for one in found):
        raise ConfigError(f"{name} must be verbs in lower case, such as get, list, watch, create")
    return found


def _namespaces(name: str, value: object) -> tuple[str, ...]:
    found = _patterns(name, value)
    if not all(re.fullmatch(r"[a-z0-9*-]{1,63}", one) for one in found):
        raise ConfigError(f"{name} must be names of namespaces, in which * stands for any characters")
    return found


def _count(least: int, most: int) -> Callable[[str, object], int]:
    def read(name: str, value: object) -> int:
        number = int(value) if isinstance(value, str) and value.isdecimal() else value
        if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
            raise ConfigError(f"{name} must be a number between {least} and {most}")
        return number

    return read


def _servers(name: str, value: object) -> tuple[Any, ...]:
    try:
        return parse_all(_texts(name, value))
    except BadAddress as error:
        raise ConfigError(f"{name}: {error}") from None


def _cluster(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > 253 or not _CLUSTER.fullmatch(value):
        raise ConfigError(f"{name} must be a DNS name in lower case, as ManagedCluster names are")
    return value


def _link_names(name: str, value: object) -> tuple[str, ...]:
    names = _texts(name, value)
    if not all(_LINK_NAME.fullmatch(one) for one in names):
        raise ConfigError(f"{name} must be host names, or *.DOMAIN")
    return names


def _join_token(_name: str, value: object) -> JoinToken:
    return JoinToken.parse(value if isinstance(value, str) else "")


_READERS: dict[str, Callable[[str, object], object]] = {
    "servers": _servers,
    "cluster": _cluster,
    "join_token": _join_token,
    "ca_file": _path,
    "server_name": _text,
    "link_names": _link_names,
    "agent": _text,
    "kubeconfig": _path,
    "kubeconfig_context": _text,
    "exchanges": _count(1, 10_000),
    "max_links": _count(0, 10_000),
    "upstream_connections": _count(1, 65_000),
    "drain": _count(0, 86_400),
    "state_dir": _path,
    "state_secret": _text,
    "allow_protected": lambda name, value: frozenset(_texts(name, value)),
    "allow_pass_through": _flag,
    "managed_service_accounts": _flag,
    "read_only": _flag,
    "interactive": _flag,
    "allow_paths": _paths,
    "deny_paths": _paths,
    "allow_verbs": _verbs,
    "deny_verbs": _verbs,
    "allow_namespaces": _namespaces,
    "deny_namespaces": _namespaces,
    "deny_users": _patterns,
    "deny_groups": _patterns,
}

"""From YAML and flags to the arguments of a command, with errors that say what was meant."""

from __future__ import annotations

import itertools
import os
import re
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser

from phenohit.errors import ConfigError, FileError, nearest

__all__ = ["call", "expand", "read_config"]


def call(command: Callable[..., Any], arguments: Sequence[str], *, prog: str) -> Any:
    """Call a typed function with arguments from the command line.

    A function whose first parameter is called `config` and is a dataclass takes a YAML file as its
    first argument, and every key of the dataclass as a flag; its other parameters are texts, given as
    flags too. Other functions take their parameters.

    Raises
    ------
    ConfigError
        For an unknown or impossible setting, with its place and the nearest known names.
    """
    hints = get_type_hints(command)
    hints.pop("return", None)
    whole = hints.get("config")
    if whole is not None and is_dataclass(whole) and next(iter(hints)) == "config":
        arguments, own = _own(arguments, [name for name in hints if name != "config"])
        return command(read_config(arguments, prog=prog, description=command.__doc__ or "", kind=whole), **own)
    needed = [p for p in signature(command).parameters.values() if p.default is p.empty]
    shown = " ".join(p.name.upper() for p in needed)
    parser = ArgumentParser(prog=prog, exit_on_error=False, usage=" ".join(f"{prog} {shown} [--key value ...]".split()))
    parser.add_function_arguments(command, as_positional=False)
    arguments = list(arguments)
    for place, name in enumerate(hints):  # leading values are the parameters in their order
        if 2 * place >= len(arguments) or arguments[2 * place].startswith("-"):
            break
        arguments[2 * place : 2 * place + 1] = [f"--{name}", arguments[2 * place]]
    return command(**vars(parser.instantiate(_parse(parser, arguments))))


def _own(arguments: Sequence[str], names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Take the texts of flags that are the command's own, not the config's, out of the arguments."""
    left, own = list(arguments), {}
    for name in names:
        for place, text in enumerate(left):
            if text.startswith(f"--{name}="):
                own[name] = left.pop(place).split("=", 1)[1]
                break
            if text == f"--{name}":
                if place + 1 == len(left):
                    raise ConfigError(f"'--{name}' needs a text after it.")
                own[name] = left[place + 1]
                del left[place : place + 2]
                break
    return left, own


def read_config(arguments: Sequence[str], *, prog: str, description: str, kind: Any) -> Any:
    """Return a config dataclass from ``FILE.yaml --key value ...``; flags win over the file."""
    arguments = list(arguments)
    if arguments and not arguments[0].startswith("-"):
        arguments[:1] = ["--config", arguments[0]]
    given = [b for a, b in itertools.pairwise(arguments) if a == "--config"]
    given += [a.split("=", 1)[1] for a in arguments if a.startswith("--config=")]
    for path in given:
        _check_yaml(path, kind)
    parser = ArgumentParser(
        prog=prog, exit_on_error=False, description=" ".join(description.split()),
        usage=f"{prog} CONFIG.yaml [--key value ...]",
    )  # fmt: skip
    parser.add_argument("--config", action="config", help="YAML file; may be given first, without --config")
    parser.add_class_arguments(kind)
    parsed = parser.instantiate(_parse(parser, arguments))
    return expand(kind(**{f.name: parsed[f.name] for f in fields(kind)}))


def _parse(parser: ArgumentParser, arguments: Sequence[str]) -> Any:
    try:
        parsed = parser.parse_args(list(arguments))
    except ArgumentError as error:
        text = re.sub(r"\s*\n\s*", " ", str(error)).strip()
        unknown = re.search(r"unrecognized arguments: --(\S+)", text)
        if unknown:
            known = [a.option_strings[0].lstrip("-") for a in parser._actions if a.option_strings]
            text = f"'--{unknown[1].split('=')[0]}' is no setting. {nearest(unknown[1].split('=')[0], known)}"
        from phenohit.labels.database import masked  # an address with a password may be part of the text

        raise ConfigError(f"{masked(text)} See: {parser.prog} --help") from error
    return parsed


def _check_yaml(path: str, kind: Any) -> None:
    """Find unknown keys before the parser does, to name them with their place and the nearest."""
    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileError(f"Config '{path}' does not exist.") from error
    except IsADirectoryError as error:
        raise FileError(f"Config '{path}' is a folder; give the YAML file.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"Config '{path}' is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"Config '{path}' must hold keys such as `profiles:`, not a {type(value).__name__}.")
    _check_keys(value, kind, path, "")


def _check_keys(value: dict[Any, Any], kind: Any, path: str, place: str) -> None:
    hints = get_type_hints(kind)
    for key, inner in value.items():
        if key not in hints:
            raise ConfigError(f"Config '{path}': '{place}{key}' is no setting. {nearest(str(key), hints)}")
        if get_origin(hints[key]) is Literal and isinstance(inner, str) and inner not in get_args(hints[key]):
            choices = [str(c) for c in get_args(hints[key]) if c]
            raise ConfigError(
                f"Config '{path}': {place}{key} is '{inner}'. Expected one of {', '.join(choices)}. "
                f"{nearest(inner, choices)}"
            )
        if is_dataclass(hints[key]) and isinstance(inner, dict):
            _check_keys(inner, hints[key], path, f"{place}{key}.")
        item = (get_args(hints[key]) or (None,))[0]
        if isinstance(inner, list) and is_dataclass(item):
            for number, one in enumerate(inner):
                if isinstance(one, dict):
                    _check_keys(one, item, path, f"{place}{key}[{number}].")


def expand(value: Any) -> Any:
    """Return a config in which ``${NAME}`` in any text is the environment variable's value.

    Raises
    ------
    ConfigError
        If the variable is not set.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: expand(getattr(value, f.name)) for f in fields(value)})
    if isinstance(value, list):
        return [expand(v) for v in value]
    if isinstance(value, str) and "${" in value:
        known = os.path.expandvars(value)
        if "${" in known:
            name = known[known.index("${") + 2 :].split("}")[0]
            raise ConfigError(f"'{value}' needs the environment variable {name}, which is not set: export {name}=...")
        return known
    return value

"""Reward models by name: ``register_reward``, ``make_reward``, ``list_rewards``.

Other packages announce theirs through the entry-point group ``textenvs.rewards``: the entry point's name is the
reward's name, and it points to a class with ``score(episodes)`` or to a function of TRL's signature. They are loaded
when a name is not among the registered ones, or when all names are listed. A built-in name wins over an announced one.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from textenvs.errors import unknown_name
from textenvs.rewards.functions import FunctionReward

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Entry:
    """A registered plug-in: a class that is called to build the reward model, or a plain reward function."""

    plugin: Callable[..., Any]
    low: float
    high: float
    version: str
    deterministic: bool


_REGISTRY: dict[str, _Entry] = {}

ENTRY_POINT_GROUP = "textenvs.rewards"


def register_reward(
    name: str,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    version: str = "1",
    deterministic: bool = False,
) -> Callable[[T], T]:
    """Decorator: make a reward model available as ``reward="name"``.

    Above a class, the class is called with the keyword arguments of the spec and must give an object with
    ``score(episodes)``; it declares range, version and determinism by attributes. Above a plain function of TRL's
    signature, the function is the reward, and they are declared here.

    Raises:
        ValueError: the name is taken by another plug-in, is empty, or contains a colon (that starts an argument).
        TypeError: what it stands above is neither a class nor a function.
    """
    if not name or ":" in name:
        raise ValueError(f"A reward's name must be non-empty and without a colon, got {name!r}.")

    def register(plugin: T) -> T:
        if not callable(plugin):
            raise TypeError(f"Reward {name!r} must be a class or a function, got {plugin!r:.200}.")
        known = _REGISTRY.get(name)
        # The same definition again (a notebook cell run twice, a reloaded module) replaces itself.
        if known is not None and _origin(known.plugin) != _origin(plugin):
            raise ValueError(f"The reward name {name!r} is taken by {'.'.join(_origin(known.plugin))}: choose another.")
        if inspect.isclass(plugin) and "name" not in vars(plugin):
            plugin.name = name  # type: ignore[attr-defined]  # every reward model knows its registered name
        _REGISTRY[name] = _Entry(plugin, low, high, version, deterministic)
        return plugin

    return register


def list_rewards() -> list[str]:
    """Names of all reward models, those of installed plug-in packages included, sorted."""
    return sorted(_REGISTRY.keys() | _announced().keys())


def built_in_rewards() -> list[str]:
    """Names of the reward models that come with this package, sorted."""
    return sorted(name for name, entry in _REGISTRY.items() if entry.plugin.__module__.startswith("textenvs."))


def reward_plugin(name: str) -> Callable[..., Any]:
    """The class or function behind a name, e.g. for its documentation.

    Raises:
        ValueError: no such name.
    """
    return _entry(name).plugin


def _announced() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}


def _entry(name: str) -> _Entry:
    """The registry's entry for a name, loaded from an installed package if need be.

    Raises:
        ValueError: no such name, or a package announces it but cannot be loaded.
    """
    if name not in _REGISTRY:
        point = _announced().get(name)
        if point is None:
            raise ValueError(unknown_name("reward", name, list_rewards()))
        try:
            plugin = point.load()
        except Exception as error:
            package = point.dist.name if point.dist is not None else point.value
            raise ValueError(
                f"Reward {name!r} is announced by the installed package {package!r} as {point.value!r}, "
                f"but loading it raised {type(error).__name__}: {error}."
            ) from error
        if name not in _REGISTRY:  # the package may have used register_reward itself
            register_reward(name)(plugin)
    return _REGISTRY[name]


def make_reward(spec: Any) -> Any:
    """A reward model from any of the accepted forms of ``reward=``.

    * a registered name: ``"match"``, or with an argument after a colon: ``"name:argument"``;
    * a mapping ``{"name": …, **keyword_arguments}``;
    * a list of ``(weight, spec)``: their weighted sum, all parts reported, weight 0 being a metric;
    * ``"package.module:attribute"``: an attribute that is itself one of these forms but for a string;
    * an object with ``score(episodes)``, or a class of such objects that needs no arguments;
    * a plain function of TRL's signature (:class:`~textenvs.rewards.functions.FunctionReward`). For one that takes chat
      messages: ``{"name": "package.module:function", "messages": True}``.

    Raises:
        ValueError: an unknown name, or a module or attribute that does not exist.
        TypeError: a form that is none of these, or keyword arguments that the plug-in does not take.
    """
    if isinstance(spec, str):
        return _from_string(spec, {})
    if isinstance(spec, Mapping):
        arguments = dict(spec)
        name = arguments.pop("name", None)
        if not isinstance(name, str):
            raise TypeError(f"A reward given as a mapping needs the key 'name' with a string; got {dict(spec)!r}.")
        return _from_string(name, arguments)
    if isinstance(spec, list | tuple):
        return _from_string("weighted_sum", {"parts": spec})
    return _from_object(spec, {}, repr(spec))


def _from_string(spec: str, arguments: dict[str, Any]) -> Any:
    name, colon, rest = spec.partition(":")
    if not colon or name in _REGISTRY or name in _announced():
        return _from_entry(name, _entry(name), (rest,) if colon else (), arguments)
    try:
        module = importlib.import_module(name)
    except (ImportError, TypeError, ValueError) as error:  # the latter two: no name that a module can have
        raise ValueError(
            f"Reward {spec!r}: there is neither a registered reward nor an importable module {name!r} ({error}). "
            f"{unknown_name('reward', name, list_rewards())}"
        ) from error
    if not hasattr(module, rest):
        public = [attribute for attribute in vars(module) if not attribute.startswith("_")]
        raise ValueError(f"Reward {spec!r}: {unknown_name(f'attribute of {name}', rest, public)}")
    attribute = getattr(module, rest)
    if isinstance(attribute, Mapping | list | tuple) and not arguments:
        return make_reward(attribute)
    return _from_object(attribute, arguments, spec)


def _from_entry(name: str, entry: _Entry, positional: tuple[str, ...], arguments: dict[str, Any]) -> Any:
    if inspect.isclass(entry.plugin):
        try:
            inspect.signature(entry.plugin).bind(*positional, **arguments)
        except TypeError as error:
            raise TypeError(
                f"Reward {name!r} cannot be built from {[*positional, *arguments]}: {error}. "
                f"Its signature: {inspect.signature(entry.plugin)}."
            ) from None
        return entry.plugin(*positional, **arguments)
    if positional:
        raise TypeError(f"Reward {name!r} is a plain function and takes no argument after a colon ({positional[0]!r}).")
    return FunctionReward(
        entry.plugin,
        name=name,
        low=entry.low,
        high=entry.high,
        version=entry.version,
        deterministic=entry.deterministic,
        messages=bool(arguments.pop("messages", False)),
        arguments=arguments,
    )


def _from_object(plugin: Any, arguments: dict[str, Any], shown: str) -> Any:
    if inspect.isclass(plugin):
        if not callable(getattr(plugin, "score", None)):
            raise TypeError(f"Reward {shown}: the class {plugin.__name__} has no method score(episodes).")
        return plugin(**arguments)
    if callable(getattr(plugin, "score", None)):
        if arguments:
            raise TypeError(f"Reward {shown} is a finished object: it takes no arguments {sorted(arguments)}.")
        return plugin
    if callable(plugin):
        messages = bool(arguments.pop("messages", False))
        return FunctionReward(plugin, arguments=arguments, messages=messages)
    raise TypeError(
        f"reward={shown} is none of the accepted forms: a registered name, a mapping with 'name', a list of "
        f"(weight, reward), 'package.module:attribute', an object with score(episodes), or a function "
        f"of prompts and completions."
    )


def _origin(plugin: Any) -> tuple[str, str]:
    return getattr(plugin, "__module__", "?"), getattr(plugin, "__qualname__", type(plugin).__qualname__)

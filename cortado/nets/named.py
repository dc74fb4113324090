"""Named: a network as jobs, teachers and students name it: built in, package.module:maker, file.py:maker, an ONNX file."""

import copy
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from cortado.errors import BadNetwork, BadRecipe, CortadoError, in_own_code
from cortado.nets.catalog import by_name, maker_by_name
from cortado.nets.checkpoint import load_weights
from cortado.nets.from_onnx.network import load_onnx

KEYS = ("network", "options", "weights")
"""What a network's mapping may hold."""
ONNX = ".onnx"
"""The suffix of a file that is a network."""
SOURCE = ".py"
"""The suffix of a file with makers."""
MAKER = "Write package.module:maker, or file.py:maker."


def named_network(
    named: Any, where: str, options: Mapping[str, Any] | None = None, weights: str | Path | None = None
) -> nn.Module:
    """Return the network of a name, of a maker, or of {network: name, options: {...}, weights: file}.

    A name is built in, package.module:maker, or the path of an .onnx file, whose option is `shapes`. A network
    is returned as it is, without a copy. `where` starts each message. Raises BadRecipe for what cannot be made, BadNetwork for
    what is no network and for weights that do not fit.
    """
    if isinstance(named, Mapping):
        check_keys(named, where)
        return named_network(named["network"], where, named.get("options") or options, named.get("weights") or weights)
    made = made_of(named, where, options or {})
    if not isinstance(made, nn.Module):
        raise BadNetwork(
            f"{where}: {named_text(named)} made {type(made).__name__}, not a network. Return an nn.Module."
        )
    if weights is not None:
        # The maker may return a network of the user's, which stays as it is.
        made = copy.deepcopy(made)
        load_weights(made, Path(weights), where)
    return made


def made_of(named: Any, where: str, options: Mapping[str, Any]) -> Any:
    """Return what a name or a maker makes."""
    if isinstance(named, nn.Module):
        return named
    if isinstance(named, str) and named.endswith(ONNX):
        return made_by(lambda shapes=None: load_onnx(named, shapes), named, where, options)
    if isinstance(named, str) and ":" in named:
        return call_maker(named, where, options)
    if isinstance(named, str):
        try:
            return by_name(named, **options)
        except CortadoError as error:
            raise BadRecipe(f"{where}: {error} A network of your own is package.module:maker.") from error
    if callable(named):
        return made_by(named, named_text(named), where, options)
    raise BadRecipe(f"{where}: {named!r} names no network. Write package.module:maker, or pass a network.")


def check_keys(named: Mapping[str, Any], where: str) -> None:
    """Raise BadRecipe for a mapping without network, or with another key."""
    for key in named:
        if key not in KEYS:
            near = get_close_matches(str(key), KEYS, n=1)
            raise BadRecipe(
                f"{where}: no key {key!r}; {f'did you mean {near[0]!r}?' if near else 'known: ' + ', '.join(KEYS)}"
            )
    if "network" not in named:
        raise BadRecipe(
            f"{where}: {dict(named)} has no network. Write {{network: package.module:maker, weights: file}}."
        )


def named_text(named: Any) -> str:
    """Return package.module:maker for a function or class; a text as it is."""
    return (
        named
        if isinstance(named, str)
        else f"{named.__module__}:{getattr(named, '__qualname__', type(named).__name__)}"
    )


def maker_named(named: Any, where: str, way_out: str = MAKER) -> Any:
    """Return the maker of a built-in name or package.module:maker; a maker itself.  Raises BadRecipe, with the `way_out`."""
    if not isinstance(named, str):
        return named
    if ":" not in named:
        try:
            return maker_by_name(named)
        except CortadoError as error:
            raise BadRecipe(f"{where}: {error} A network of your own is package.module:maker.") from error
    return loaded_maker(named, where, way_out)


def call_maker(name: str, where: str, options: Mapping[str, Any] | None = None, way_out: str = MAKER) -> Any:
    """Call package.module:maker with the `options` (the seed only if it takes one).  Raises BadRecipe, with the `way_out`."""
    return made_by(loaded_maker(name, where, way_out), name, where, options or {})


def loaded_maker(name: str, where: str, way_out: str) -> Any:
    """Return what package.module:maker or file.py:maker names.  Raises BadRecipe, with the `way_out`."""
    module_name, _, maker_name = name.rpartition(":")
    try:
        module = (
            module_in(Path(module_name), where)
            if module_name.endswith(SOURCE)
            else importlib.import_module(module_name)
        )
        return getattr(module, maker_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadRecipe(f"{where}: {name!r} cannot be loaded ({error}). {way_out}") from error


def module_in(path: Path, where: str) -> ModuleType:
    """Return the module in a file, run once in a process; it may import its neighbours.  Raises BadRecipe."""
    if not path.is_file():
        raise BadRecipe(f"{where}: there is no file {path}. Check the path; it starts at the folder you are in.")
    path = path.resolve()
    name = f"{path.stem} in {path.parent}"
    if name in sys.modules:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "the suffix is that of a source file"
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        with in_own_code(BadRecipe, f"{where}: {path.name}", "Mend it, and check it with python."):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def made_by(maker: Any, name: str, where: str, options: Mapping[str, Any]) -> Any:
    """Return what a maker makes with the options.  Raises BadRecipe if it does not take them, or fails."""
    given = dict(options)
    try:
        signature = inspect.signature(maker)
        given = {key: value for key, value in options.items() if key in signature.parameters or key != "seed"}
        signature.bind(**given)
    except (TypeError, ValueError) as error:
        raise BadRecipe(f"{where}: {name} does not take {sorted(given)} ({error}).") from error
    with in_own_code(BadRecipe, f"{where}: {name}", "Make it return the network or the task, or name another."):
        return maker(**given)

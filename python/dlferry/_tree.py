"""Trees: containers of arrays, taken apart and put together again as they were.

dict, list, tuple and their subclasses, named tuples, dataclasses, other mappings, and whatever is
registered with optree in its global namespace (where optree is in use) are containers; arrays are
leaves; everything else stays where it is, untouched.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Rebuild = Callable[[list[Any]], Any]


class Place(int):
    """Where a leaf was: its number among the leaves."""

    __slots__ = ()


class Branch(NamedTuple):
    """A container with leaves in it, and how it is made of new children."""

    rebuild: Rebuild
    children: list[Any]


class Tree:
    """A tree whose leaves can be replaced.

    Attributes:
        leaves: Each once, in order: an object that stands in several places is one leaf.
    """

    def __init__(self, tree: Any, is_leaf: Callable[[Any], bool]) -> None:
        self.leaves: list[Any] = []
        self._is_leaf = is_leaf
        self._numbers: dict[int, int] = {}
        self._above: set[int] = set()
        (self._shape,) = self._shapes([tree])

    @property
    def is_bare(self) -> bool:
        """Whether there is no container: the tree is a leaf itself, or nothing to be replaced."""
        return not isinstance(self._shape, Branch)

    def with_leaves(self, leaves: Sequence[Any]) -> Any:
        """The tree with other leaves, in new containers where there are any in them."""
        return _put(self._shape, leaves)

    def _shapes(self, nodes: Iterable[Any]) -> list[Any]:
        """Of a leaf its place, of a container of leaves a branch, of anything else that itself."""
        is_leaf, leaves, numbers = self._is_leaf, self.leaves, self._numbers
        shapes: list[Any] = []
        for node in nodes:  # once for each leaf: no calls but these
            if is_leaf(node):
                number = numbers.setdefault(id(node), len(leaves))
                if number == len(leaves):
                    leaves.append(node)
                shapes.append(Place(number))
            else:
                shapes.append(self._taken_apart(node))
        return shapes

    def _taken_apart(self, node: Any) -> Any:
        opened = _opened(node)
        if opened is None:
            return node
        if id(node) in self._above:
            raise ValueError(
                f"a {type(node).__name__} contains itself; pass a tree whose containers are apart"
            )
        rebuild, inner = opened
        self._above.add(id(node))
        children = self._shapes(inner)
        self._above.discard(id(node))
        if any(isinstance(child, (Place, Branch)) for child in children):
            return Branch(rebuild, children)
        return node


def _put(shape: Any, leaves: Sequence[Any]) -> Any:
    if isinstance(shape, Place):
        return leaves[shape]
    if isinstance(shape, Branch):
        return shape.rebuild(
            [
                leaves[child] if type(child) is Place else _put(child, leaves)
                for child in shape.children
            ]
        )
    return shape


def _opened(node: Any) -> tuple[Rebuild, Iterable[Any]] | None:
    """How a container is made again, and what is in it; None for anything else."""
    kind = type(node)
    if kind is dict:
        keys = list(node)
        return lambda children: dict(zip(keys, children, strict=True)), node.values()
    if kind is list:
        return list, node
    if kind is tuple:
        return tuple, node
    if kind in _ATOMS:
        return None
    # optree knows dicts by itself, but would lose what a subclass of them has besides its items.
    registered = None if isinstance(node, dict) else _registered_with_optree(node)
    if registered is not None:
        return registered
    if (kind.__module__, kind.__name__) == ("torch.nn.utils.rnn", "PackedSequence"):
        return _repacked(node)
    if isinstance(node, tuple):
        return _retupled(node), node
    if isinstance(node, list):
        return _refilled(node), node
    if isinstance(node, Mapping):
        return _remapped(node), list(node.values())
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        names = [field.name for field in dataclasses.fields(node) if hasattr(node, field.name)]
        return _with_fields(node, names), [getattr(node, name) for name in names]
    return None


_ATOMS = frozenset({str, bytes, bytearray, int, float, complex, bool, type(None), range, set})


def _repacked(node: Any) -> tuple[Rebuild, Iterable[Any]]:
    """torch wants the lengths of its packed sequences on the host, wherever the rest is."""
    kind: Any = type(node)
    return (
        lambda new: kind(new[0], node.batch_sizes, *new[1:]),
        [node.data, node.sorted_indices, node.unsorted_indices],
    )


def _retupled(node: tuple[Any, ...]) -> Rebuild:
    kind: Any = type(node)
    is_named = hasattr(kind, "_fields")

    def rebuild(children: list[Any]) -> Any:
        made = kind(*children) if is_named else kind(children)
        if hasattr(node, "__dict__"):  # what a subclass has besides its items
            vars(made).update(vars(node))
        return made

    return rebuild


def _refilled(node: list[Any]) -> Rebuild:
    def rebuild(children: list[Any]) -> list[Any]:
        made = copy.copy(node)
        made[:] = children
        return made

    return rebuild


def _remapped(node: Mapping[Any, Any]) -> Rebuild:
    keys = list(node)

    def rebuild(children: list[Any]) -> Any:
        items = dict(zip(keys, children, strict=True))
        # A copy keeps what a subclass has besides its items. One that copies nothing but the
        # attributes could have its items in common with the original.
        if isinstance(node, dict) or hasattr(type(node), "__copy__"):
            made: Any = copy.copy(node)
            for key, child in items.items():
                made[key] = child
            return made
        make: Any = type(node)
        return make(items)

    return rebuild


def _with_fields(node: Any, names: list[str]) -> Rebuild:
    def rebuild(children: list[Any]) -> Any:
        made = copy.copy(node)
        for name, child in zip(names, children, strict=True):
            object.__setattr__(made, name, child)  # frozen ones too, and no __post_init__ again
        return made

    return rebuild


def _registered_with_optree(node: Any) -> tuple[Rebuild, Iterable[Any]] | None:
    # A type can only have been registered by someone who has imported it.
    optree: Any = sys.modules.get("optree")
    entry = None if optree is None else optree.register_pytree_node.get(type(node))
    if entry is None or entry.type is not type(node):  # or it is one of all named tuples
        return None
    children, metadata, _, unflatten = optree.tree_flatten_one_level(node)
    return lambda new: unflatten(metadata, tuple(new)), children

"""Trees come apart and together again as they were."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, NamedTuple

import optree
import pytest
import torch

from dlferry._tree import Tree


class Leaf:
    """What these trees have as arrays."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


A, B, C = Leaf("a"), Leaf("b"), Leaf("c")


def tree_of(tree: Any) -> Tree:
    return Tree(tree, lambda node: isinstance(node, Leaf))


def shouted(tree: Any) -> Any:
    """The tree with names in place of its leaves."""
    taken = tree_of(tree)
    return taken.with_leaves([leaf.name.upper() for leaf in taken.leaves])


class Pair(NamedTuple):
    first: Any
    second: Any


Untyped = namedtuple("Untyped", "x")


@dataclasses.dataclass
class Sample:
    image: Any
    label: Any = None
    made: int = dataclasses.field(default=0, init=False)

    def __post_init__(self) -> None:
        self.made += 1


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    image: Any
    name: str


class Batch(list[Any]):
    source = ""


class Tagged(dict[str, Any]):
    tag = ""


class Changing(MutableMapping[str, Any]):
    """Whose copy by `copy.copy` has its items in common with it."""

    def __init__(self, items: Mapping[str, Any]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._items[key] = value

    def __delitem__(self, key: str) -> None:
        del self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class FrozenMap(Mapping[str, Any]):
    def __init__(self, items: Mapping[str, Any]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (A, "A"),
        ([A, B], ["A", "B"]),
        ((A, (B, [C])), ("A", ("B", ["C"]))),
        ({"x": A, 3: {"y": B}}, {"x": "A", 3: {"y": "B"}}),
        (Pair(A, "text"), Pair("A", "text")),
        (Untyped(A), Untyped("A")),
        (Frozen(A, "n"), Frozen("A", "n")),
        (
            [A, None, 3, 2.5, "s", b"b", range(3), {1}],
            ["A", None, 3, 2.5, "s", b"b", range(3), {1}],
        ),
        (OrderedDict(b=A, a=B), OrderedDict(b="A", a="B")),
        (UserDict({"x": A}), UserDict({"x": "A"})),
        (Changing({"x": A, "y": 1}), Changing({"x": "A", "y": 1})),
    ],
)
def test_containers_are_kept(tree: Any, expected: Any) -> None:
    before = repr(list(tree.items())) if isinstance(tree, Mapping) else repr(tree)
    made = shouted(tree)
    assert made == expected and type(made) is type(expected)
    assert before == (repr(list(tree.items())) if isinstance(tree, Mapping) else repr(tree))
    if isinstance(expected, dict):
        assert list(made) == list(expected)


def test_the_tree_itself_is_not_touched() -> None:
    inner = {"x": A}
    tree = [inner, B]
    assert shouted(tree) == [{"x": "A"}, "B"]
    assert tree[0] is inner and inner == {"x": A}


def test_subclasses_keep_what_else_they_have() -> None:
    batch, tagged = Batch([A, 1]), Tagged(x=B)
    batch.source, tagged.tag = "here", "t"
    counts: defaultdict[str, Any] = defaultdict(list, x=C)
    made = shouted([batch, tagged, counts])
    assert (type(made[0]), list(made[0]), made[0].source) == (Batch, ["A", 1], "here")
    assert (type(made[1]), dict(made[1]), made[1].tag) == (Tagged, {"x": "B"}, "t")
    assert made[2]["x"] == "C" and made[2]["new"] == []


def test_dataclasses_are_not_initialised_again() -> None:
    made = shouted(Sample(A, "label"))
    assert (made.image, made.label, made.made) == ("A", "label", 1)


def test_mappings_that_cannot_be_changed() -> None:
    made = shouted(FrozenMap({"x": A, "y": 1}))
    assert type(made) is FrozenMap and dict(made) == {"x": "A", "y": 1}


def test_one_object_in_several_places_is_one_leaf() -> None:
    taken = tree_of([A, {"x": A}, (B, A)])
    assert taken.leaves == [A, B]
    assert taken.with_leaves([1, 2]) == [1, {"x": 1}, (2, 1)]


def test_what_has_no_leaves_is_passed_on_as_it_is() -> None:
    words, types_ = ["a", "b"], {"t": Sample, "m": types.SimpleNamespace(x=A)}
    made = shouted([A, words, types_])
    assert made[1] is words and made[2] is types_
    taken = tree_of(words)
    assert taken.leaves == [] and taken.with_leaves([]) is words


@pytest.mark.parametrize(("tree", "bare"), [(A, True), ([A], False), ("text", True), ([], True)])
def test_a_bare_leaf_is_no_tree(tree: Any, bare: bool) -> None:
    assert tree_of(tree).is_bare is bare


def test_a_container_in_itself_is_refused() -> None:
    knot: list[Any] = [A]
    knot.append({"knot": knot})
    with pytest.raises(ValueError, match="a list contains itself"):
        tree_of(knot)
    twice = [A]
    assert shouted([twice, twice]) == [["A"], ["A"]]


class Registered:
    def __init__(self, child: Any, extra: str) -> None:
        self.child, self.extra = child, extra


optree.register_pytree_node(
    Registered,
    lambda node: ((node.child,), node.extra),
    lambda extra, children: Registered(children[0], extra),
    namespace=vars(optree.registry)["__GLOBAL_NAMESPACE"],
)


def test_what_optree_knows_is_a_container() -> None:
    made = shouted([Registered(A, "extra")])
    assert (made[0].child, made[0].extra) == ("A", "extra")


def test_without_optree_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "optree")
    node = Registered(A, "extra")
    assert shouted([A, node])[1] is node


def test_packed_sequences_keep_their_lengths() -> None:
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(3), torch.ones(2)])
    taken = Tree([packed], torch.is_tensor)
    assert all(leaf is not packed.batch_sizes for leaf in taken.leaves)
    [made] = taken.with_leaves([leaf + 1 for leaf in taken.leaves])
    assert type(made) is type(packed) and made.batch_sizes is packed.batch_sizes
    assert torch.equal(made.data, packed.data + 1)


def test_tuples_keep_their_attributes() -> None:
    pair = type("Pair", (tuple,), {})
    named = type("Named", (namedtuple("Point", "x"),), {})
    for node in (pair([A]), named(A)):
        node.note = "kept"
        made = shouted(node)
        assert type(made) is type(node) and made == ("A",) and made.note == "kept"

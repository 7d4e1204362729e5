"""State and overlays: writes are seen at once above, and below only after a commit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tokenmesh_chaincode.state import MemoryState, Overlay


def test_an_overlay_keeps_its_writes_to_itself_until_it_commits() -> None:
    below = MemoryState({"a": {"n": 1}, "b": {"n": 2}})
    overlay = Overlay(below)
    overlay.put("a", {"n": 10})
    overlay.delete("b")
    overlay.put("c", {"n": 3})
    assert (overlay.get("a"), overlay.get("b"), overlay.get("c")) == ({"n": 10}, None, {"n": 3})
    assert below.values == {"a": {"n": 1}, "b": {"n": 2}}
    assert overlay.writes == {"a": {"n": 10}, "b": None, "c": {"n": 3}}
    overlay.commit()
    assert below.values == {"a": {"n": 10}, "c": {"n": 3}}
    assert overlay.writes == {}


def test_overlays_stand_on_overlays() -> None:
    below = MemoryState({"a": {"n": 1}})
    first = Overlay(below)
    second = Overlay(first)
    second.delete("a")
    assert first.get("a") == {"n": 1}
    second.commit()
    assert first.get("a") is None
    assert below.get("a") == {"n": 1}
    first.commit()
    assert below.get("a") is None


_writes = st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers()))


@given(_writes)
def test_an_overlay_ends_as_the_state_itself_would(writes: list[tuple[str, int | None]]) -> None:
    plain, below = MemoryState(), MemoryState({})
    overlay = Overlay(below)
    for key, number in writes:
        for state in (plain, overlay):
            if number is None:
                state.delete(key)
            else:
                state.put(key, {"n": number})
        assert overlay.get(key) == plain.get(key)
    overlay.commit()
    assert below.values == plain.values


def test_memory_state_lists_a_prefix_in_order() -> None:
    state = MemoryState({"b/2": {}, "a/1": {}, "b/1": {}})
    assert [key for key, _ in state.items("b/")] == ["b/1", "b/2"]

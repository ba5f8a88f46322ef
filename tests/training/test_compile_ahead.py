"""Programs that are compiled in another thread: in order, each once, and what is waited for."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from lidit_jax.training.compile_ahead import CompileAhead, abstract


class Program:
    """A traced program whose compilation lasts until it is allowed to end."""

    def __init__(self, name, compiled):
        self.name, self.begun, self.may_end = name, threading.Event(), threading.Event()
        self._compiled = compiled

    def compile(self):
        self.begun.set()
        assert self.may_end.wait(60)
        self._compiled.append(self.name)
        return self.name.upper()


@pytest.fixture
def compiled():
    return []


@pytest.fixture
def programs(compiled):
    return [Program(name, compiled) for name in ("a", "b", "c")]


def test_programs_are_compiled_in_order_and_the_first_is_ready_before_the_others(
    programs, compiled
):
    told = []

    def allow(line):
        told.append(line)
        programs[2].may_end.set()

    with CompileAhead() as ahead:
        for program in programs:
            ahead.add(program.name, lambda program=program: program)
        first, second, _ = programs
        first.may_end.set()
        assert ahead.get("a", told.append) == "A"
        assert second.begun.wait(60)
        assert compiled == ["a"]
        second.may_end.set()
        assert ahead.get("c", allow) == "C"
        assert ahead.get("b", print) == "B"
    assert compiled == ["a", "b", "c"]
    assert told.pop() == "compiling c; on a CPU this takes about half a minute"
    news = ahead.news()
    assert [line.partition(" in ")[0] for line in news] == [
        "compiled a",
        "compiled b",
        "compiled c",
    ]
    assert news[2].endswith(" s (3 of 3)")
    assert ahead.count == 3
    assert ahead.news() == []


def test_at_the_end_only_what_is_in_progress_is_finished(programs, compiled):
    with CompileAhead() as ahead:
        for program in programs:
            ahead.add(program.name, lambda program=program: program)
        assert programs[0].begun.wait(60)
        programs[0].may_end.set()
        assert ahead.get("a", print) == "A"
        assert programs[1].begun.wait(60)
        programs[1].may_end.set()
    assert compiled == ["a", "b"]


def test_an_error_arrives_where_the_program_is_wanted():
    def refuse():
        raise ValueError("no such shape")

    with CompileAhead() as ahead:
        ahead.add("a", refuse)
        ahead.add("b", lambda: jax.jit(lambda x: 2 * x).lower(jnp.ones(3)))
        with pytest.raises(ValueError, match="no such shape"):
            ahead.get("a", print)
        assert ahead.get("b", print)(jnp.ones(3)).tolist() == [2, 2, 2]
    assert ahead.count == 0
    assert len(ahead.news()) == 1


def test_shapes_and_shardings_of_arrays_are_enough_to_compile():
    place = SingleDeviceSharding(jax.devices()[1])
    array = jax.device_put(jnp.ones(3), place)
    for tree in (abstract([array]), abstract([np.ones(3, np.float32)], place)):
        program = jax.jit(lambda values: values[0] + 1).lower(tree).compile()
        assert program([array]).tolist() == [2, 2, 2]
        assert program([array]).devices() == {jax.devices()[1]}

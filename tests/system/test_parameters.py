"""Parameters in real processes: copies and their root, and what is refused."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import gc
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tables import Probe, settled, tables

import mosaic_like as mosaic
from mosaic_like.core.versions import CopyState

if TYPE_CHECKING:
    from specimens import RunIn


@mosaic.tessera
class Model:
    """A medium."""

    kind = "fluid"

    def __init__(self, speed: float = 1.5, size: int = 4) -> None:
        self.speed = speed
        self.field = np.full(size, speed)
        self.notes: list[str] = []

    def total(self) -> float:
        return float(self.field.sum())

    def scale(self, by: float) -> float:
        self.field = self.field * by
        return self.total()

    def chain(self, note: str) -> Model:
        self.notes.append(note)
        return self

    def fail(self, note: str) -> None:
        self.notes.append(note)
        raise ValueError(f"no {note}")

    async def later(self, speed: float) -> float:
        await asyncio.sleep(0)
        self.speed = speed
        return speed

    def many(self, **kwargs: Any) -> Any:
        self.notes.extend(kwargs)
        return kwargs

    @property
    def double(self) -> float:
        return 2 * self.speed

    @double.setter
    def double(self, value: float) -> None:
        self.speed = value / 2


@mosaic.tessera
class Worker:
    """Uses models."""

    def __init__(self) -> None:
        self.model: Any = None

    def total(self, model: Model) -> float:
        assert isinstance(model, Model)
        return model.total()

    async def total_on_the_loop(self, model: Model) -> float:
        return model.total()

    def nested(self, models: list[Model], more: dict[str, Model]) -> float:
        return sum(m.total() for m in [*models, *more.values()])

    def speed(self, model: Model) -> float:
        return model.speed

    def notes(self, model: Model) -> list[str]:
        return model.notes

    def keep(self, model: Model) -> None:
        self.model = model

    def give(self) -> Model:
        given: Model = self.model
        return given

    def drop(self) -> None:
        self.model = None

    def kept(self, name: str) -> Any:
        return getattr(self.model, name)

    def state(self, name: str) -> str:
        states: dict[str, CopyState] = self.model.copy_states()
        return states[name].value

    def push(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self.model, name, value)
        self.model.push().get(10)

    def pull(self) -> Any:
        self.model.pull().get(10)
        return self.model.speed

    def scale(self, by: float) -> Any:
        return self.model.scale(by, propagate=True).get(10)

    def write_in_place(self) -> None:
        self.model.field[0] = 0


def _on(runtime: Any, index: int) -> Any:
    return Worker.options(runtime=runtime.workers[index]).remote()


async def _two(runtime: Any) -> tuple[Any, Any]:
    return _on(runtime, 0), _on(runtime, 1)


# -- copies ----------------------------------------------------------------------------


def test_a_parameter_is_an_instance_with_the_speed_of_one(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        model = Model.parameter(2.0, size=3)
        assert isinstance(model, Model)
        assert isinstance(model, mosaic.Parameter)
        assert model.total() == 6.0
        assert vars(model).keys() == {"speed", "field", "notes"}
        assert type(Model(1.0)) is Model  # the class is as it was
        assert not isinstance(Model(1.0), mosaic.Parameter)
        assert model.version == 1
        assert model.has_tessera
        assert repr(model).startswith("<parameter Model of ParameterRoot#")

    cluster(main)


def test_an_argument_arrives_as_a_copy_of_what_the_root_has(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        one, two = await _two(runtime)
        model = Model.parameter(2.0, size=3)
        totals = [one.total(model), two.total(model), two.total_on_the_loop(model)]
        assert await mosaic.gather(*totals) == [6.0, 6.0, 6.0]
        other = Model.parameter(1.0, size=3)
        nested = one.nested([model, other], {"again": model})
        assert await nested.result() == 15.0

    cluster(main)


def test_what_is_not_pushed_is_refused_where_the_call_is_made(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        worker = Worker.remote()
        model = Model.parameter()
        model.speed = 3.0
        with pytest.raises(mosaic.StaleError, match="'speed' was changed here"):
            worker.speed(model)
        await model.push()
        assert await worker.speed(model).result() == 3.0
        model.speed = 4.0
        await model.pull(discard=True)
        assert model.speed == 3.0
        assert await worker.speed(model).result() == 3.0

    cluster(main)


def test_a_change_in_place_is_noticed(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        worker = Worker.remote()
        model = Model.parameter(1.0, size=20_000)  # large: it travels by itself
        model.field[7] += 1
        model.notes.append("x")
        with pytest.raises(mosaic.StaleError) as caught:
            worker.total(model)
        assert caught.value.attributes == ("field", "notes")
        assert model.copy_states() == {
            "speed": CopyState.CLEAN,
            "field": CopyState.CHANGED,
            "notes": CopyState.CHANGED,
        }
        await model.push("field")
        await model.push("notes")
        assert await worker.total(model).result() == 20_001.0

    cluster(main)


def test_large_arrays_of_a_copy_are_read_only(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        worker = Worker.remote()
        await worker.keep(Model.parameter(1.0, size=20_000))
        with pytest.raises(ValueError, match="read-only"):
            await worker.write_in_place()

    cluster(main)


def test_a_push_that_is_not_awaited_is_before_the_next_call(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        worker = Worker.remote()
        model = Model.parameter()
        for speed in range(20):
            model.set("speed", float(speed))
            model.notes.append(str(speed))
            model.push()
        assert await worker.speed(model).result() == 19.0
        assert len(await worker.notes(model).result()) == 20

    cluster(main)


def test_an_attribute_can_come_and_go(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        worker = Worker.remote()
        model = Model.parameter()
        model.extra = 7
        await model.push()
        await worker.keep(model)
        assert await worker.kept("extra").result() == 7
        del model.extra
        await model.push()
        await worker.pull()
        with pytest.raises(AttributeError, match="extra"):
            await worker.kept("extra").result()
        model.only_here = 1
        await model.pull(discard=True)
        assert not hasattr(model, "only_here")

    cluster(main)


# -- two sides -------------------------------------------------------------------------


def test_a_copy_takes_by_pull_what_another_has_pushed(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        one, two = await _two(runtime)
        model = Model.parameter(1.0)
        await mosaic.gather(one.keep(model), two.keep(model))
        await one.push(speed=5.0, field=np.ones(20_000))
        assert model.speed == 1.0
        await model.pull("speed")
        assert (model.speed, model.field.size) == (5.0, 4)
        await model.pull()
        assert model.field.size == 20_000
        assert await two.kept("speed").result() == 1.0
        assert await two.pull().result() == 5.0
        assert model.version == 2

    cluster(main)


def test_set_is_refused_by_a_copy_that_is_behind(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        worker = Worker.remote()
        model = Model.parameter(1.0)
        await worker.keep(model)
        await worker.push(speed=5.0)
        assert await model.get("speed") == 5.0  # now it is known here
        with pytest.raises(mosaic.StaleError, match="'speed' is behind its root"):
            model.set("speed", 7.0)
        assert model.speed == 1.0
        with pytest.raises(mosaic.StaleError, match="nothing to push"):
            model.push("speed")
        await model.pull()
        await model.set("speed", 7.0)
        assert await model.get("speed") == 7.0

    cluster(main)


def test_the_root_refuses_what_a_copy_could_not_know(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        worker = Worker.remote()
        model = Model.parameter(1.0)
        await worker.keep(model)
        await worker.push(speed=5.0)
        model.notes.append("mine")
        model.speed = 7.0
        with pytest.raises(mosaic.ConflictError, match="nothing was written"):
            await model.push()
        assert await model.get("notes") == []  # all of it or nothing
        states = model.copy_states()
        assert states["speed"] is CopyState.CONFLICT
        assert states["notes"] is CopyState.CHANGED
        with pytest.raises(mosaic.ConflictError, match="changed here and at its root"):
            model.push()
        with pytest.raises(mosaic.ConflictError):
            worker.speed(model)
        with pytest.raises(mosaic.ConflictError):
            await model.pull()
        assert model.speed == 7.0
        await model.push("notes")
        await model.push(force=True)
        assert await worker.pull().result() == 7.0

    cluster(main)


def test_discarding_takes_the_roots_side_of_a_conflict(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        worker = Worker.remote()
        model = Model.parameter(1.0)
        await worker.keep(model)
        await worker.push(speed=5.0)
        model.speed = 7.0
        model.notes.append("mine")
        with pytest.raises(mosaic.ConflictError) as caught:
            await model.pull()
        assert caught.value.attributes == ("speed",)
        await model.pull("speed", discard=True)
        assert (model.speed, model.notes) == (5.0, ["mine"])
        await model.push()
        assert set(model.copy_states().values()) == {CopyState.CLEAN}

    cluster(main)


def test_what_is_set_goes_to_the_root_even_if_it_is_no_news_here(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        worker = Worker.remote()
        model = Model.parameter(1.0)
        await worker.keep(model)
        await worker.push(speed=5.0)
        with pytest.raises(mosaic.ConflictError):
            await model.set("speed", 1.0)
        assert await model.get("speed") == 5.0
        with pytest.raises(mosaic.SerializationError):
            model.set("notes", threading.Lock())
        assert model.notes == []

    cluster(main)


def test_a_property_is_set_by_what_it_stands_for(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        model = Model.parameter(1.0)
        await model.set("double", 8.0)
        assert model.speed == 4.0
        assert await model.get("speed") == 4.0
        assert await model.get("double") == 8.0
        assert await model.get("kind") == "fluid"

    cluster(main)


# -- methods at the root ---------------------------------------------------------------


def test_a_method_that_propagates_runs_at_the_root(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        worker = Worker.remote()
        model = Model.parameter(1.0, size=3)
        await worker.keep(model)
        assert await model.scale(2.0, propagate=True) == 6.0
        assert model.total() == 6.0
        assert await worker.scale(2.0).result() == 12.0  # one that is behind
        assert await model.propagate("later", 9.0) == 9.0
        assert (model.speed, model.total()) == (9.0, 12.0)
        assert await model.chain("a", propagate=True) is model
        assert model.notes == ["a"]
        # With keywords of its own it cannot have ours.
        assert model.many(propagate=1) == {"propagate": 1}
        await model.pull(discard=True)
        await model.propagate("many", b=1)
        assert model.notes == ["a", "b"]

    cluster(main)


def test_twenty_methods_from_two_workers_are_all_counted(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        one, two = await _two(runtime)
        model = Model.parameter(1.0, size=1)
        await mosaic.gather(one.keep(model), two.keep(model))
        await mosaic.gather(w.scale(2.0) for w in (one, two) for _ in range(10))
        assert await model.get("field") == 2.0**20

    cluster(main)


def test_a_method_that_fails_at_the_root_tells_what_it_did_before(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        model = Model.options(cached=True).parameter()
        with pytest.raises(ValueError, match="no luck"):
            await model.fail("luck", propagate=True)
        assert model.notes == []
        assert await model.get("notes") == ["luck"]  # though it is cached
        with pytest.raises(mosaic.StaleError):
            model.set("notes", [])
        await model.pull()
        assert model.notes == ["luck"]

    cluster(main)


def test_a_method_does_not_run_without_what_was_changed_here(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        model = Model.parameter(1.0)
        model.speed = 2.0
        with pytest.raises(mosaic.StaleError, match="not at its root"):
            model.scale(2.0, propagate=True)
        with pytest.raises(AttributeError, match="did you mean 'scale'"):
            model.propagate("scael")
        with pytest.raises(AttributeError):
            model.propagate("__init__")
        with pytest.raises(TypeError, match="scale"):
            model.propagate("scale")

    cluster(main)


# -- cached and published --------------------------------------------------------------


def test_a_cached_copy_answers_until_something_newer_is_known(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        worker = Worker.remote()
        model = Model.options(cached=True).parameter(1.0)
        assert model.cached
        await worker.keep(model)
        sent = model.ref._mosaic_handle.stream.number
        assert await model.get("speed") == 1.0
        assert await worker.speed(model).result() == 1.0
        assert model.ref._mosaic_handle.stream.number == sent  # nothing was asked
        await worker.push(speed=5.0)
        assert await model.get("speed") == 1.0
        await model.pull("speed")
        assert await model.get("speed") == 5.0
        assert await worker.speed(model).result() == 5.0

    cluster(main)


def test_after_publish_every_copy_knows_that_it_is_behind(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        one, two = await _two(runtime)
        model = Model.options(cached=True).parameter(1.0)
        await mosaic.gather(one.keep(model), two.keep(model))
        await one.push(speed=2.0)
        model.notes.append("new")
        await model.publish()
        assert await two.state("speed").result() == "behind"
        assert await two.state("notes").result() == "behind"
        assert await two.kept("notes").result() == []
        assert await two.pull().result() == 2.0
        assert await two.kept("notes").result() == ["new"]
        assert await two.state("speed").result() == "clean"
        await model.set("speed", 3.0, force=True)
        model.field[0] = 7.0
        await model.push("field", publish=True)
        assert await two.state("speed").result() == "behind"
        assert await two.state("field").result() == "behind"

    cluster(main)


def test_two_copies_do_not_see_each_others_changes_of_what_was_published(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        place = runtime.workers[0]
        one, two = (Worker.options(runtime=place).remote() for _ in range(2))
        model = Model.parameter(1.0)
        await mosaic.gather(one.keep(model), two.keep(model))
        model.notes.append("new")
        await model.publish()
        await mosaic.gather(one.pull(), two.pull())
        await one.push(speed=3.0)
        kept = await one.give().result()
        await kept.pull()
        kept.notes.append("x")
        assert await two.kept("notes").result() == ["new"]

    cluster(main)


# -- results ---------------------------------------------------------------------------


def test_a_parameter_in_a_result_gets_its_values_by_pull(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        one, two = await _two(runtime)
        model = Model.parameter(3.0, size=20_000)
        await one.keep(model)
        given = await one.give().result()
        assert isinstance(given, mosaic.Parameter)
        assert isinstance(given, Model)
        with pytest.raises(RuntimeError, match=r"await parameter\.pull\(\)"):
            given.speed  # noqa: B018
        await given.pull()
        assert given.speed == 3.0
        assert given.ref == model.ref
        assert vars(given).keys() == vars(model).keys()
        # From worker to worker, and in a thread, it waits for them by itself.
        assert await two.total(one.give()).result() == 60_000.0
        again = await one.give().result()
        assert await asyncio.to_thread(lambda: again.speed) == 3.0

    cluster(main)


def test_the_root_of_a_local_parameter_is_here(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        worker = Worker.remote()
        model = Model.local_parameter(1.0)
        away = Model.parameter(1.0)
        await away.ref
        assert (model.is_tessera, model.is_proxy) == (True, False)
        assert (away.is_tessera, away.is_proxy) == (False, True)
        await worker.keep(model)
        await worker.push(speed=5.0)
        assert await worker.scale(2.0).result() == 8.0
        await model.pull()
        assert (model.speed, model.total()) == (5.0, 8.0)

    cluster(main)


# -- the user's class ------------------------------------------------------------------


@mosaic.tessera
class Own:
    """Has names of ours."""

    def __init__(self) -> None:
        self.n = 1
        self.version = "own"
        self.ref = "own"

    def get(self, name: str) -> str:
        return f"own {name}"

    def push(self) -> str:
        return f"own {self.n}"


@mosaic.tessera
@dataclasses.dataclass(frozen=True)
class Frozen:
    """Cannot be changed by setting."""

    n: int
    items: list[int]


@mosaic.tessera
class Slotted:
    """Has no dict."""

    __slots__ = ("a", "b")

    def __init__(self) -> None:
        self.a = 1


@mosaic.tessera
class Lean:
    """Leaves out what cannot travel."""

    def __init__(self) -> None:
        self.n = 1
        self.handle: Any = lambda: None

    def __getstate__(self) -> dict[str, Any]:
        return {"n": self.n}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, handle="made again")


@mosaic.tessera
class Table(dict[str, int]):
    """Not made of attributes."""


class Reader:
    """Looks at anything."""

    def read(self, thing: Any, name: str) -> Any:
        return getattr(thing, name)


def test_the_users_names_win_and_ours_stay_reachable(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        own: Any = Own.parameter()
        assert own.get("x") == "own x"
        own.n = 2
        assert own.push() == "own 2"
        await mosaic.Parameter.push(own)
        assert (own.version, own.ref) == ("own", "own")
        assert await mosaic.Parameter.get(own, "n") == 2

    cluster(main)


@pytest.mark.parametrize(
    ("cls", "args", "name", "value"),
    [
        (Frozen, (3, [1]), "items", [1]),
        (Slotted, (), "a", 1),
        (Lean, (), "handle", "made again"),
    ],
)
def test_any_class_that_is_made_of_attributes_will_do(
    cluster: RunIn, cls: Any, args: Any, name: str, value: Any
) -> None:
    async def main(runtime: Any) -> None:
        reader = mosaic.remote(Reader)()
        thing = cls.parameter(*args)
        assert await reader.read(thing, name).result() == value
        await thing.push()
        assert set(thing.copy_states().values()) == {CopyState.CLEAN}

    cluster(main)


def test_copies_of_copy_are_plain_objects(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        model: Any = Model.parameter(1.0)
        for made in (copy.copy(model), copy.deepcopy(model)):
            assert type(made) is Model
            assert made.speed == 1.0
        assert copy.copy(model).notes is model.notes
        assert copy.deepcopy(model).notes is not model.notes
        # What a method makes of its own kind has no root, and travels as a plain one.
        loose = type(model)(2.0)
        assert not loose.has_tessera
        with pytest.raises(TypeError, match="is not a parameter"):
            loose.push()
        reader = mosaic.remote(Reader)()
        assert await reader.read(loose, "speed").result() == 2.0

    cluster(main)


def test_what_makes_no_sense_is_refused_at_once(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        with pytest.raises(TypeError, match="Table cannot be a parameter"):
            Table.parameter()
        with pytest.raises(TypeError, match="no arrays of parameters"):
            Model.parameter(len=2)  # type: ignore[call-arg]  # the mistake
        with pytest.raises(TypeError, match="lives in this runtime"):
            Model.options(runtime="worker:0:0").local_parameter()
        with pytest.raises(TypeError, match="option 'name'"):
            Model.options(name="m").parameter()
        with pytest.raises(TypeError, match="cached"):
            Model.options(cached=1)
        with pytest.raises(mosaic.SerializationError, match="lock"):
            _Locked.parameter()
        model = Model.parameter()
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            model.push("nothing")
        with pytest.raises(AttributeError, match="did you mean 'speed'"):
            await model.pull("sped")
        with pytest.raises(AttributeError, match="did you mean 'speed'"):
            await model.get("sped")
        with pytest.raises(TypeError, match="expected a name"):
            model.push([1])  # type: ignore[list-item]  # the mistake

    cluster(main)


@mosaic.tessera
class _Locked:
    def __init__(self) -> None:
        self.lock = threading.Lock()


# -- ends ------------------------------------------------------------------------------


def test_all_counts_are_zero_when_the_copies_are_gone(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        workers = await _two(runtime)
        probes = [mosaic.remote(Probe, runtime=w)() for w in runtime.workers]

        async def look() -> list[Any]:
            await asyncio.sleep(0.1)  # until the last look itself is released
            there = await mosaic.gather(probe.tables() for probe in probes)
            return [tables(runtime), *there]

        gc.collect()  # what hangs in the tracebacks of other tests
        before = await look()
        while (again := await look()) != before:
            before = again
        for make in (Model.parameter, Model.local_parameter):
            for cached in (False, True):
                model: Any = make(1.0, 20_000, cached=cached)  # type: ignore[call-arg]
                await mosaic.gather(*(w.keep(model) for w in workers))
                await workers[0].push(speed=5.0)
                model.pull()  # never awaited
                await model.scale(2.0, propagate=True)
                model.set("notes", ["x"])
                await model.publish()
                await workers[1].pull()
                given = await workers[1].give().result()
                await given.pull()
                await mosaic.gather(*(w.drop() for w in workers))
                del model, given
        await settled(look, before)

    cluster(main)


def test_a_root_that_was_closed_is_a_lookup_error(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        model = Model.parameter(1.0)
        await mosaic.close(model.ref)
        with pytest.raises(LookupError, match="closed"):
            await model.pull()

    cluster(main)

"""Proxies, and what hangs on them, as arguments, as copies, and used by mistake."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic

if TYPE_CHECKING:
    from specimens import RunIn


@mosaic.tessera
class Model:
    def __init__(self, size: int = 3) -> None:
        self.size = size

    def get(self, by: int = 1) -> int:
        return self.size * by

    def echo(self, value: Any) -> Any:
        return value

    def items(self) -> Any:
        yield from range(self.size)

    async def use(self, callback: Any) -> Any:
        return await callback(2).result()


@mosaic.tessera
class Selfless:
    """Whose methods leave every keyword to their callers."""

    def __init__(this, **kwargs: Any) -> None:
        this.made = kwargs

    def give(this, **kwargs: Any) -> Any:
        return this.made, kwargs

    def __call__(this, **kwargs: Any) -> Any:
        return kwargs


def test_a_method_of_a_proxy_travels_as_a_callback(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        other = Model.remote(0)
        callback = Model.remote(5).get  # nothing else holds that one
        assert await other.use(callback).result() == 10
        back = await other.echo({"call": [callback]}).result()
        assert await back["call"][0](3).result() == 15
        patient = callback.options(timeout=60)
        assert await other.use(patient).result() == 10
        assert (await other.echo(patient).result())._extra == {"timeout": 60}
        for copied in copy.copy(callback), copy.deepcopy([callback])[0]:
            assert await copied(4).result() == 20
        local = Model.local(7)
        assert await other.use(local.get).result() == 14

    cluster(main)


def test_no_keyword_of_a_user_is_ours(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        one = Selfless.remote(self=1, cls=2, args=3)
        assert await one.give(self=4).result() == (
            {"self": 1, "cls": 2, "args": 3},
            {"self": 4},
        )
        assert await one(self=5).result() == {"self": 5}
        two = mosaic.remote(Selfless)(self=1)
        assert await two.give(proxy=0).result() == ({"self": 1}, {"proxy": 0})
        many = Selfless.options(len=2).remote(self=1)
        assert await many.give(self=2).result() == [({"self": 1}, {"self": 2})] * 2
        assert await Selfless.local(self=3).give().result() == ({"self": 3}, {})

    cluster(main)


def test_what_is_forgotten_is_told_with_what_to_write(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        model = Model.remote()
        with pytest.raises(TypeError, match=r"not called; write 'await proxy.get\("):
            await model.get
        stream: Any = model.items()
        with pytest.raises(TypeError, match="'async for item in"):
            await stream
        with pytest.raises(AttributeError, match="'result': this is a stream"):
            stream.result()
        assert not hasattr(stream, "_repr_html_")
        assert [item async for item in stream] == [0, 1, 2]
        task = model.get()
        with pytest.raises(mosaic.SerializationError, match=r"as t.outputs\[i\]"):
            model.echo(task.outputs)
        with pytest.raises(mosaic.SerializationError, match=r"get_attr\(proxy, 'size'"):
            model.echo([model.size])
        attribute = mosaic.get_attr(model, "size")
        assert await model.echo([attribute]).result() == [3]

        with pytest.raises(TypeError, match="gave 4, which cannot be awaited"):
            await runtime.async_for([4])(lambda worker, item: item)
        assert await runtime.async_for([4])(lambda worker, item: model.get(item))
        with pytest.raises(TypeError, match=r"mosaic.remote\(int, "):
            mosaic.tessera(int)

    cluster(main)

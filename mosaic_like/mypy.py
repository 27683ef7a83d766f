"""A plugin of mypy: what ``@tessera`` gives a class, with the constructor's arguments.

mypy ignores what a class decorator returns. With ``plugins = mosaic_like.mypy`` in its
configuration it knows ``Klass.remote``, ``local``, ``options``, ``parameter`` and what
else there is, and checks their arguments. Nothing else imports this file: mypy does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy.nodes import ARG_STAR, ARG_STAR2, MDEF, SymbolTableNode, TypeInfo, Var
from mypy.plugin import Plugin
from mypy.types import (
    AnyType,
    CallableType,
    FunctionLike,
    Instance,
    Overloaded,
    Parameters,
    Type,
    TypeOfAny,
    get_proper_type,
)
from mypy.typevars import fill_typevars

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy.plugin import AttributeContext, ClassDefContext

_DECORATOR = "mosaic_like.proxies.marking.tessera"
# For each name the class whose instance, or whose call, it gives.
_MAKERS = ("remote", "local", "parameter", "local_parameter")
_RESULTS = {
    "remote": "mosaic_like.proxies.tessera.TesseraProxy",
    "local": "mosaic_like.proxies.tessera.TesseraProxy",
    "parameter": "mosaic_like.proxies.parameter.Parameter",
    "local_parameter": "mosaic_like.proxies.parameter.Parameter",
    "options": "mosaic_like.proxies.marked.OptionsOf",
    "select_worker": "mosaic_like.proxies.marked.SelectWorker",
}


class _Tesserae(Plugin):
    def get_class_decorator_hook_2(
        self, fullname: str
    ) -> Callable[[ClassDefContext], bool] | None:
        return _add_names if fullname == _DECORATOR else None

    def get_class_attribute_hook(
        self, fullname: str
    ) -> Callable[[AttributeContext], Type] | None:
        name = fullname.rpartition(".")[2]
        if name in _MAKERS:
            return lambda ctx: _maker(ctx, name)
        return _options if name == "options" else None


def plugin(version: str) -> type[Plugin]:
    """What mypy asks for."""
    return _Tesserae


def _add_names(ctx: ClassDefContext) -> bool:
    """Add our names, where the class and its bases have none of their own."""
    cls = ctx.cls.info
    own = fill_typevars(cls)
    anything = AnyType(TypeOfAny.special_form)
    for name, result in _RESULTS.items():
        symbol = ctx.api.lookup_fully_qualified_or_none(result)
        if symbol is None or not isinstance(symbol.node, TypeInfo):
            return False  # not analysed yet: mypy asks again
        if cls.get(name) is not None:
            continue
        kind: Type
        if name in _MAKERS:
            kind = CallableType(
                [anything, anything],
                [ARG_STAR, ARG_STAR2],
                [None, None],
                Instance(symbol.node, [own]),
                ctx.api.named_type("builtins.function"),
                name,
            )
        elif name == "options":
            kind = Instance(symbol.node, [_any_arguments(), own])
        else:
            kind = Instance(symbol.node, [])
        variable = Var(name, kind)
        variable.info = cls
        variable._fullname = f"{cls.fullname}.{name}"
        variable.is_classvar = True
        variable.is_initialized_in_class = True
        cls.names[name] = SymbolTableNode(MDEF, variable, plugin_generated=True)
    return True


def _maker(ctx: AttributeContext, name: str) -> Type:
    """``Klass.remote``: the constructor, giving a proxy."""
    found = get_proper_type(ctx.default_attr_type)
    constructor = get_proper_type(ctx.type)
    if (
        not isinstance(found, CallableType)
        or not isinstance(constructor, FunctionLike)
        or not _is_ours(found.ret_type, _RESULTS[name])
    ):
        return found  # the user's own
    proxy = get_proper_type(found.ret_type)
    assert isinstance(proxy, Instance)
    makers = [
        item.copy_modified(
            ret_type=proxy.copy_modified(args=[item.ret_type]),
            fallback=found.fallback,
            name=found.name,
        )
        for item in constructor.items
    ]
    return makers[0] if len(makers) == 1 else Overloaded(makers)


def _options(ctx: AttributeContext) -> Type:
    """``Klass.options``: gives something whose ``remote`` has these arguments."""
    found = get_proper_type(ctx.default_attr_type)
    constructor = get_proper_type(ctx.type)
    if not isinstance(constructor, CallableType) or not _is_ours(
        found, _RESULTS["options"]
    ):
        return found  # the user's own, or overloaded: then any arguments go
    assert isinstance(found, Instance)
    arguments = Parameters(
        constructor.arg_types, constructor.arg_kinds, constructor.arg_names
    )
    return found.copy_modified(args=[arguments, constructor.ret_type])


def _is_ours(kind: Type, fullname: str) -> bool:
    proper = get_proper_type(kind)
    return isinstance(proper, Instance) and proper.type.fullname == fullname


def _any_arguments() -> Parameters:
    anything = AnyType(TypeOfAny.special_form)
    return Parameters(
        [anything, anything],
        [ARG_STAR, ARG_STAR2],
        [None, None],
        is_ellipsis_args=True,
    )

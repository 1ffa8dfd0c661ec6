"""From a plan to an object that serves: imports the application.

What cannot be loaded for a reason that one line can tell raises :class:`StartError`
with that line; other exceptions of the application pass, with their traceback.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..asyncio.server import serve
from .plan import Lifespan, Plan, StartError

__all__ = ["find", "load", "load_lifespan"]


def find(name: str) -> Any:
    """Return the object of a ``"module:name"``; the name may have dots.

    Raises:
        StartError: When there is no such module, or nothing of that name in it.
    """
    module_name, _, path = name.partition(":")
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise  # of the application: something it needs is not there
        raise StartError(f"cannot import {module_name}: {exc}") from exc
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise StartError(f"{module_name} has no {path!r}") from None
    return found


def load(plan: Plan) -> serve:
    """Load the application of a plan, and make what serves it.

    Raises:
        OSError: When the certificate cannot be loaded.
        StartError: When there is no application, or it is nothing that can be served.
    """
    application = plan.application
    name = "the application"
    if isinstance(application, str):
        name = application
        application = find(application)
    context = plan.tls_context()
    options = dict(plan.options)
    if isinstance(application, serve):
        if context is not None or options:
            raise StartError(
                f"{name} comes from serve(), which has its options: "
                "they cannot be given again"
            )
        return application
    if context is not None:
        options["ssl"] = context
    if plan.hub is not None:
        options.setdefault("topics", plan.hub)
    try:
        return serve(application, port=0, **options)
    except (TypeError, ValueError) as exc:
        raise StartError(f"cannot serve {name}: {exc}") from exc


def load_lifespan(plan: Plan) -> Lifespan | None:
    """Load the lifespan of a plan, if it has one.

    Raises:
        StartError: When there is nothing of its name.
    """
    if isinstance(plan.lifespan, str):
        return find(plan.lifespan)  # type: ignore[no-any-return]
    return plan.lifespan

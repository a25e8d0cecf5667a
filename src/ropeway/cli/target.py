"""MODULE:APP: from a name on the command line to the application, or to a sentence that says what to do."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from ropeway.domain.errors import InvalidRequest
from ropeway.runtime.registry import App

__all__ = ["check_target", "load_app"]

DEFAULT_NAME = "app"


def load_app(target: str) -> App:
    """The App that `module:name` names; the name is `app` when left out. The working directory is searched first.

    Raises InvalidRequest with what is wrong and the remedy: no such module, an error inside it, no such name, no App.
    """
    check_target(target)
    module_name, _, name = target.partition(":")
    app = _app_in(_import(module_name), name or DEFAULT_NAME)
    app.origin.told = f"{module_name}:{name or DEFAULT_NAME}"
    return app


def check_target(target: str) -> None:
    """What can be said of MODULE:APP without running any of it. Raises InvalidRequest as `load_app` does."""
    module_name = target.partition(":")[0]
    _check_form(target, module_name)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    package = module_name.partition(".")[0]
    if package not in sys.modules and importlib.util.find_spec(package) is None:
        raise InvalidRequest(_not_found(package))


def _check_form(target: str, module_name: str) -> None:
    if module_name.endswith(".py") or "/" in module_name or "\\" in module_name:
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".").replace("\\", ".")
        raise InvalidRequest(f"{target!r} is a path; name the module as an import does: {dotted}:{DEFAULT_NAME}")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise InvalidRequest(f"{target!r} is no MODULE:APP, such as chatbot:app for `app = App()` in chatbot.py")


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise InvalidRequest(_not_found(error.name)) from error
        raise InvalidRequest(
            f"{name} needs the module '{error.name}', which is not installed here{_where(error)}"
        ) from error
    except Exception as error:
        raise InvalidRequest(f"{name} cannot be imported: {type(error).__name__}: {error}{_where(error)}") from error


def _not_found(name: str) -> str:
    path = Path(*name.split(".")).with_suffix(".py")
    return (
        f"there is no module '{name}': looked for {path} in {Path.cwd()} and among what is installed. "
        "Go to the directory that holds it, or install it"
    )


def _where(error: BaseException) -> str:
    """The last place outside the import machinery: file and line of the mistake."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"\n  at {error.filename}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_machinery(frame.filename)]
    return f"\n  at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""


def _is_machinery(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or filename in (__file__, importlib.__file__)


def _app_in(module: ModuleType, name: str) -> App:
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            apps = ", ".join(f"{module.__name__}:{other}" for other, value in vars(module).items() if _is_app(value))
            remedy = f"it has {apps}" if apps else f"write `{name} = App()` in it"
            raise InvalidRequest(f"{module.__name__} has no '{name}': {remedy}")
        found = getattr(found, part)
    if not isinstance(found, App):
        raise InvalidRequest(
            f"{module.__name__}:{name} is a {type(found).__name__}, not a ropeway.App; if it is a web application, "
            "mount Ropeway in it with ropeway.asgi(...) and run it with its own server"
        )
    if not found.tasks:
        raise InvalidRequest(f"{module.__name__}:{name} has no task yet: put `@{name}.task` on a function")
    return found


def _is_app(value: object) -> bool:
    return isinstance(value, App)

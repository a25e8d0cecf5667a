"""Where an application was made: the MODULE:NAME by which another process imports it anew."""

from __future__ import annotations

import sys
from types import ModuleType

from ropeway.domain.errors import InvalidRequest

__all__ = ["Origin"]

_MAIN = "__main__"


class Origin:
    """Of one application, which its copies share. `told` is its address, where somebody has loaded it by that."""

    __slots__ = ("_app", "_module", "told")

    def __init__(self, app: object, module: str) -> None:
        self._app = app
        self._module = module
        self.told: str | None = None

    @property
    def address(self) -> str:
        """MODULE:NAME. Raises InvalidRequest for an application that no other process can import."""
        if self.told is not None:
            return self.told
        for name in (self._module, *sys.modules):
            found = None if name == _MAIN else self._name_in(sys.modules.get(name))
            if found is not None:
                return f"{name}:{found}"
        if self._name_in(sys.modules.get(_MAIN)) is not None:
            remedy = "it is in the program that was started: move it into a module, and import that"
        else:
            remedy = "it is not at the top of a module: make it there, as `app = App()`"
        raise InvalidRequest(f'a child process (run="process") imports the application anew, and cannot: {remedy}')

    def _name_in(self, module: ModuleType | None) -> str | None:
        """The name that the application has at the top of the module."""
        names = dict(getattr(module, "__dict__", {}))
        return next((name for name, value in names.items() if value is self._app), None)

"""The output of a job before there is any: what stands for it in the input of another job."""

from __future__ import annotations

from typing import Any

from ropeway.domain.flow import reference

__all__ = ["NotKnownYet", "Output"]


class NotKnownYet(AttributeError, TypeError):
    """The output of a job was used as if it were there. It is put in its place as the job that is given it begins."""


class Output:
    """What a job will have returned, by the job's id: in JSON `{"$output": "job_..."}`.

    Made by `JobHandle.output`. It may stand anywhere in the input of another job, which then waits for this one. Here
    and now it holds nothing: whoever looks into it, writes it into a text or asks whether it is true, is told so.
    """

    __slots__ = ("job_id",)

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id

    def as_json(self) -> dict[str, str]:
        """How it stands in an input."""
        return reference(self.job_id)

    def _unknown(self, *_: Any) -> Any:
        raise NotKnownYet(
            f"the output of {self.job_id} is not known yet: give it to another job as it is, "
            "or wait for it by the handle's result()"
        )

    __str__ = __format__ = __bool__ = __len__ = __iter__ = __getitem__ = __contains__ = _unknown
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __lt__ = __gt__ = __le__ = __ge__ = _unknown
    __int__ = __float__ = __index__ = _unknown

    def __getattr__(self, name: str) -> Any:
        if name in Output.__slots__ or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)  # asked by copy, pickle and their like, maybe before it has an id
        self._unknown()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Output) and other.job_id == self.job_id

    def __hash__(self) -> int:
        return hash(self.job_id)

    def __repr__(self) -> str:
        return f"<Output of {self.job_id}>"

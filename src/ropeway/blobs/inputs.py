"""The files that stand in a job's input: looked up when it is submitted, and kept while it lives."""

from __future__ import annotations

from ropeway.blobs.files import Files
from ropeway.domain.errors import Fault, InputInvalid
from ropeway.domain.file import FileNotFound, FilesNotKept, referred_all

__all__ = ["digests_of", "hold_input", "may_have_files", "missing_file"]


def may_have_files(input_json: str) -> bool:
    """Whether it is worth a look: most inputs have none."""
    return '"$file"' in input_json


async def check_input(files: Files | None, tenant: str, input_json: str) -> None:
    """Whether the files of an input are there, for a submit to come. Raises InputInvalid, FilesNotKept."""
    named = referred_all(input_json)
    if not named:
        return
    if files is None:
        raise FilesNotKept("the input has files, and there is no store of files here: set `blobs`")
    try:
        await files.get_all(tenant, list(named))
    except FileNotFound as error:
        raise missing_file(named, error) from None


async def hold_input(files: Files | None, tenant: str, job: str, input_json: str) -> None:
    """Have the files of an input stay while the job lives. Before its submit.

    Raises InputInvalid for a file that this tenant does not have, with where it stands; FilesNotKept.
    """
    named = referred_all(input_json)
    if not named:
        return
    if files is None:
        raise _not_kept()
    try:
        await files.hold(tenant, job, list(named))
    except FileNotFound as error:
        raise missing_file(named, error) from None


async def digests_of(files: Files | None, tenant: str, input_json: str) -> dict[str, str]:
    """What each file of an input holds, told by its bytes and their type, whatever its id and its name.

    Raises as `hold_input` does.
    """
    named = referred_all(input_json)
    if not named:
        return {}
    if files is None:
        raise _not_kept()
    try:
        found = await files.get_all(tenant, list(named), held=True)
    except FileNotFound as error:
        raise missing_file(named, error) from None
    return {file.id: f"{file.sha256} {file.content_type}" for file in found}


def missing_file(named: dict[str, str], error: FileNotFound) -> InputInvalid:
    """That a file of an input is not there, told where it stands in it."""
    place = next((where for id_, where in named.items() if id_ in error.detail), "")
    return InputInvalid(f"the input has a file that is not there: {error.detail}", (Fault(place, error.detail),))


def _not_kept() -> FilesNotKept:
    return FilesNotKept("the input has files, and there is no store of files here: set `blobs`")

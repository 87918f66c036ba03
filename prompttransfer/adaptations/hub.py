"""Adaptations on the Hugging Face hub: pushed with a model card, pulled at one commit, checked before they are kept.

A repository holds one adaptation at its root, or a library: a folder each. What is sent are the files of adaptations
alone, nothing else that lies beside them, in one commit; what is fetched goes to the hub's own cache, is read and
checked like any folder, and only then takes its place. Who one is, the hub's library knows (`hf auth login`, HF_TOKEN).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.artifacts import (
    FILES,
    MARKERS,
    find_adaptations,
    holds_one,
    load_adaptation,
    read_record,
)
from prompttransfer.adaptations.cards import card, check_shareable, data_set_of, library_card
from prompttransfer.files import atomic_folder, safe_name
from prompttransfer.outputs import check_same, keep_others
from tasks.errors import MachineError, UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"


@dataclass(frozen=True)
class Shared:
    """What was pushed, and where it is now."""

    repo: str
    commit: str
    url: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Pulled:
    """What was pulled."""

    repo: str
    commit: str
    folders: tuple[Path, ...]
    there: tuple[Path, ...]
    """Those of `folders` that lay there already, the same."""


def push(
    folders: Sequence[Path],
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str = "",
    licence: str = "",
    local_backbone: bool = False,
    endpoint: str | None = None,
) -> Shared:
    """Put the adaptations of folders into a repository of the hub, made where there is none, in one commit.

    One adaptation lies at the root, several in a folder each. `revision` is a branch; `licence` is that of rows whose
    source does not tell. Raises UserError for folders that cannot be shared or a repository that one may not write,
    MachineError where the hub cannot be reached.
    """
    check_repo(repo)
    places = [path for folder in folders for path in find_adaptations(folder)]
    found = [load_adaptation(path) for path in places]
    if not local_backbone:
        for each in found:
            check_shareable(each)
    names = _names(places)
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api = _api(endpoint)
    with hub_errors(repo):
        licences = {**_licences(api, found), **({"": licence} if licence else {})}
        contents = _contents(places, names, found, repo, licences)
        api.create_repo(repo, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        old = _stale(api.list_repo_files(repo, revision=revision), contents, names)
        operations: list[Any] = [CommitOperationAdd(path, data) for path, data in contents.items()]
        operations += [CommitOperationDelete(path) for path in old]
        commit = api.create_commit(
            repo, operations, commit_message=message or f"Add {', '.join(names[:5])}", revision=revision
        )
    return Shared(repo, str(commit.oid), str(commit.commit_url), tuple(names))


def pull(
    repo: str,
    output: Path,
    *,
    revision: str | None = None,
    overwrite: bool = False,
    endpoint: str | None = None,
) -> Pulled:
    """Fetch the adaptations of a repository, each into a folder of its own in `output`.

    Everything is fetched and checked before anything is written. Raises UserError where there is no adaptation, one is
    damaged, or another lies in its place (unless `overwrite`).
    """
    check_repo(repo)
    with hub_errors(repo, revision):
        place = Path(
            _api(endpoint).snapshot_download(
                repo, revision=revision, allow_patterns=[*FILES, *(f"*/{name}" for name in FILES)]
            )
        )
    sources = [place] if holds_one(place) else _inside(place, repo)
    loaded = [load_adaptation(source) for source in sources]
    targets = [
        output / safe_name(each.name if source == place else source.name, f"name in {repo}")
        for source, each in zip(sources, loaded, strict=True)
    ]
    there = [
        target
        for source, target in zip(sources, targets, strict=True)
        if _is_there(source, target, overwrite)
    ]
    for source, target in zip(sources, targets, strict=True):
        if target not in there:
            with atomic_folder(target, marker=MARKERS) as temporary:
                for name in FILES:
                    if (source / name).is_file():
                        shutil.copyfile(source / name, temporary / name)
                keep_others(target, temporary, FILES)
    return Pulled(repo, place.name, tuple(targets), tuple(there))


def check_repo(repo: str) -> None:
    """Raise UserError unless `repo` is a name of the form OWNER/NAME."""
    parts = repo.split("/")
    if len(parts) != 2:
        raise UserError(f"{repo!r} is no repository of the hub: write OWNER/NAME, as in somebody/prompts")
    for part in parts:
        safe_name(part, f"repository {repo!r}: part")


@contextmanager
def hub_errors(repo: str, revision: str | None = None) -> Iterator[None]:
    """Turn what the hub can say into one line."""
    from huggingface_hub import errors

    # The errors of whichever HTTP library this version of the hub's uses.
    of_the_wire: Any = errors.HfHubHTTPError.__bases__[0]
    at = f" at {revision}" if revision else ""
    try:
        yield
    except errors.GatedRepoError:
        raise UserError(
            f"{repo} is gated: ask for access on its page, and log in with `hf auth login`"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{repo} is not on the hub, or not for you to see: look at the name, or log in with `hf auth login`"
        ) from None
    except (errors.RevisionNotFoundError, errors.RevisionResolutionError):
        raise UserError(
            f"{repo} has no revision {revision or 'main'}: give a branch, a tag or a commit of it"
        ) from None
    except errors.HFValidationError as error:
        raise UserError(f"{repo}: {str(error).splitlines()[0]}") from None
    except errors.LocalTokenNotFoundError:
        raise UserError(
            "the hub does not know who you are: log in with `hf auth login`, or set HF_TOKEN"
        ) from None
    except errors.OfflineModeIsEnabled:
        raise MachineError(f"{repo}{at}: HF_HUB_OFFLINE is set, so the hub is not asked: unset it") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise UserError(
                f"the hub does not let you do that with {repo}: log in with `hf auth login` as somebody who may"
            ) from None
        raise MachineError(f"the hub answered {status} about {repo}{at}: {_first_line(error)}") from None
    except (errors.LocalEntryNotFoundError, of_the_wire, ConnectionError, TimeoutError) as error:
        raise MachineError(f"the hub cannot be reached for {repo}{at}: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _api(endpoint: str | None) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint, library_name="prompttransfer")


def _names(places: Sequence[Path]) -> list[str]:
    """What the folders are called in a library. Raises UserError where two share a name."""
    names = [safe_name(path.resolve().name, "folder of an adaptation") for path in places]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(
            f"two of the folders are called {twice}: rename one (`prompttransfer prompts rename`)"
        )
    return names


def _licences(api: HfApi, found: Sequence[Adaptation]) -> dict[str, str]:
    """Hub data set -> the licence that its card states, for those that state one."""
    from huggingface_hub.errors import HfHubHTTPError

    licences = {}
    for name in sorted({one for each in found if (one := data_set_of(each)) is not None}):
        try:
            data = api.dataset_info(name).card_data
            stated = None if data is None else data.get("license")
        except HfHubHTTPError:
            continue  # the card then leads to its page
        if stated:
            licences[name] = ", ".join(map(str, stated)) if isinstance(stated, list) else str(stated)
    return licences


def _contents(
    places: Sequence[Path],
    names: Sequence[str],
    found: Sequence[Adaptation],
    repo: str,
    licences: Mapping[str, str],
) -> dict[str, bytes]:
    """Path in the repository -> what is put there."""
    alone = len(places) == 1
    contents: dict[str, bytes] = {}
    for place, name, each in zip(places, names, found, strict=True):
        lead = "" if alone else f"{name}/"
        for file in FILES:
            if (place / file).is_file():
                contents[lead + file] = (place / file).read_bytes()
        contents[lead + CARD] = card(each, licences=licences, place=repo).encode()
    if not alone:
        contents[CARD] = library_card(repo, found, names, licences).encode()
    return contents


def _stale(there: Sequence[str], contents: Mapping[str, bytes], names: Sequence[str]) -> list[str]:
    """Files of earlier versions of what is put into a repository, which this version no longer has."""
    own = {*FILES} if len(names) == 1 else {f"{name}/{file}" for name in names for file in FILES}
    return sorted((own & set(there)) - set(contents))


def _inside(place: Path, repo: str) -> list[Path]:
    try:
        return find_adaptations(place)
    except UserError:
        raise UserError(f"{repo} holds no adaptation: none of {', '.join(MARKERS)} is in it") from None


def _is_there(source: Path, target: Path, overwrite: bool) -> bool:
    """Whether the same lies in its place already. Raises UserError for another, unless it may be overwritten."""
    if not holds_one(target):
        return False
    before, now = read_record(target), read_record(source)
    if before == now and load_adaptation(target).digest == now.digest:
        return True
    if not overwrite:
        check_same(target, before.model_dump(), now.model_dump(), what="another adaptation")
    return False

"""What a restore needs of a repository, read as far as it is needed: the plan is chosen from pages, then its segments are read.

Of a year of small segments a plan reads the newest pages' summaries, and the rows of those between the chosen set and the target.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from kpbackup.model.catalog import Catalog, History
from kpbackup.model.stretch import Unit
from kpbackup.plan import chain as chains
from kpbackup.plan import timeline
from kpbackup.repository import catalog as catalogs
from kpbackup.repository.binding import Repository


def plan_restore(repository: Repository, target: timeline.Target) -> timeline.RestorePlan:
    """The plan for `target`, from what is stored now.

    Raises:
        UnreachableTarget, IntegrityError, UsageError: as timeline.plan_restore. StorageError.
    """
    catalog = catalogs.read_catalog(repository)
    history, chain, spelt, _ = timeline.choose(catalog, target)
    known = catalogs.detailed(repository, history, timeline.needed_units(chain, spelt))
    return timeline.plan_restore(_with(catalog, known), target)


def chain_of(repository: Repository, set_name: str) -> tuple[History, chains.Chain] | None:
    """The chain of a set with every segment of it, and its timeline; None when there is no such set.

    Raises:
        IntegrityError, StorageError.
    """
    for history in catalogs.read_catalog(repository).histories:
        for found in chains.chains(history):
            if found.backup_set.name == set_name:
                known = catalogs.detailed(repository, history, found.units)
                return known, next(one for one in chains.chains(known) if one.backup_set.name == set_name)
    return None


def detailed_where(repository: Repository, catalog: Catalog, is_wanted: Callable[[Unit], bool]) -> Catalog:
    """The catalog with every segment known by itself of the stretches that are wanted.

    Raises:
        IntegrityError: a page or its rows are damaged. StorageError.
    """
    for history in catalog.histories:
        catalog = _with(catalog, catalogs.detailed(repository, history, [one for one in history.units if is_wanted(one)]))
    return catalog


def _with(catalog: Catalog, history: History) -> Catalog:
    """The catalog with one of its timelines known better."""
    return dataclasses.replace(catalog, histories=tuple(history if h.id == history.id else h for h in catalog.histories))

"""Rounds of interleaved runs: every variant once a round, the order rotated by one from round to round.

What a restore brought back is compared with the source after the clock has stopped. kpbackup must bring back everything;
what a peer leaves out is written down beside its figures.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from bench import variants
from bench.measure import BenchFailed, Programs, Run, run
from bench.stage import FILES, Stage
from bench.variants import Variant

Say = Callable[[str], None]


@dataclass
class Results:
    """All runs of each variant, in the order they were made, and what is to be said of a variant."""

    runs: dict[str, list[Run]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def add(self, variant: Variant, made: Run) -> None:
        self.runs.setdefault(variant.name, []).append(made)


def rotated(chosen: Sequence[Variant], number: int) -> list[Variant]:
    """The order of round `number`, from 0."""
    start = number % len(chosen) if chosen else 0
    return [*chosen[start:], *chosen[:start]]


def backups(stage: Stage, chosen: Sequence[Variant], rounds: int, say: Say, *, what: str = "backup") -> Results:
    """Backs up with every variant, `rounds` times; the last output of each stays for the restores."""
    results = Results()
    for number in range(rounds):
        for variant in rotated(chosen, number):
            made = back_up_once(stage, variant)
            results.add(variant, made)
            say(f"{what:<9} round {number + 1}  {variant.name:<17} {made.wall_s:8.2f} s  {made.output_bytes / 1e6:8.1f} MB")
    return results


def restores(stage: Stage, chosen: Sequence[Variant], rounds: int, say: Say) -> Results:
    """Restores with every variant into a fresh server each time."""
    results = Results()
    expected = stage.fingerprint(stage.source)
    prepare_restores(stage, chosen)
    for number in range(rounds):
        for variant in rotated(chosen, number):
            made, differs = restore_once(stage, variant, expected)
            results.add(variant, made)
            told = "  differs from the source" if differs else ""
            say(f"restore   round {number + 1}  {variant.name:<17} {made.wall_s:8.2f} s{told}")
            if differs:
                results.notes[variant.name] = [f"not as on the source: {', '.join(differs)}"]
    return results


def back_up_once(stage: Stage, variant: Variant) -> Run:
    made = _run(stage, variant.build(stage, stage.source), stage.source.pid)
    return replace(made, output_bytes=variants.output_bytes(variant, stage))


def restore_once(stage: Stage, variant: Variant, expected: dict[str, str]) -> tuple[Run, list[str]]:
    """The run, and the names of what is not as on the source.

    Raises:
        BenchFailed: a program failed, or kpbackup did not bring back everything.
    """
    with stage.target() as target:
        made = _run(stage, variant.build(stage, target), target.pid)
        found = stage.fingerprint(target)
    if variant.name == "kpbackup":
        made = replace(made, read_back_share=variants.read_back_share(stage))
    differs = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if differs and variant.name == "kpbackup":
        raise BenchFailed(f"kpbackup did not bring back what is on the source: {', '.join(differs)}")
    return made, differs


def prepare_restores(stage: Stage, chosen: Sequence[Variant]) -> None:
    """Makes the inputs that no backup round has left; the unencrypted dump is always made here."""
    names = {variant.name for variant in chosen}
    by_name = {variant.name: variant for variant in variants.BACKUPS}
    if "kpbackup" in names and not list((stage.directory / FILES).rglob("sets/*/*")):
        back_up_once(stage, by_name["kpbackup"])
    if "myloader" in names and not variants.mydumper_folder(stage, compress=True).exists():
        back_up_once(stage, by_name["mydumper"])
    sealed = variants.dump_file(stage, 3)
    if names & {"zstd-mariadb", "age-zstd-mariadb"}:
        if not sealed.exists():
            back_up_once(stage, by_name["dump-zstd3"])
        plain = variants.dump_file(stage, 3, sealed=False)
        subprocess.run(["age", "-d", "-i", str(stage.identity), "-o", str(plain), str(sealed)], check=True)


def _run(stage: Stage, programs: Programs, server_pid: int) -> Run:
    return run(
        programs, environ=stage.kpbackup_environ, log=stage.directory / "program.log",
        server_pid=server_pid, store_pid=stage.store.pid,
    )

"""Who may do what: bearer tokens and their rules, as RBAC roles would give them.

A token that is not known is refused with 401; a verb that no rule allows with 403. Without any token known, everybody may do
everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """Allows verbs on resources (plural, maybe with a subresource) in namespaces; `*` stands for all."""

    verbs: frozenset[str]
    resources: frozenset[str]
    namespaces: frozenset[str] = frozenset({"*"})

    def allows(self, verb: str, resource: str, namespace: str) -> bool:
        return all(
            wanted in allowed or "*" in allowed
            for wanted, allowed in ((verb, self.verbs), (resource, self.resources), (namespace, self.namespaces))
        )


def rule(verbs: str, resources: str, namespaces: str = "*") -> Rule:
    """A rule from words: `rule("get list", "secrets configmaps")`."""
    return Rule(*(frozenset(text.split()) for text in (verbs, resources, namespaces)))


EVERYTHING = (rule("*", "*"),)


class Access:
    """The known tokens."""

    def __init__(self, tokens: Mapping[str, Sequence[Rule]] | None = None) -> None:
        self.tokens = dict(tokens or {})

    def is_known(self, token: str | None) -> bool:
        return not self.tokens or token in self.tokens

    def allows(self, token: str | None, verb: str, resource: str, namespace: str) -> bool:
        rules = self.tokens.get(token or "", ()) if self.tokens else EVERYTHING
        return any(one.allows(verb, resource, namespace) for one in rules)

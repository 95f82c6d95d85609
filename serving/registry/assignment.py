"""Which loaded version answers each episode, and which one is the shadow of the served version."""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from serving.policy.artefact import Card
from serving.registry.selection import Selection
from serving.registry.store import SHOWN_DIGITS

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy  # imports TensorFlow

_HASH_BYTES = 8


class Choice(NamedTuple):
    """The policy that answers a request, and what chose it."""

    policy: "Policy"
    selection: str = ""  # digest of the selection; empty where the client named the version


class Assignment:
    """Assigns a version to every episode, by what is selected and loaded; immutable.

    It depends only on the selection and the loaded versions, not on shared state: all workers and
    replicas that have loaded the same versions assign alike. SHA-256 of the model's name, a slash
    and the episode's id gives a number in [0, 1) (its first 8 bytes, big-endian, divided by
    2**64). Starting at 0, each canary in order has an interval as long as its share, and the
    served version has the rest. So a canary whose share grows keeps its episodes.

    Attributes:
        served: the version that answers all other requests, if there is one.
        selected: what the operator had selected when these versions were loaded.
        canaries: the policies of the loaded canaries, by version.
        excluded: why some of these answer no episodes, by version.
        shares: the share of the episodes of each version that answers any.
        beside: all policies loaded as canaries or as the shadow, by version.
        shadow: the loaded shadow, if it can be compared with the served version.
        shadow_fault: why the loaded shadow cannot be compared; empty if it can, or without one.
        selection: digest of what answers, 12 hex digits, which differs whenever any episode could
            get another policy; empty if no version is served.
    """

    def __init__(
        self,
        model: str,
        served: "Policy | None",
        selected: Selection,
        loaded: Mapping[int, "Policy"],
    ) -> None:
        """Give the `loaded` canaries their shares; the served version gets those of the others."""
        canaries = selected.canaries
        self.served = served
        self.selected = selected
        self.beside = loaded
        self.shadow = None if selected.shadow is None else loaded.get(selected.shadow)
        self.shadow_fault = ""
        if self.shadow:
            self.shadow_fault = (
                shadow_difference(self.shadow.card, served.card)
                if served
                else "no version is served"
            )
        if self.shadow_fault or self.shadow is served:
            self.shadow = None
        self.canaries = {
            one.version: loaded[one.version] for one in canaries if one.version in loaded
        }
        excluded = {
            version: difference(policy.card, served.card) if served else "no version is served"
            for version, policy in self.canaries.items()
        }
        self.excluded = {version: why for version, why in excluded.items() if why}
        answering = {n: policy for n, policy in self.canaries.items() if n not in self.excluded}
        self.shares = {version: selected.shares[version] for version in answering}
        if served:
            self.shares.pop(served.version, None)
            self.shares[served.version] = round(1 - math.fsum(self.shares.values()), 9)
        self.selection = _digest(model, served, selected, answering) if served else ""
        self._prefix = f"{model}/".encode()
        if served:
            self._default = Choice(served, self.selection)
            policies = [answering.get(canary.version, served) for canary in canaries]
            self._choices = [Choice(one, self.selection) for one in policies] + [self._default]
        # Each sum of shares is rounded only once, so that 0.7, 0.1 and 0.2 leave no remainder.
        sums = (
            math.fsum(canary.share for canary in canaries[: end + 1])
            for end in range(len(canaries))
        )
        self._bounds = [int(bound * 2 ** (8 * _HASH_BYTES)) for bound in sums]

    def choose(self, episode: str | None) -> Choice:
        """The policy for an episode, or for a request without one; needs a served version."""
        if episode is None or not self._bounds:
            return self._default
        digest = hashlib.sha256(self._prefix + episode.encode()).digest()
        number = int.from_bytes(digest[:_HASH_BYTES], "big")
        return self._choices[bisect_right(self._bounds, number)]

    def describe(self) -> str:
        """The loaded canaries, each with its digest, or with the reason why it does not answer."""
        return (
            "; ".join(
                f"version {version}, {self.excluded.get(version, f'digest {policy.digest}')}"
                for version, policy in self.canaries.items()
            )
            or "none"
        )


def difference(card: Card, served: Card) -> str:
    """Why a policy cannot answer in place of the served one; empty if it can."""
    if card.observations.names != served.observations.names:
        return "its observations are not those of the served version"
    if card.actions != served.actions:
        return "its actions are not those of the served version"
    return ""


def shadow_difference(card: Card, served: Card) -> str:
    """Why the decisions of two policies cannot be compared; empty if they can."""
    if card.environment != served.environment:
        return f"its environment is {card.environment}, not that of the served version"
    return difference(card, served)


def _digest(
    model: str,
    served: "Policy",
    selected: Selection,
    answering: Mapping[int, "Policy"],
) -> str:
    digests = {version: policy.digest for version, policy in answering.items()}
    content = {
        "model": model,
        "served": [served.version, served.digest],
        "canaries": [
            [one.version, one.share, digests.get(one.version)] for one in selected.canaries
        ],
    }
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:SHOWN_DIGITS]

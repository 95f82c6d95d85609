"""What the peers share: request and answer as Pydantic models, and the loaded SavedModel."""

import os
import secrets
from typing import Annotated, Any

import numpy as np
import tensorflow as tf
from pydantic import BaseModel, ConfigDict, Field

Row = Annotated[list[float], Field(min_length=4, max_length=4)]


class ActRequest(BaseModel):
    """Observations to decide about."""

    model_config = ConfigDict(extra="forbid")

    observations: Annotated[list[Row], Field(min_length=1, max_length=65_536)]
    deterministic: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**53)] | None = None


class ModelVersion(BaseModel):
    """The version that decided."""

    name: str
    version: int


class ActResponse(BaseModel):
    """Decisions, one entry per row of observations."""

    actions: list[int]
    action_logits: list[list[float]]
    action_probabilities: list[list[float]]
    log_probabilities: list[float]
    state_values: list[float]
    seed: int
    model: ModelVersion
    warnings: list[str]


class SavedPolicy:
    """The version in the folder `POLICY_DIR`, loaded and warmed up."""

    def __init__(self) -> None:
        model_dir = os.environ["POLICY_DIR"]
        name, version = model_dir.split("/")[-2:]
        self._identity = {"name": name, "version": int(version)}
        self._model = tf.saved_model.load(model_dir)  # the signature does not keep it alive
        self._signature = self._model.signatures["act"]
        self.act([[0.0] * 4])

    def act(
        self, observations: list[list[float]], deterministic: bool = False, seed: int | None = None
    ) -> dict[str, Any]:
        """Decide about a batch; the answer has the fields of `ActResponse`."""
        batch = len(observations)
        seed = secrets.randbelow(2**53) if seed is None else seed
        uniforms = np.random.default_rng(seed).random(batch, np.float32)
        outputs = self._signature(
            observations=tf.constant(observations, tf.float32),
            uniforms=tf.constant(uniforms),
            deterministic=tf.constant(np.full(batch, deterministic)),
        )
        names = set(ActResponse.model_fields) & set(outputs)
        lists = {name: outputs[name].numpy().tolist() for name in names}
        return {**lists, "seed": seed, "model": self._identity, "warnings": []}

"""The policy behind FastAPI; uvicorn runs it.

POLICY_DIR=MODEL_DIR uvicorn benchmarks.serving_contenders.fastapi_app:app --workers 2
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request

from benchmarks.serving_contenders.saved_policy import ActRequest, ActResponse, SavedPolicy


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the policy once per worker, before it accepts requests."""
    app.state.policy = SavedPolicy()
    yield


app = FastAPI(lifespan=lifespan)


# `async`, because FastAPI's thread pool costs more than a decision about one row.
@app.post("/act", response_model=ActResponse)
async def act(body: ActRequest, request: Request) -> dict[str, Any]:
    """Decide about a batch."""
    policy: SavedPolicy = request.app.state.policy
    return policy.act(body.observations, body.deterministic, body.seed)

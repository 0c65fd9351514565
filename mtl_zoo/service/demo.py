"""The page of `mtl-zoo serve --demo`: pick a user, see the list and its scores, move what counts and watch it change.

The page is one file, which loads nothing from elsewhere and asks the service's own routes: `GET /demo/users`, which is
here, and `POST /recommend`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

# What the page is told of: more would make it slow.
MOST_USERS, MOST_ITEMS = 200, 5000


def page() -> tuple[str, dict[str, str]]:
    """The page, and the headers that let it run its own script and ask its own service, and nothing else."""
    text = resources.files("mtl_zoo.service").joinpath("demo.html").read_text(encoding="utf-8")
    script = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}


def described(recommender: Any) -> dict[str, Any]:
    """What the page needs to know of a recommender, as plain values.

    Args:
        recommender: A `mtl_zoo.recommend.Recommender`.

    Returns:
        `user`, the column of ids; `columns` that a user's row has; some `users`, and whether their ids `is_text`;
        `tasks` and the `weights` to start with; `diversity`, or None where no stage has a trade-off; `items`, a title
        by id for catalogues of at most 5,000.
    """
    table = recommender.users
    users = [] if table is None else [_plain(row) for row in table.head(MOST_USERS).to_dict("records")]
    return {
        "user": recommender.user,
        "columns": recommender.user_columns,
        "users": users,
        "is_text": any(isinstance(user[recommender.user], str) for user in users),
        "tasks": recommender.tasks,
        "weights": _weights(recommender),
        "diversity": _diversity(recommender.stages),
        "items": _titles(recommender.items, recommender.item),
    }


def mount(app: Any, service: Any) -> None:
    """Adds the page and its route to the service's application."""
    from starlette.responses import HTMLResponse, JSONResponse

    from mtl_zoo.service.errors import RequestError

    async def show(request: Any) -> Any:
        text, headers = page()
        return HTMLResponse(text, headers=headers)

    async def users(request: Any) -> Any:
        _, servable = service.versions.get(None)
        recommender = getattr(servable, "recommender", None)
        if recommender is None:
            raise RequestError(404, "The version that is served gives scores, and recommends nothing.", "no_recommender")
        return JSONResponse(described(recommender))

    app.add_route("/", show, methods=["GET"])
    app.add_route("/demo/users", users, methods=["GET"])


def _weights(recommender: Any) -> dict[str, float]:
    """The fusion's own numbers by task; where it has none, those that let every task count about alike."""
    config = recommender.fusion.get_config()
    found = next((config[name] for name in ("weights", "powers") if isinstance(config.get(name), Mapping)), None)
    if found is None:
        return dict.fromkeys(recommender.tasks, 1.0)
    return {task: float(found.get(task, 0.0)) for task in recommender.tasks}


def _diversity(stages: Any) -> float | None:
    found = [stage for stage in stages if getattr(stage, "diversifies", False)]
    return round(1 - found[0].trade_off, 4) if found else None


def _titles(items: pd.DataFrame, item: str) -> dict[str, str]:
    """A title of each item: the column of strings with the most different values."""
    texts = [name for name in items.columns if name != item and _is_text(items[name])]
    if len(items) > MOST_ITEMS or not texts:
        return {}
    best = max(texts, key=lambda name: items[name].nunique())
    if items[best].nunique() < len(items) / 2:
        return {}
    return {str(key): str(title)[:200] for key, title in zip(items[item], items[best], strict=True) if pd.notna(title)}


def _is_text(series: pd.Series) -> bool:
    return bool(len(series)) and series.dropna().map(lambda value: isinstance(value, str)).all()


def _plain(value: Any) -> Any:
    """Values that JSON has: what is missing, and what is no number, is null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(inner) for inner in value]
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is pd.NaT or value is pd.NA:
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)

"""Scores over HTTP: what `mtl-zoo serve FOLDER` runs. Needs the extra `[serve]`; importing this room does not."""

from mtl_zoo.service.app import create_app
from mtl_zoo.service.servables import SERVABLES, Servable, register_servable
from mtl_zoo.service.server import serve
from mtl_zoo.service.settings import Settings

__all__ = ["SERVABLES", "Servable", "Settings", "create_app", "register_servable", "serve"]

"""What a service is told when it starts, checked before anything heavy is loaded."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from pydantic import Field

from genrec.chat.steps import ProposalsName
from genrec.config import Config, Weights
from genrec.errors import ConfigError

_MIN_KEY = 16


class ServeConfig(Config):
    """Options of `genrec serve`. Times are in seconds."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535, description="0 takes a free one")
    allowed_hosts: tuple[str, ...] = Field((), description="further names that browsers may call this service by")
    database: str | None = Field(None, description="SQLAlchemy URL; by default a SQLite file inside the run")
    api_keys: tuple[str, ...] = Field((), repr=False, description="one of them is needed where there are any")
    engine: str = "transformers"
    engine_options: dict[str, Any] = Field({}, description="vLLM's own arguments")
    weights: Weights = Field("float32", description="how the engine holds the model")
    beam_width: int = Field(50, ge=1)
    threads: int | None = Field(None, ge=1, description="of the engine; null leaves a core for answering")
    remember_mb: int = Field(0, ge=0, description="megabytes of prompts that come again, of the transformers engine")
    media_root: Path | None = Field(None, description="what the paths of pictures are relative to, where it moved")
    number: int = Field(5, ge=1, le=20, description="items of one list in a conversation")
    proposals: ProposalsName = Field("auto", description="whether the model proposes what messages say")
    queue_size: int = Field(512, ge=1, description="requests that wait; one more is answered with 429")
    batch_size: int = Field(64, ge=1, description="requests that are ranked together")
    timeout: float = Field(30.0, gt=0, description="a request that took longer is answered with 503")
    refresh: float = Field(1.0, gt=0, description="how often to look for a changed catalogue")
    grace: int = Field(20, ge=1, description="how long accepted requests may go on after SIGTERM")
    max_body: int = Field(1_048_576, ge=1024, description="bytes of a request body")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.host)

    @property
    def host_names(self) -> tuple[str, ...]:
        """Names that the Host header may have; empty where every name may be used: then a key protects."""
        if not self.is_local:
            return self.allowed_hosts
        return ("localhost", "127.0.0.1", "[::1]", self.host, *self.allowed_hosts)


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_settings(settings: ServeConfig) -> None:
    """Refuse to open a service to others without keys. Raises ConfigError."""
    if not settings.is_local and not settings.api_keys:
        raise ConfigError(
            f"{settings.host} can be reached from other machines, and no API key is set.",
            "Give --api-key-file FILE with one key a line, or listen on 127.0.0.1.",
        )


def read_keys(path: Path) -> tuple[str, ...]:
    """API keys of a file, one a line; empty lines and lines that begin with # are skipped.

    Raises ConfigError for a file that cannot be read, holds no key, or holds one that is easily guessed.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", "Check the path of --api-key-file.") from error
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise ConfigError(f"{path} holds no key.", "Write one key a line.")
    if short := [number for number, key in enumerate(keys, start=1) if len(key) < _MIN_KEY]:
        raise ConfigError(
            f"{path}: key {short[0]} has fewer than {_MIN_KEY} characters.",
            "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return keys

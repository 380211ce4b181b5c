"""Filters: passwords made from the vault's seed, so that a new bench needs no new secret; judgement of the vault."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from typing import Any

EXAMPLE = "example-"
"""What every value of a vault.example.yml begins with."""

SHORTEST = 16
"""Characters; `openssl rand -base64 24` gives 32."""


def problem(name: str, secret: object) -> str | None:
    """Return what is wrong with a secret, or None. Never says the secret."""
    if not isinstance(secret, str) or not secret:
        return f"{name}: expected text, got {'nothing' if not secret else type(secret).__name__}"
    if secret.startswith(EXAMPLE):
        return f"{name}: still the value of vault.example.yml"
    if len(secret) < SHORTEST:
        return f"{name}: {len(secret)} characters; expected {SHORTEST} or more; try `openssl rand -base64 24`"
    if not secret.isprintable() or secret != secret.strip():
        return f"{name}: expected one line of text without spaces around it"
    return None


def secret_problems(secrets: Mapping[str, object]) -> list[str]:
    """Return a line for each secret that must not be used."""
    return [line for name, secret in sorted(secrets.items()) if (line := problem(name, secret))]


def given(secrets: Mapping[str, object]) -> dict[str, str]:
    """Return those that somebody gave a value of their own: neither empty nor the example's."""
    return {name: str(secret) for name, secret in secrets.items() if secret and not str(secret).startswith(EXAMPLE)}


def user_secret(seed: str, user: str, generations: Mapping[str, int]) -> str:
    """Return the user's database password: 32 letters that only who knows the seed can make; ValueError for a bad seed.

    HMAC-SHA256 (RFC 2104) of user and generation, so the passwords tell nothing about each other or the seed. A higher
    generation is a new password. Only letters, digits, "-" and "_": it needs no quoting anywhere.
    """
    if line := problem("vault_seed", str(seed)):
        raise ValueError(f"{line}; see docs/rotate-secrets.md")
    message = f"battfleet database user {user} generation {generations.get(user, 1)}"
    digest = hmac.new(str(seed).encode(), message.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest[:24]).decode()


def user_secrets(users: Iterable[str], seed: str, generations: Mapping[str, int]) -> dict[str, str]:
    """Return user to password."""
    return {user: user_secret(seed, user, generations) for user in users}


class FilterModule:
    """What Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "given": given,
            "secret_problems": secret_problems,
            "user_secret": user_secret,
            "user_secrets": user_secrets,
        }

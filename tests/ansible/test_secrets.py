"""Secrets: no clear text in the repository, examples are rejected, passwords are derived from the seed."""

from __future__ import annotations

import base64
import importlib.util
import secrets
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
GUARD = ROOT / "scripts/vault_guard.py"
RANDOM = secrets.token_urlsafe(24)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fleet_secrets = load(ROOT / "ansible/plugins/filter/fleet_secrets.py")


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """An empty checkout with the guard and its hook switched on."""
    for part in ("scripts/vault_guard.py", "scripts/git-hooks/pre-commit"):
        target = tmp_path / part
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / part).read_bytes())
        target.chmod(0o755)
    git(tmp_path, "init", "-q")
    git(tmp_path, "config", "core.hooksPath", "scripts/git-hooks")
    return tmp_path


LEAKS = {
    # the leak: (file, content, a part of the message)
    "a vault that is not encrypted": ("group_vars/all/vault.yml", f"vault_seed: {RANDOM}\n", "not encrypted"),
    "a vault under another name": ("group_vars/all/old-vault.yml", f"vault_seed: {RANDOM}\n", "not encrypted"),
    "a host's vault": ("inventory/host_vars/bench-1/vault.yml", "vault_x: y\n", "not encrypted"),
    "a value in the readable file": ("group_vars/all/main.yml", f"vault_seed: {RANDOM}\n", "outside of a vault file"),
    "a real value in an example": ("group_vars/all/vault.example.yml", f"vault_seed: {RANDOM}\n", "must begin with"),
    "a token in a configuration": ("ship.toml", f'token = "{RANDOM}"\n', "looks like a secret"),
    "a password in an inventory": ("inventory/hosts.yml", f"    ansible_become_password: {RANDOM}\n", "like a secret"),
    "a private key": ("docs/key.txt", "-----BEGIN OPENSSH PRIVATE" + " KEY-----\n", "a private key"),
    "the vault's password": (".vault_pass", f"{RANDOM}\n", "must not be in the repository"),
}


@pytest.mark.parametrize("title", LEAKS)
def test_the_hook_refuses_a_commit_that_leaks(checkout: Path, title: str) -> None:
    path, content, words = LEAKS[title]
    (checkout / path).parent.mkdir(parents=True, exist_ok=True)
    (checkout / path).write_text(content)
    git(checkout, "add", "-A")
    done = git(checkout, "commit", "-q", "-m", "leak")
    assert done.returncode == 1
    assert words in done.stderr and path in done.stderr
    assert RANDOM not in done.stderr
    assert git(checkout, "log").returncode, "there is no commit"


def test_the_hook_looks_at_what_is_staged_not_at_the_disk(checkout: Path) -> None:
    vault = checkout / "group_vars/all/vault.yml"
    vault.parent.mkdir(parents=True)
    vault.write_text(f"vault_seed: {RANDOM}\n")
    git(checkout, "add", "-A")
    vault.write_text("$ANSIBLE_VAULT;1.1;AES256\n3031\n")
    assert git(checkout, "commit", "-q", "-m", "leak").returncode == 1
    git(checkout, "add", "-A")
    assert git(checkout, "commit", "-q", "-m", "encrypted").returncode == 0


def test_a_secret_that_a_later_commit_removes_is_found(checkout: Path) -> None:
    """A pushed commit stays readable whatever follows; a clone without the hook can push such commits."""
    git(checkout, "config", "--unset", "core.hooksPath")
    leak = checkout / "ship.toml"
    for content in (f'token = "{RANDOM}"\n', 'token_file = "token"\n'):
        leak.write_text(content)
        git(checkout, "add", "-A")
        assert git(checkout, "commit", "-q", "-m", "x").returncode == 0
    command = [sys.executable, str(checkout / "scripts/vault_guard.py")]
    now, ever = (
        subprocess.run([*command, *more], cwd=checkout, capture_output=True, text=True, check=False)
        for more in ([], ["--history"])
    )
    assert (now.returncode, now.stderr) == (0, "")
    assert ever.returncode == 1
    assert "ship.toml:1: what looks like a secret" in ever.stderr and RANDOM not in ever.stderr


def test_every_check_and_every_run_of_ci_looks_for_secrets() -> None:
    assert "scripts/vault_guard.py" in (ROOT / "scripts/check").read_text()
    assert "scripts/vault_guard.py --history" in (ROOT / ".ci/run").read_text()


def test_this_repository_contains_no_secret() -> None:
    done = subprocess.run([sys.executable, GUARD], cwd=ROOT, capture_output=True, text=True, check=False)
    if "not a git repository" in done.stderr:
        pytest.skip("this copy of the sources is not a git checkout")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "example", sorted((ROOT / "group_vars").glob("*/vault.example.yml")), ids=lambda p: p.parent.name
)
def test_every_example_value_is_refused(example: Path) -> None:
    values = yaml.safe_load(example.read_text())
    found = fleet_secrets.secret_problems(values)
    assert [line.partition(":")[0] for line in found] == sorted(values)


@pytest.mark.parametrize(
    "secret",
    ["", None, 12345678901234567890, "short", "a line\nand another one", f" {RANDOM}"],
    ids=["empty", "none", "number", "short", "two lines", "blank first"],  # the values differ from worker to worker
)
def test_no_weak_secret_passes(secret: object) -> None:
    (found,) = fleet_secrets.secret_problems({"vault_x": secret})
    assert found.startswith("vault_x: ")
    assert RANDOM not in found


def test_own_secrets_pass() -> None:
    assert fleet_secrets.secret_problems({"vault_x": RANDOM, "vault_y": secrets.token_hex(16)}) == []


def test_each_user_and_each_generation_has_its_own_password() -> None:
    users = [f"bench-{number}" for number in range(1, 20)]
    made = [
        fleet_secrets.user_secrets(users, seed, g)
        for seed in (RANDOM, RANDOM + "x")
        for g in ({}, dict.fromkeys(users, 2))
    ]
    passwords = [password for passwords in made for password in passwords.values()]
    assert len(set(passwords)) == 4 * len(users)
    assert made[0] == fleet_secrets.user_secrets(users, RANDOM, dict.fromkeys(users, 1)), "same in, same out"
    assert all(len(password) == 32 for password in passwords)


def test_a_password_is_the_hmac_that_openssl_makes() -> None:
    message = "battfleet database user bench-1 generation 3"
    command = ["openssl", "dgst", "-sha256", "-hmac", "k" * 32, "-binary"]
    digest = subprocess.run(command, input=message.encode(), capture_output=True, check=True).stdout
    expected = base64.urlsafe_b64encode(digest[:24]).decode()
    assert fleet_secrets.user_secret("k" * 32, "bench-1", {"bench-1": 3}) == expected


def test_the_example_seed_makes_no_password() -> None:
    seed = yaml.safe_load((ROOT / "group_vars/all/vault.example.yml").read_text())["vault_seed"]
    with pytest.raises(ValueError, match=r"vault\.example\.yml"):
        fleet_secrets.user_secret(seed, "bench-1", {})


def test_the_play_refuses_the_examples_before_any_host() -> None:
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "ansible/playbooks/server.yml"]
    if (ROOT / "group_vars/all/vault.yml").exists():
        pytest.skip("this checkout has a vault of its own")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    for name in ("vault_seed", "vault_influxdb_admin_password", "vault_grafana_admin_password"):
        assert f"{name}: still the value of vault.example.yml" in done.stdout
    assert done.stdout.count("PLAY [") == 1


def test_a_generation_is_raised_and_comments_stay() -> None:
    raise_generation = load(ROOT / "scripts/rotate_generation.py").raised
    text = (ROOT / "group_vars/all/generations.yml").read_text()
    once, first = raise_generation("# why\nfleet_generations: {}\n", "bench-2")
    twice, second = raise_generation(once, "bench-2")
    both, other = raise_generation(twice, "bench-1")
    assert (first, second, other) == (2, 3, 2)
    assert both.startswith("# why\n")
    assert yaml.safe_load(both) == {"fleet_generations": {"bench-1": 2, "bench-2": 3}}
    assert raise_generation(text, "bench-9")[1] == 2, "the real file is understood"
    with pytest.raises(ValueError, match="expected lines such as"):
        raise_generation("fleet_generations: {bench-1: 2}\n", "bench-1")


def test_what_is_empty_or_the_example_was_not_given() -> None:
    assert fleet_secrets.given({"A": "", "B": None, "C": "example-x", "D": "x", "E": 5}) == {"D": "x", "E": "5"}

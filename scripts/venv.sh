# Shell functions (POSIX sh) for scripts that need a virtual environment. Source it, with $root set to the checkout:
#
#     . "$root/scripts/venv.sh"
#     ensure_venv "$root/.venv" "collectors build"            # the newest supported python3 that is here
#     ensure_venv "$root/.venv-3.13" "dev build" python3.13   # a particular one
#
# Installs exactly what requirements.txt locks, with hashes, and the checkout itself (editable). A stamp for each list of
# extras remembers for which lock and Python that was, so that the next call costs nothing. Where the system's Python cannot make
# virtual environments (Debian: python3-venv is missing), the package is installed as root or with sudo that asks for
# nothing; otherwise the line to run is printed.

say() {
  printf '%s\n' "$*" >&2
}

is_supported() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# find_python [PYTHON]: print the interpreter to use; 69 when there is none
find_python() {
  for candidate in ${1:-python3 python3.13 python3.12 python3.11}; do
    if is_supported "$candidate"; then
      command -v "$candidate"
      return 0
    fi
  done
  say "Python 3.11 or newer is needed; ${1:-python3} is none or older."
  return 69
}

# as_root COMMAND...: run it as root; 1 when that needs a password
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    sudo "$@"
  else
    return 1
  fi
}

# install_packages NAME...: with apt, or say how
install_packages() {
  if command -v apt-get >/dev/null; then
    say "installing system packages: $*"
    as_root apt-get update -qq &&
      as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null &&
      return 0
  fi
  say "please run this once, then start again: sudo apt-get install $*"
  return 69
}

# make_venv DIR PYTHON: an empty virtual environment of that interpreter
make_venv() {
  if ! "$2" -c 'import ensurepip, venv' 2>/dev/null; then
    install_packages "$("$2" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" || return
  fi
  "$2" -m venv --clear "$1"
}

# pip_install DIR ARGUMENT...
pip_install() {
  _venv=$1
  shift
  "$_venv/bin/python" -m pip --disable-pip-version-check --quiet install --root-user-action ignore "$@"
}

# ensure_venv DIR EXTRAS [PYTHON]: see above
ensure_venv() {
  if [ -z "${3:-}" ] && ! find_python >/dev/null 2>&1; then
    install_packages python3 python3-venv || return
  fi
  _python=$(find_python "${3:-}") || return
  _version=$("$_python" -c 'import sys; print(sys.version)')
  _stamp="$(cat "$root/requirements.txt" "$root/pyproject.toml" | cksum) $2 $root $_version"
  _stamp_file="$1/stamp-$(printf '%s' "$2" | tr ' ' '+')"
  if [ -x "$1/bin/python" ] && [ "$(cat "$_stamp_file" 2>/dev/null)" = "$_stamp" ]; then
    return 0
  fi
  say "setting up $1 ($2): this takes a minute or two, once"
  rm -f "$_stamp_file"
  if [ "$("$1/bin/python" -c 'import pip, sys; print(sys.version)' 2>/dev/null)" != "$_version" ]; then
    make_venv "$1" "$_python" || return
  fi
  # $2 is a list of words
  # shellcheck disable=SC2086
  "$1/bin/python" "$root/scripts/locked.py" $2 >"$1/requirements.txt" || return
  pip_install "$1" --require-hashes -r "$1/requirements.txt" || return
  pip_install "$1" --no-deps --no-build-isolation --editable "$root" || return
  printf '%s\n' "$_stamp" >"$_stamp_file"
}

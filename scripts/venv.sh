# Shell functions (POSIX sh) for scripts that need a virtual environment. Source it, with $root set to the checkout:
#
#     . "$root/scripts/venv.sh"
#     ensure_venv "$root/.venv" "collectors build"            # the newest supported python3 that is here
#     ensure_venv "$root/.venv-3.13" "dev build" python3.13   # a particular one
#
# Installs exactly what requirements.txt locks, with hashes, and the checkout itself (editable). A stamp for each extra
# records the lock and the Python that it was installed for, so that the next call costs nothing. An extra that contains
# another (dev contains soc) stamps both. Where the system's Python cannot make virtual environments (Debian:
# python3-venv is missing), the package is installed as root or with sudo that asks for nothing; otherwise the line to
# run is printed.

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
  if command -v apt-get >/dev/null && as_root true; then
    say "installing system packages: $*"
    as_root apt-get update -qq &&
      as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null &&
      return 0
  fi
  say "please run this once, as root or with sudo, then start again: apt-get install $*"
  return 69
}

# make_venv DIR PYTHON: an empty virtual environment of that interpreter
make_venv() {
  if ! "$2" -c 'import ensurepip, venv' 2>/dev/null; then
    install_packages "$("$2" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" || return
  fi
  "$2" -m venv --clear "$1"
}

# pip_install DIR ARGUMENT...: all of pip's output goes to DIR/pip.log; its progress is shown, its errors are repeated
pip_install() {
  _venv=$1
  shift
  {
    _rc=0
    "$_venv/bin/python" -m pip --disable-pip-version-check install --root-user-action ignore --progress-bar off "$@" \
      2>&1 || _rc=$?
    printf 'exit %s\n' "$_rc"
  } | tee "$_venv/pip.log" | show_progress "$(grep -c '^[A-Za-z0-9].*==' "$_venv/requirements.txt" 2>/dev/null)"
}

# show_progress TOTAL: read pip's output and print how many of TOTAL packages were looked at: on one line of a terminal,
# else every 20 packages. Returns pip's exit code, which is the last line that it reads.
show_progress() {
  _count=0 _last=1
  while IFS= read -r _line; do
    case $_line in
      Collecting\ * | Requirement\ already\ satisfied:\ *==*)
        _count=$((_count + 1))
        _name=${_line#Collecting }
        _name=${_name#Requirement already satisfied: }
        _name=${_name%% *}
        if [ -t 2 ]; then
          printf '\r\033[K  %s of %s: %s' "$_count" "$1" "$_name" >&2
        elif [ $((_count % 20)) -eq 0 ]; then
          say "  $_count of $1 packages"
        fi
        ;;
      Installing\ collected\ packages:*)
        if [ -t 2 ]; then
          printf '\r\033[K  %s of %s: unpacking' "$_count" "$1" >&2
        elif [ "$_count" -gt 1 ]; then
          say "  unpacking $_count packages"
        fi
        ;;
      ERROR:* | *error:*)
        [ ! -t 2 ] || printf '\r\033[K' >&2
        say "$_line"
        ;;
      exit\ *) _last=${_line#exit } ;;
    esac
  done
  [ ! -t 2 ] || printf '\r\033[K' >&2
  return "$_last"
}

# stamp_of EXTRA: what a stamp file holds when that extra is installed; needs $_version
stamp_of() {
  printf '%s\n' "$(cat "$root/requirements.txt" "$root/pyproject.toml" | cksum) $1 $root $_version"
}

# ensure_venv DIR EXTRAS [PYTHON]: see above
ensure_venv() {
  if [ -z "${3:-}" ] && ! find_python >/dev/null 2>&1; then
    install_packages python3 python3-venv || return
  fi
  _python=$(find_python "${3:-}") || return
  _version=$("$_python" -c 'import sys; print(sys.version)')
  _missing=''
  for _extra in $2; do
    [ -x "$1/bin/python" ] && [ "$(cat "$1/stamp-$_extra" 2>/dev/null)" = "$(stamp_of "$_extra")" ] ||
      _missing="$_missing $_extra"
  done
  [ -n "$_missing" ] || return 0
  say "setting up $1 ($2): this takes a minute or two, once"
  if [ "$("$1/bin/python" -c 'import pip, sys; print(sys.version)' 2>/dev/null)" != "$_version" ]; then
    make_venv "$1" "$_python" || return
    # apt may have brought a newer Python with python3-venv: the stamps are for the one that is there now
    _version=$("$1/bin/python" -c 'import sys; print(sys.version)')
  fi
  # $2 is a list of words
  # shellcheck disable=SC2086
  "$1/bin/python" "$root/scripts/locked.py" $2 >"$1/requirements.txt" || return
  # shellcheck disable=SC2086
  _extras=$("$1/bin/python" "$root/scripts/locked.py" --extras $2) || return
  for _extra in $_extras; do
    rm -f "$1/stamp-$_extra"
  done
  pip_install "$1" --require-hashes -r "$1/requirements.txt" || return
  pip_install "$1" --no-deps --no-build-isolation --editable "$root" || return
  for _extra in $_extras; do
    stamp_of "$_extra" >"$1/stamp-$_extra"
  done
}

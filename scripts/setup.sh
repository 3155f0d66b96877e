#!/usr/bin/env bash
# Makes .venv: Python, uv, the pinned packages, and this project in editable form. Start it with `make setup`.
#
# The second time it takes a moment: the stamp in .venv holds a checksum of everything that decides what is
# installed. A set-up that was interrupted leaves its marker behind and is then done again from the start.
#
#   PYTHON          the interpreter to build .venv with (default: the first of 3.11 … 3.14 that is found)
#   TORCH_BACKEND   cpu (default), auto, cu130, …: where uv takes PyTorch from; none: the index as it stands
#   PIP_FIND_LINKS  folders or pages with wheels; if one holds our PyTorch, that wheel is taken
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
stamp=$venv/genrec-setup.stamp
unfinished=$venv/genrec-setup.unfinished
start=$SECONDS

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$@" >&2; exit 1; }

usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# A Python of at least 3.11 that can make virtual environments (Debian ships venv as a package of its own).
find_python() {
  local candidate without_venv=""
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3 python}; do
    usable "$candidate" || continue
    if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
      printf '%s' "$candidate"
      return
    fi
    without_venv=$candidate
  done
  [ -z "$without_venv" ] || die "$without_venv has no venv module." \
    "Install it (Debian, Ubuntu: apt-get install python3-venv) and start again."
  [ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON is not a Python of version 3.11 or newer."
  die "no Python of version 3.11 or newer was found on PATH." \
    "Install one, or name one: make setup PYTHON=/path/to/python3.12"
}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

# Whether .venv exists, works, is where it was made (its scripts hold absolute paths), and is of this PYTHON.
venv_fits() {
  [ ! -e "$unfinished" ] && usable "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1 &&
    { [ -z "$old_place" ] || [ "$old_place" = "$PWD" ]; } &&
    { [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$(version_of "$venv/bin/python")" ]; }
}

# Sets `backend` and fills `sources`: what tells uv where packages come from, besides the default index.
choose_sources() {
  local place version tag
  version=$(sed -n 's/^torch==//p' requirements/torch.txt)
  tag=cp$(version_of "$venv/bin/python" | tr -d .)
  # Without a word about it, Linux would get the CUDA build of PyTorch: several gigabytes.
  backend=${TORCH_BACKEND:-${old_backend:-cpu}}
  sources=()
  for place in ${PIP_FIND_LINKS:-}; do
    sources+=(--find-links "$place")
    if [ -z "${TORCH_BACKEND:-}" ] && compgen -G "$place/torch-$version*-$tag-*.whl" >/dev/null; then
      backend=none
    fi
  done
  if [ "$backend" = none ]; then
    say "PyTorch $version comes from PIP_FIND_LINKS or from the package index as it stands"
  else
    say "PyTorch $version comes as the build \"$backend\" (TORCH_BACKEND=… changes it)"
    sources+=(--torch-backend "$backend")
  fi
  # uv is content with any build of the release that it finds installed; a changed wish needs a word.
  if [ -n "$old_backend" ] && [ "$old_backend" != "$backend" ]; then sources+=(--reinstall-package torch); fi
}

files=$(cat pyproject.toml requirements/{lock,torch,uv}.txt scripts/setup.sh | cksum)
old_place="" old_files="" old_backend=""
if [ -f "$stamp" ]; then { read -r old_place; read -r old_files; read -r old_backend; } <"$stamp"; fi

if ! venv_fits; then
  [ ! -e "$venv" ] || say "the .venv that is there is unfinished, broken, moved or of another Python; making it anew"
  old_backend=""
  python=$(find_python)
  say "1/4 making .venv with $("$python" --version)"
  rm -rf "$venv"
  "$python" -m venv "$venv"
elif [ "$old_files" = "$files" ] && [ "${TORCH_BACKEND:-$old_backend}" = "$old_backend" ]; then
  exit 0
else
  say "1/4 updating .venv ($("$venv/bin/python" --version))"
fi
touch "$unfinished"

say "2/4 installing uv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements/uv.txt

say "3/4 installing the pinned packages (the first time: some hundred MB, some minutes)"
choose_sources
"$venv/bin/uv" pip install --python "$venv/bin/python" ${sources[@]+"${sources[@]}"} \
  -r requirements/lock.txt -r requirements/torch.txt

say "4/4 installing genrec itself"
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps \
  --build-constraints requirements/lock.txt --editable .

printf '%s\n' "$PWD" "$files" "$backend" >"$stamp"
rm -f "$unfinished"
say "done in $((SECONDS - start)) s"

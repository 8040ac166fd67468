#!/usr/bin/env bash
# Remakes requirements.txt, requirements-gpu.txt and requirements-dev.txt from requirements.in, requirements-override.in
# and requirements-dev.in.
# Pins that still fit are kept; `bash scripts/lock.sh --upgrade` takes the newest of everything.
# There are no hashes: pip would then refuse the packages that the GPU wheel adds from Paddle's own index.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v uv >/dev/null || { echo "lock: uv is missing; install it with: python -m pip install uv" >&2; exit 2; }

compile() { # INPUT OUTPUT [FLAG...]: one lock for Python 3.10 and later, on every platform
  uv pip compile "$1" --output-file "$2" "${@:3}" --quiet --universal --python-version 3.10 \
    --no-emit-index-url --no-emit-find-links --custom-compile-command "bash scripts/lock.sh"
}

compile requirements.in requirements.txt --override requirements-override.in "$@"
sed -i.tmp '2a\
# Install it with --no-deps: it is complete, and requirements-override.in goes beyond what pip would accept.
' requirements.txt
rm requirements.txt.tmp
compile requirements-dev.in requirements-dev.txt "$@"

cards() { # a line for each kind of card: compute capabilities, CUDA versions, names
  python3 - <<'END'
from clue_utils.cards import CARDS

for names, capabilities, builds in CARDS:
    numbers = " ".join(f"{major}.{minor}" for major, minor in capabilities)
    print(f"#   compute capability {numbers}: CUDA {' '.join(builds)} ({names})")
END
}

# The GPU lock is the same set with another Paddle wheel, so that the two cannot drift apart.
{
  cat <<'END'
# requirements.txt with the GPU wheel of Paddle; made by: bash scripts/lock.sh
#
# "bash scripts/setup_env.sh --cuda 12.6" installs it into .venv. By hand: this wheel comes from Paddle's own index, one
# for each CUDA version, which pip is to be told, for example for CUDA 12.6:
#
#   index=https://www.paddlepaddle.org.cn/packages/stable/cu126/
#   pip install --no-deps -r requirements-gpu.txt --extra-index-url "$index"
#   pip install -c requirements-gpu.txt paddlepaddle-gpu --extra-index-url "$index"
#
#   CUDA 11.8   https://www.paddlepaddle.org.cn/packages/stable/cu118/
#   CUDA 12.6   https://www.paddlepaddle.org.cn/packages/stable/cu126/
#   CUDA 12.9   https://www.paddlepaddle.org.cn/packages/stable/cu129/
#   CUDA 13.0   https://www.paddlepaddle.org.cn/packages/stable/cu130/
#
# The second command adds the NVIDIA libraries, which the wheel itself pins: they differ from one CUDA version to the
# next, so they are not listed here.
#
# Which version goes by the card, whatever the driver supports: a build holds no code for older and newer ones. Take the
# first; another one where the driver is older than its major version (nvidia-smi shows it at the top right).
# "nvidia-smi --query-gpu=name,compute_cap --format=csv" tells the compute capability.
#
END
  cards
  sed -e '1,/^[^#]/{/^#/d;}' -e "s/^paddlepaddle==/paddlepaddle-gpu==/" requirements.txt
} >requirements-gpu.txt.tmp
mv requirements-gpu.txt.tmp requirements-gpu.txt
echo "locked: $(grep -c == requirements.txt) pins"

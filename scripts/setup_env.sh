#!/usr/bin/env bash
# Makes .venv at the project's top: Python 3.10 to 3.13, the packages of requirements.txt, and the project itself.
# Usage: bash scripts/setup_env.sh [--dev] [--cuda [VERSION]]
#   --dev              adds the packages of requirements-dev.txt
#   --cuda [VERSION]   takes the GPU build of PaddlePaddle, for a CUDA version that requirements-gpu.txt names (without:
#                      the one to take for this machine's cards). It is kept from then on; to have the CPU build back,
#                      remove .venv.
# PYTHON=/path/to/python chooses the interpreter; where there is none that will do, uv supplies one if it is there.
# What is already in place is left alone, so a second run ends at once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/language.sh
source scripts/language.sh

venv="$PWD/.venv"
log="$venv/set-up.log"
unfinished="$venv/set-up.unfinished" # there from the moment .venv is made until all is in place
install_python="$(say "install one, or name it: " "请安装，或指定其路径：")PYTHON=/path/to/python bash scripts/setup_env.sh"

tell() { # ENGLISH CHINESE
  say "set-up: $1" "安装：$2"
}

stop() { # ENGLISH CHINESE
  tell "$1" "$2" >&2
  exit 2
}

dev="" cuda="" names_cuda=""
while [ $# -gt 0 ]; do
  case "$1" in
    --dev) dev=yes ;;
    --cuda)
      names_cuda=yes
      case "${2:-}" in
        "" | --*) ;;
        *) cuda="$2" && shift ;;
      esac
      ;;
    *) stop "unknown argument $1: bash scripts/setup_env.sh [--dev] [--cuda [VERSION]]" \
      "未知参数 $1：bash scripts/setup_env.sh [--dev] [--cuda [VERSION]]" ;;
  esac
  shift
done

find_python() { # prints the path of the Python to take, or nothing where that is left to uv
  local candidate version can_make path without_venv=""
  # 3.13 comes last: the wheel of fast-dataindex for it needs a glibc (2.34) newer than the others do.
  local candidates=(python3.12 python3.11 python3.10 python3.13 python3 python)
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    # Asked, not looked up: a name may lead to a version manager's stub that runs nothing.
    read -r version can_make path < <("$candidate" scripts/interpreter.py 2>/dev/null) || version=""
    case "$version" in
      3.10 | 3.11 | 3.12 | 3.13) ;;
      *)
        [ -z "${PYTHON:-}" ] ||
          stop "PYTHON=$PYTHON is ${version:+Python }${version:-no Python}; 3.10 to 3.13 is needed" \
            "PYTHON=$PYTHON ${version:+是 Python }${version:-不是 Python}；需要 3.10 到 3.13"
        continue
        ;;
    esac
    if [ "$can_make" = venv ]; then
      echo "$path"
      return
    fi
    without_venv="${without_venv:-$version}"
  done
  [ -z "$without_venv" ] ||
    stop "Python $without_venv has no venv module; on Debian or Ubuntu: apt-get install python$without_venv-venv" \
      "Python $without_venv 缺少 venv 模块；在 Debian 或 Ubuntu 上：apt-get install python$without_venv-venv"
  command -v uv >/dev/null ||
    stop "no Python from 3.10 to 3.13 found; $install_python" "未找到 Python 3.10 到 3.13；$install_python"
}

capabilities() { # of the cards in this machine, one a line
  nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sed -n '/^[0-9]*\.[0-9]*$/p' | sort -u || true
}

builds_for() { # CAPABILITY: prints the CUDA versions for such a card, the one to take first; nothing if it is unknown
  sed -n "s/^#   compute capability\( .*\)\{0,1\} ${1//./\\.}\( .*\)\{0,1\}: CUDA \(.*\) (.*/\3/p" requirements-gpu.txt
}

is_among() { # WORD WORDS
  case " $2 " in *" $1 "*) ;; *) return 1 ;; esac
}

choose_cuda() { # sets cuda, which may be what the user names, to a build that runs on a card of this machine, if any
  local versions found capability version driver fits first="" runs_on_one=""
  versions="$(sed -n 's/^#   CUDA \([0-9.]*\) .*/\1/p' requirements-gpu.txt | tr '\n' ' ')"
  versions="${versions% }"
  [ -z "$cuda" ] || is_among "$cuda" "$versions" ||
    stop "--cuda $cuda: no such build; choose one of $versions" "--cuda $cuda：没有这个版本；请选择 $versions 之一"
  found="$(capabilities)"
  for capability in $found; do
    fits="$(builds_for "$capability")"
    first="${first:-$fits}"
    [ -n "$fits" ] && ! is_among "$cuda" "$fits" || runs_on_one=yes # or it is not known
  done
  if [ -n "$cuda" ]; then
    [ -z "$found" ] || [ -n "$runs_on_one" ] ||
      stop "--cuda $cuda does not run on a card of compute capability ${found//$'\n'/, }: take ${first// / or }" \
        "--cuda $cuda 不能在计算能力为 ${found//$'\n'/、} 的显卡上运行：请改用 ${first// / 或 }"
    return
  fi
  [ -n "$found" ] || stop "--cuda: nvidia-smi shows no card; name the version, one of $versions" \
    "--cuda：nvidia-smi 没有列出显卡；请指定版本，$versions 之一"
  driver="$(nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\)\..*/\1/p')" || driver=""
  for version in $first; do
    [ "${version%.*}" -le "${driver:-99}" ] || continue
    for capability in $found; do
      is_among "$version" "$(builds_for "$capability")" || continue 2
    done
    cuda="$version"
    return
  done
  stop "--cuda: no build is known for the driver and all cards of this machine; name the version, one of $versions" \
    "--cuda：没有同时适合本机驱动和全部显卡的版本；请指定版本，$versions 之一"
}

key() { # FILE...: what a stamp must hold for these inputs to be in place
  echo "$venv"
  [ -z "$cuda" ] || echo "CUDA $cuda"
  cksum "$@"
}

in_place() { # STAMP FILE...
  [ -x "$venv/bin/python" ] && [ "$(cat "$venv/$1" 2>/dev/null)" = "$(key "${@:2}")" ]
}

pip_install() { # ENGLISH CHINESE ARGUMENT...: run pip, show one line of progress, and pip's own words where it fails
  local text begin="$SECONDS" line columns="$((${COLUMNS:-80} - 1))"
  text="$(tell "$1" "$2")"
  ! speaks_chinese || columns="$((columns - ${#text}))" # a character may take two columns
  printf '%s' "$text"
  [ -t 1 ] || printf ' ...'
  if "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off "${@:3}" 2>&1 |
    tee -a "$log" | while IFS= read -r line; do
    case "$line" in
      Collecting* | *Downloading* | *Building* | Installing*)
        # shellcheck disable=SC2059
        [ ! -t 1 ] || printf '\r\033[K%.*s' "$columns" "$text, $((SECONDS - begin)) s: ${line#"${line%%[! ]*}"}"
        ;;
    esac
  done; then
    [ ! -t 1 ] || printf '\r\033[K%s ...' "$text"
    say " done, $((SECONDS - begin)) s" " 完成，$((SECONDS - begin)) 秒"
  else
    say " failed; pip says:" " 失败；pip 的输出："
    grep -i -A 20 -m 1 '^ *error' "$log" >&2 || tail -n 20 "$log" >&2
    tell "all of pip's output is in $log; mend the cause and run this again" \
      "pip 的全部输出见 $log；请排除故障后重新运行" >&2
    exit 1
  fi
}

# Two set-ups at once would undo each other: the second waits for the first.
if command -v flock >/dev/null; then
  exec 9<scripts/setup_env.sh
  flock --nonblock 9 || {
    tell "waiting for another set-up of this folder to end" "等待该目录的另一次安装结束"
    flock 9
  }
fi

lock=requirements.txt
if [ -n "$names_cuda" ]; then
  choose_cuda
elif [ -e .venv/set-up.cuda ]; then
  cuda="$(cat .venv/set-up.cuda)"
fi
if [ -n "$cuda" ]; then
  lock=requirements-gpu.txt
  index="$(sed -n "s/^#   CUDA ${cuda//./\\.} *//p" "$lock")"
fi

if [ -e "$unfinished" ] || ! in_place set-up.packages "$lock"; then
  rmdir .venv 2>/dev/null || true # empty
  if [ -e .venv ] && [ ! -e "$unfinished" ] && [ ! -e .venv/set-up.packages ]; then
    stop "$venv was not made by this script; move it away" "$venv 不是由本脚本创建的；请移走"
  fi
  # Made anew rather than mended: pip may take a package that was cut off half-way for installed.
  python="$(find_python)"
  if [ -n "$python" ]; then
    version="$("$python" -V)"
    made_with="$(say "$version of $python" "$version（$python）")"
  else
    made_with="$(say "Python 3.12 of uv" "Python 3.12（由 uv 提供）")"
  fi
  tell ".venv with $made_with${cuda:+, PaddlePaddle for CUDA $cuda}" \
    "创建 .venv，使用 $made_with${cuda:+，PaddlePaddle 适用于 CUDA $cuda}"
  rm -rf .venv
  mkdir .venv
  touch "$unfinished"
  [ -z "$cuda" ] || echo "$cuda" >.venv/set-up.cuda
  if [ -n "$python" ]; then
    "$python" -m venv .venv
  else
    uv venv --quiet --allow-existing --python 3.12 .venv ||
      stop "no Python from 3.10 to 3.13 found, and uv supplies none; $install_python" \
        "未找到 Python 3.10 到 3.13，uv 也无法提供；$install_python"
    .venv/bin/python -m ensurepip >/dev/null # uv leaves pip out
  fi
  locked() { sed -n "s/^$1==\([^ ]*\).*/$1==\1/p" "$lock"; }
  pip_install "pip and setuptools" "pip 和 setuptools" "$(locked pip)" "$(locked setuptools)"
  # --no-deps: see requirements-override.in. The locked setuptools also builds what is published as source only.
  number="$(sed -n 's/==.*//p' "$lock" | sort -u | wc -l | tr -d ' ')"
  pip_install "$number locked packages (2 GB, some minutes)" "$number 个锁定版本的依赖（2 GB，需要几分钟）" \
    --no-deps --build-constraint "$lock" -r "$lock" ${cuda:+--extra-index-url "$index"}
  # The GPU build names NVIDIA's libraries itself: others for each CUDA version.
  [ -z "$cuda" ] || pip_install "NVIDIA's libraries for CUDA $cuda (some GB)" "CUDA $cuda 的 NVIDIA 库（数 GB）" \
    -c "$lock" paddlepaddle-gpu --extra-index-url "$index"
  key "$lock" >.venv/set-up.packages
  [ -n "$cuda" ] || [ -z "$(capabilities)" ] ||
    tell "this is the CPU build of PaddlePaddle; for the GPU of this machine: bash scripts/setup_env.sh --cuda" \
      "当前为 CPU 版 PaddlePaddle；如需使用本机的 GPU：bash scripts/setup_env.sh --cuda"
  rm "$unfinished"
fi

if ! in_place set-up.project setup.cfg pyproject.toml; then
  pip_install "the project" "本项目" --no-deps --no-build-isolation --editable .
  key setup.cfg pyproject.toml >.venv/set-up.project
fi

if [ -n "$dev" ] && ! in_place set-up.dev requirements-dev.txt; then
  pip_install "the tools for tests" "测试工具" --no-deps -r requirements-dev.txt
  key requirements-dev.txt >.venv/set-up.dev
fi

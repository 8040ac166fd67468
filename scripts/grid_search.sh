#!/usr/bin/env bash
# Runs the trials of a model's grid search side by side, with GNU parallel.
#
# Usage: bash scripts/grid_search.sh MODEL [FLAG...] [-- FLAG OF EVERY TRIAL...]
#   --gpus 0,1,2,3     the GPUs to use (default: CUDA_VISIBLE_DEVICES, else all of this machine; DEVICE=cpu: none)
#   --cpu_slots N      no GPU: N trials at a time that share the processors (default where there is no GPU: 2)
#   --hosts FILE       run on these machines, one a line, as GNU parallel's --sshloginfile reads them; each has the GPUs
#                      of --gpus or the slots of --cpu_slots, bash as login shell, and this folder, the project and its
#                      Python under the same paths
#   --retries N        run a trial that fails up to N times more, on another of the hosts if there are (default: 0)
#   --results DIR      folder of all models (default: RESULTS_DIR, else results)
#   --prune            end trials that are clearly behind the finished ones of their task (median rule), which run in a
#                      random order then; report.sh names them. The published table is of the full grid
#   --dry_run          list the trials: task, learning rate, batch size, dropout, seed, cards
#   --tasks, --learning_rates, --batch_sizes, --dropouts, --seeds, --cards
#                      narrow the grid or widen it, as in scripts/list_trials.py
#   -- FLAG...         flags for the script of every trial, such as --data_dir
#
# Tasks that take four GPUs come first, on groups of four, then those that take two, then the others; with fewer GPUs
# than that, a group is what there is. The batch is the published one however many share it. What concurrent trials both
# need is made once: features and downloads are locked. A finished trial is never run again and one that was stopped
# goes on, so the same command continues a search that was interrupted. A trial that fails does not stop the others.
# results/<model>/joblog has a line for each trial that ended, <trial>/trial.log the output of each.
#
# Environment: PYTHON, as in scripts/run_trial.sh; PYTHON, CLUE_DATA_DIR, CLUE_CACHE_DIR and OMP_NUM_THREADS are passed
# on to the hosts. Exit status: 0 all finished, 1 some failed, 2 a wrong flag, 128 and the signal's number interrupted.
set -euo pipefail
top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$top${PYTHONPATH:+:$PYTHONPATH}"
[ -n "${PYTHON:-}" ] || [ ! -x "$top/.venv/bin/python" ] || PYTHON="$top/.venv/bin/python"
export PYTHON="${PYTHON:-python3}"

stop() {
  echo "error: $1" >&2
  exit 2
}

is_positive() {
  [[ "$1" =~ ^[1-9][0-9]{0,5}$ ]]
}

gpus="" cpu_slots="" hosts="" retries=0 dry_run="" prune="" model="" narrowing=()
export RESULTS_DIR="${RESULTS_DIR:-results}"
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case "$1" in
    --gpus=* | --cpu_slots=* | --hosts=* | --retries=* | --results=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
  esac
  case "$1" in
    --gpus | --cpu_slots | --hosts | --retries | --results)
      [[ "${2:---}" != --* ]] || stop "$1 needs a value (--help lists the flags)"
      ;;
  esac
  case "$1" in
    -h | --help)
      sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"
      exit
      ;;
    --gpus) gpus="$2" && shift ;;
    --cpu_slots) cpu_slots="$2" && shift ;;
    --hosts) hosts="$2" && shift ;;
    --retries) retries="$2" && shift ;;
    --results) RESULTS_DIR="$2" && shift ;;
    --prune) prune=1 ;;
    --dry_run) dry_run=1 ;;
    -*)
      [ -n "$model" ] || stop "no model before $1: bash scripts/grid_search.sh MODEL [FLAG...] (--help lists the flags)"
      narrowing+=("$1")
      ;;
    *) if [ -z "$model" ]; then model="$1"; else narrowing+=("$1"); fi ;;
  esac
  shift
done
[ $# -eq 0 ] || shift
trial_flags=("$@")
[ -z "$prune" ] || { trial_flags+=(--prune) && narrowing+=(--shuffle); }
[ -n "$model" ] || stop "no model given: bash scripts/grid_search.sh MODEL [FLAG...] (--help lists the flags)"
[ -z "$gpus" ] || [ -z "$cpu_slots" ] || stop "--gpus or --cpu_slots, not both"
[ -z "$gpus" ] || [[ "$gpus" =~ ^[A-Za-z0-9/-]+(,[A-Za-z0-9/-]+)*$ ]] || stop "--gpus $gpus: write ids such as 0,1,2,3"
[ -z "$cpu_slots" ] || is_positive "$cpu_slots" || stop "--cpu_slots $cpu_slots is not an integer of at least 1"
[ "$retries" = 0 ] || is_positive "$retries" || stop "--retries $retries is not an integer of at least 0"
[ -z "$hosts" ] || [ -r "$hosts" ] || stop "--hosts $hosts: no such file"
[ -z "$hosts" ] || [ -n "$gpus$cpu_slots" ] || stop "--hosts: say with --gpus or --cpu_slots what each of them has"

command -v "$PYTHON" >/dev/null || stop "PYTHON=$PYTHON: no such program; bash scripts/setup_env.sh makes one"
trials="$("$PYTHON" "$top/scripts/list_trials.py" "${narrowing[@]}")" || exit
if [ -n "$dry_run" ]; then
  echo "$trials"
  exit
fi
# A flag that no trial could take is said once.
IFS=' ' read -ra first <<<"${trials%%$'\n'*}"
"$PYTHON" "$top/scripts/plan_trial.py" 0 "$model" "${first[@]}" -- "${trial_flags[@]}" >/dev/null || exit
command -v parallel >/dev/null || stop "GNU parallel is not installed; on Debian or Ubuntu: apt-get install parallel"
parallel --will-cite --version 2>/dev/null | grep -q '^GNU parallel' ||
  stop "the program parallel is another one (moreutils?); on Debian or Ubuntu: apt-get install parallel"

if [ -z "$gpus$cpu_slots" ]; then
  gpus="$(CARDS_ONLY=1 bash "$top/scripts/run_trial.sh")" || exit
  [ -n "$gpus" ] || cpu_slots=2
fi
[ -z "$gpus" ] || command -v flock >/dev/null || stop "the program flock is not installed; it is part of util-linux"
IFS=, read -ra gpu_ids <<<"$gpus"

# Runs a trial in a job slot: the words of a trial come last, behind model and flags of every trial.
# shellcheck disable=SC2317  # called by parallel
in_slot() { # MODEL FLAG... TASK LEARNING_RATE BATCH_SIZE DROPOUT SEED CARDS
  local cards cores locks
  if [ -n "$SLOT_GPUS" ]; then
    # A slot becomes a group of GPUs by taking their locks, which the training process holds: parallel's own slot
    # numbers run over all hosts, and locks also keep off cards where a trial outlived a search that was killed.
    locks="${XDG_RUNTIME_DIR:-$HOME/.cache/clue_benchmark}/gpu-locks-$(uname -n)"
    (umask 077 && mkdir -p "$locks") || exit
    while :; do
      for cards in $SLOT_GPUS; do
        ! lock_cards "$locks" "$cards" || break 2
      done
      sleep 1
    done
    export CUDA_VISIBLE_DEVICES="$cards" DEVICE=gpu
  else
    cores="$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)"
    export DEVICE=cpu OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores > CPU_SLOTS ? cores / CPU_SLOTS : 1))}"
  fi
  exec bash "$RUN_TRIAL" "$1" "${@: -6}" -- "${@:2:$#-7}"
}

# Takes the locks of all of these GPUs, or of none; whatever this process becomes holds them.
# shellcheck disable=SC2317  # called by in_slot
lock_cards() { # FOLDER CARDS
  local card fd fds=()
  while IFS= read -r card; do
    exec {fd}>>"$1/${card//[!A-Za-z0-9]/_}" || exit
    fds+=("$fd")
    flock --nonblock "$fd" || {
      for fd in "${fds[@]}"; do exec {fd}>&-; done
      return 1
    }
  done < <(tr , '\n' <<<"$2" | sort)
}
export -f in_slot lock_cards
export SLOT_GPUS="" CPU_SLOTS="$cpu_slots" RUN_TRIAL="$top/scripts/run_trial.sh"

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
folder="$("$PYTHON" -c 'import sys
from pathlib import Path
from clue_utils.grid import search_space
print(search_space.model_folder(Path(sys.argv[1]), sys.argv[2]))' "$RESULTS_DIR" "$model")"
mkdir -p "$folder"
if [ -n "$hosts" ]; then
  # A host that cannot work would fail trials as fast as they come.
  parallel --will-cite --nonall --sshloginfile "$hosts" --timeout 60 --joblog "$scratch/hosts" \
    "$(printf 'cd %q && test -f %q && command -v %q >/dev/null' "$PWD" "$RUN_TRIAL" "$PYTHON")" </dev/null ||
    stop "--hosts $hosts: cannot be reached, or lacks this folder, the project or its Python:$(
      awk -F '\t' 'NR > 1 && $7 + $8 != 0 {printf "%s %s", sep, $2; sep = ","}' "$scratch/hosts"
    )"
fi
joblog="$folder/joblog"
printf '%s\t' Seq Host Starttime JobRuntime Send Receive Exitval Signal >"$joblog"
echo Command >>"$joblog"
total="$(wc -l <<<"$trials")"

duration() { # SECONDS
  if [ "$1" -lt 120 ]; then echo "$1 s"; elif [ "$1" -lt 7200 ]; then echo "$(($1 / 60)) min"; else
    echo "$(($1 / 3600)) h $(($1 % 3600 / 60)) min"
  fi
}

show_progress() { # reads the line that each trial ends with
  local line num=0 ran=0 left
  trap '' INT TERM HUP
  while IFS= read -r line; do
    num=$((num + 1)) left=""
    [[ "$line" == *": finished already"* ]] || ran=$((ran + 1))
    [ "$ran" = 0 ] || [ "$num" -ge "$total" ] || left="; about $(duration $((SECONDS * (total - num) / ran))) left"
    echo "[$num/$total] $line$left"
  done
}

parallel_pid="" interrupted=""
# shellcheck disable=SC2317  # reached through the traps
interrupt() { # STATUS
  interrupted="$1"
  [ -z "$parallel_pid" ] || kill -INT "$parallel_pid" 2>/dev/null || true
}
trap 'interrupt 129' HUP
trap 'interrupt 130' INT
trap 'interrupt 143' TERM

run_phase() { # CARDS: runs the trials that take so many
  local slots="$cpu_slots" size i arguments
  awk -v cards="$1" '$6 == cards' <<<"$trials" >"$scratch/trials"
  [ -s "$scratch/trials" ] || return 0
  if [ -n "$gpus" ]; then
    size=$(($1 < ${#gpu_ids[@]} ? $1 : ${#gpu_ids[@]}))
    slots=$((${#gpu_ids[@]} / size))
    SLOT_GPUS="$(for ((i = 0; i < slots; i++)); do (IFS=, && echo "${gpu_ids[*]:i*size:size}"); done)"
  fi
  # A trial's processes get ten seconds to end before they are killed.
  arguments=(--will-cite -j "$slots" --joblog "+$joblog" --retries $((retries + 1)) --termseq "TERM,10000,KILL,100")
  arguments+=(-a "$scratch/trials" --colsep ' ')
  if [ -n "$hosts" ]; then
    arguments+=(--sshloginfile "$hosts" --workdir "$PWD" --env in_slot --env lock_cards)
    for i in SLOT_GPUS CPU_SLOTS RUN_TRIAL PYTHON RESULTS_DIR CLUE_DATA_DIR CLUE_CACHE_DIR OMP_NUM_THREADS; do
      [ -z "${!i+set}" ] || arguments+=(--env "$i")
    done
  fi
  # Quoted here and not with -q, which leaves a {} in a word to parallel.
  parallel "${arguments[@]}" "in_slot $(printf '%q ' "$model" "${trial_flags[@]}") {1} {2} {3} {4} {5} {6}" \
    </dev/null >&7 7>&- &
  parallel_pid=$!
  while kill -0 "$parallel_pid" 2>/dev/null; do wait "$parallel_pid" || true; done
  parallel_pid=""
}

where="${cpu_slots:+$cpu_slots at a time on the CPU}${gpus:+GPUs $gpus}${hosts:+ of each of the hosts in $hosts}"
echo "trials of $model: $total, $where; results in $folder"
mkfifo "$scratch/lines"
show_progress <"$scratch/lines" &
progress_pid=$!
exec 7>"$scratch/lines"
mapfile -t phases < <(awk '{print $6}' <<<"$trials" | sort -rnu)
for cards in "${phases[@]}"; do
  [ -n "$interrupted" ] || run_phase "$cards"
done
exec 7>&-
while kill -0 "$progress_pid" 2>/dev/null; do wait "$progress_pid" || true; done

"$PYTHON" - "$joblog" "$folder" "$total" <<'END_OF_SUMMARY' || status=$?
import sys
from pathlib import Path

from clue_utils.grid.search_space import LOG_FILE, Trial

joblog, folder, total = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
_, *lines = joblog.read_text(encoding="utf-8", errors="replace").splitlines()
jobs = [line.split("\t") for line in lines]
failed = [job for job in jobs if (job[6], job[7]) != ("0", "0")]
for job in failed:
    task, learning_rate, batch_size, dropout, seed, cards = job[-1].split()[-6:]
    trial = Trial(task, float(learning_rate), int(batch_size), float(dropout), int(seed), int(cards))
    log = folder / trial.folder / LOG_FILE
    if not log.is_file() or log.stat().st_mtime < float(job[2]):
        print(f"\nrefused: {log.parent}, for the reason given above")
        continue
    print(f"\nfailed: {log.parent}, the end of its {LOG_FILE}:")
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    print(*(f"  {line}" for line in lines[-5:]), sep="\n")
unfinished = total - len(jobs)
rest = f", {unfinished} not ended" if unfinished else ""
print(f"\n{len(jobs) - len(failed)} finished, {len(failed)} failed{rest}")
sys.exit(1 if failed or unfinished else 0)
END_OF_SUMMARY
[ -z "$interrupted" ] || {
  echo "interrupted: the same command goes on from here"
  exit "$interrupted"
}
exit "${status:-0}"

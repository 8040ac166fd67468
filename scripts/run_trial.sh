#!/usr/bin/env bash
# Runs one trial of the grid search: goes on with one that was stopped, leaves a finished one alone.
#
# Usage: bash scripts/run_trial.sh MODEL TASK LEARNING_RATE BATCH_SIZE DROPOUT SEED CARDS [-- FLAG...]
#   BATCH_SIZE   the sum over the cards, as the published grid counts it
#   CARDS        how many GPUs the task takes; with fewer, those that are there and share out the batch evenly
#   FLAG         any other flag of the task's script, such as --data_dir
#
# Output and trial.log go to <results>/<model>/<task>/<learning rate>_<batch size>_<dropout>_<seed>. One line on
# standard output says how the trial ended; the exit status is 0 only if it is finished. Where memory runs out, the
# trial goes on with the --gradient_accumulation_steps that the script advises: the batch stays the same.
#
# Environment:
#   RESULTS_DIR            folder of all models (default: results)
#   CUDA_VISIBLE_DEVICES   the GPUs to use (default: those of the machine)
#   DEVICE                 cpu: one process with the whole batch, as where there is no GPU; gpu: fail without one
#   PYTHON                 the interpreter (default: the project's .venv, else python3)
#   DRY_RUN                1: print the command instead of running it
#
# A batch is the same records however many processes share it; only the units that dropout picks depend on their number.
set -euo pipefail
top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$top${PYTHONPATH:+:$PYTHONPATH}"
python="${PYTHON:-$top/.venv/bin/python}"
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python=python3

case "${1:-}" in
  -h | --help)
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"
    exit
    ;;
esac

stop() {
  echo "error: $1" >&2
  exit 2
}

list_cards() { # the ids of the GPUs to use, separated by commas
  case "${DEVICE:-}" in
    cpu) ;;
    gpu | "")
      if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
        [ "$CUDA_VISIBLE_DEVICES" = -1 ] || echo "$CUDA_VISIBLE_DEVICES" # -1 hides them all
      else
        nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | grep -x '[0-9]*' | paste -sd , - || true
      fi
      ;;
    *) stop "DEVICE=$DEVICE: choose gpu or cpu" ;;
  esac
}

command -v "$python" >/dev/null || stop "PYTHON=$python: no such program; bash scripts/setup_env.sh makes one"
cards="$(list_cards)"
[ -n "$cards" ] || [ "${DEVICE:-}" != gpu ] || stop "DEVICE=gpu, but no GPU is visible"
if [ "${CARDS_ONLY:-}" = 1 ]; then # asked by grid_search.sh
  echo "$cards"
  exit
fi

IFS=, read -ra card_ids <<<"$cards"
make_plan() {
  local plan
  mapfile -d '' -t plan < <("$python" "$top/scripts/plan_trial.py" "${#card_ids[@]}" "$@")
  [ "${#plan[@]}" = 9 ] || exit 2 # it has said why
  parts="${plan[0]}" note="${plan[1]}" ending="${plan[2]}" name="${plan[3]}" folder="${plan[4]}"
  log="${plan[5]}" script="${plan[6]}" processes="${plan[7]}" batch_size="${plan[8]}"
}

end_if_finished() {
  [ -z "$ending" ] || {
    echo "$name: finished already, $ending"
    exit 0
  }
}

make_plan "$@"
end_if_finished

words=("$top/$script" --model_name_or_path "$1" --output_dir "$folder" --do_train --do_eval --learning_rate "$3")
words+=(--batch_size "$batch_size" --dropout "$5" --seed "$6")
[[ "$script" != classification/* ]] || words+=(--task_name "${name%%/*}")
if [ -n "$cards" ]; then
  words+=(--device gpu)
  CUDA_VISIBLE_DEVICES="$(IFS=, && echo "${card_ids[*]:0:processes}")"
  export CUDA_VISIBLE_DEVICES
else
  words+=(--device cpu)
fi
words+=("${@:9}")
launcher=("$python")
# The launcher starts a process on each visible card.
[ "$processes" = 1 ] || launcher+=(-m paddle.distributed.launch --log_dir "$folder/launch")

if [ "${DRY_RUN:-}" = 1 ]; then
  [ -z "$note" ] || echo "$name: $note"
  printf '%q ' "${launcher[@]}" "${words[@]}" ${parts:+--gradient_accumulation_steps "$parts"}
  echo
  exit
fi

if ! mkdir -p "$folder" 2>/dev/null || [ ! -w "$folder" ]; then
  echo "$name: failed: $folder cannot be made or written to"
  exit 2
fi
# Held by the training process too, so that one that outlived a killed grid search is waited for, not joined.
if command -v flock >/dev/null; then
  exec 9>>"$log"
  flock --nonblock 9 || {
    [ ! -t 2 ] || echo "$name: waiting for another process that runs it" >&2
    flock 9
    make_plan "$@"
    end_if_finished
  }
fi

# In the background, because bash hears no signal while it waits for a command in the foreground.
child=""
# shellcheck disable=SC2317  # reached through the traps
end_child() { # STATUS
  [ -z "$child" ] || {
    kill -TERM "$child" 2>/dev/null || true
    while kill -0 "$child" 2>/dev/null; do wait "$child" || true; done
  }
  exit "$1"
}
trap 'end_child 129' HUP
trap 'end_child 130' INT
trap 'end_child 143' TERM

run() { # FLAG...: run the script once, its output added to the log; sets status, and new_lines to where that begins
  new_lines=$(($(wc -l <"$log") + 1))
  rm -rf "${folder:?}/launch"
  # Nobody else's business: the launcher writes down its whole environment there.
  [ "$processes" = 1 ] || mkdir -m 700 "$folder/launch"
  {
    echo "== $(date '+%Y-%m-%d %H:%M:%S') on $(uname -n)${cards:+, cards $CUDA_VISIBLE_DEVICES}${note:+; $note}"
    printf '%q ' "${launcher[@]}" "${words[@]}" "$@"
    echo
  } >>"$log"
  "${launcher[@]}" "${words[@]}" "$@" >>"$log" 2>&1 </dev/null &
  child=$!
  status=0
  wait "$child" || status=$?
  child=""
  # The launcher shows what its first process prints; what stopped another one stands in that one's own log.
  [ "$status" = 0 ] || [ "$processes" = 1 ] || tail -qn 5 "$folder"/launch/workerlog.[!0]* >>"$log" 2>/dev/null || true
  [ ! -d "$folder/launch" ] || find "$folder/launch" -type f ! -name 'workerlog.*' -delete
}

advised_parts() { # the number of parts that the script asks for where memory ran out
  tail -n "+$new_lines" "$log" |
    sed -n 's/.*error: out of memory .*: pass --gradient_accumulation_steps \([0-9]*\);.*/\1/p' | tail -n 1
}

# What an earlier run of this trial needed to fit memory, it needs again.
run ${parts:+--gradient_accumulation_steps "$parts"}
while [ "$status" != 0 ]; do
  advised="$(advised_parts)"
  [ "${advised:-0}" -gt "${parts:-1}" ] || break
  parts="$advised"
  run --gradient_accumulation_steps "$parts"
done

if [ "$status" = 0 ]; then
  make_plan "$@"
  [ -n "$ending" ] || status=1
fi
if [ "$status" = 0 ]; then
  echo "$name: finished, $ending, $SECONDS s"
else
  echo "$name: failed with status $status: $(grep -v '^[[:space:]]*$' "$log" | tail -n 1) (log: $log)"
fi
exit "$status"

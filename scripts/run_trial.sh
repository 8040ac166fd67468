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
# trial is started anew with the --gradient_accumulation_steps that the script advises: the results stay the same.
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

# Prints a line each: the parts that an update was split into before ("" if it was not run before), a note for the log,
# how a finished trial ended ("" if it is not), its name, folder, script, processes, records of each.
plan_trial() { # CARDS_GIVEN MODEL TASK ...
  "$python" - "$@" <<'END_OF_PLAN'
import os
import sys
from pathlib import Path

from clue_utils import arguments, grid, results, runtime, tasks
from clue_utils.errors import UserError

# Said by the trial itself, so that folder and content agree.
OWN_FLAGS = "model_name_or_path output_dir device do_train do_eval batch_size learning_rate dropout seed".split()
# How an update is computed, not what it is.
FREE = ("gradient_accumulation_steps", "logging_steps")


def main() -> None:
    begin = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    words, extra = sys.argv[1:begin], sys.argv[begin + 1 :]
    parser = arguments.Parser(prog="run_trial.sh")
    number = {"batch_size": arguments.positive_int, "seed": arguments.non_negative_int, "cards": arguments.positive_int}
    number |= {"learning_rate": arguments.positive_float, "dropout": arguments.proportion, "given": int}
    for name in "given model task learning_rate batch_size dropout seed cards".split():
        parser.add_argument(name, type=number.get(name, str))
    args = parser.parse_args(words)
    task = tasks.get_task(args.task)
    trial = grid.Trial(task.name, args.learning_rate, args.batch_size, args.dropout, args.seed, args.cards)
    folder = grid.model_folder(Path(os.environ.get("RESULTS_DIR") or grid.RESULTS_DIR), args.model) / trial.folder

    shared = arguments.Parser()
    arguments.add_shared(shared)
    flags, _ = shared.parse_known_args(["--model_name_or_path", "", *extra])
    for name in OWN_FLAGS:
        if getattr(flags, name):
            raise UserError(f"--{name} is set by the trial itself: leave it out after --")

    # As many of the cards as divide the batch evenly.
    processes = max(n for n in range(1, max(1, min(args.cards, args.given)) + 1) if args.batch_size % n == 0)
    note = ""
    if args.given and processes < args.cards:
        note = f"{args.cards} cards wanted, {args.given} given: "
        note += f"{processes} of them with {args.batch_size // processes} records each, {args.batch_size} in all"

    earlier = results.read_result(folder) or {}
    parts = earlier.get("hyper_parameters", {}).get("gradient_accumulation_steps", "")
    ending = ""
    if earlier.get("status") == "finished":
        recorded = {"model_name_or_path": earlier.get("model"), "max_steps": earlier.get("max_steps")}
        recorded |= earlier["hyper_parameters"]
        flags.model_name_or_path = args.model
        for name in ("model_name_or_path", "max_steps", *arguments.HYPER_PARAMETERS):
            value = getattr(flags, name)
            if name not in FREE and value is not None and value != recorded.get(name):
                raise UserError(
                    f"{folder} holds a finished run with --{name} {recorded.get(name)}, not {value}: "
                    "choose another results folder, or remove this one"
                )
        ending = f"{earlier['metric']} {earlier['best_metric']:.4f}"
    for value in (parts, note, ending, trial.folder, folder, task.script, processes, args.batch_size // processes):
        print(value)


runtime.run(main)
END_OF_PLAN
}

IFS=, read -ra card_ids <<<"$cards"
make_plan() {
  local plan
  plan="$(plan_trial "${#card_ids[@]}" "$@")" || exit
  {
    IFS= read -r parts
    IFS= read -r note
    IFS= read -r ending
    IFS= read -r name
    IFS= read -r folder
    IFS= read -r script
    read -r processes
    read -r batch_size
  } <<<"$plan"
  log="$folder/trial.log"
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

mkdir -p "$folder"
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
  # It also writes down its whole environment, which is nobody's business who gets the results.
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
  run --gradient_accumulation_steps "$parts" --overwrite_output_dir
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

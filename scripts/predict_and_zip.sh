#!/usr/bin/env bash
# Predicts the test sets of every task with the best checkpoint of a model, checks the predictions and zips them for
# the leaderboard. What is predicted goes to MODEL_DIR/predictions/, the folders of the training runs stay as they are.
set -euo pipefail

usage() {
  cat <<'END'
usage: bash scripts/predict_and_zip.sh MODEL_DIR [--output FILE] [TASK=FOLDER[,FOLDER...] ...] [-- FLAG ...]

For each task the checkpoint is the FOLDER that is named for it (several are an ensemble), else MODEL_DIR/<task> where
that is a checkpoint, else the best trained trial MODEL_DIR/<task>/*/. A task without one is left out.

  --output FILE   the zip to make (default: submit.zip)
  -- FLAG ...     flags for every script, such as: -- --data_dir clue_data --device gpu

PYTHON in the environment names the interpreter (default: the project's .venv, else python).

example: bash scripts/predict_and_zip.sh results/ernie-3.0-base-zh TNEWS=tnews_a,tnews_b -- --data_dir clue_data
END
}
fail() { echo "error: $1 (--help lists the arguments)" >&2; exit 2; }

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$TOP${PYTHONPATH:+:$PYTHONPATH}"
if [[ -z "${PYTHON:-}" ]]; then
  PYTHON="$TOP/.venv/bin/python"
  [[ -x "$PYTHON" ]] || PYTHON=python
fi

MODEL_DIR="" OUTPUT=submit.zip CHOSEN=() FLAGS=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --output) [[ $# -ge 2 ]] || fail "--output needs a file"; OUTPUT=$2; shift ;;
    --output=*) OUTPUT=${1#*=} ;;
    --) shift; FLAGS=("$@"); break ;;
    -*) fail "unknown argument $1" ;;
    *) # The folder first, so that its own name may hold an equals sign.
      if [[ -z "$MODEL_DIR" ]]; then MODEL_DIR=$1
      elif [[ "$1" == ?*=?* ]]; then CHOSEN+=("$1")
      else fail "$1 is not TASK=FOLDER"; fi ;;
  esac
  shift
done
[[ -n "$MODEL_DIR" ]] || fail "MODEL_DIR is missing"
[[ -d "$MODEL_DIR" ]] || fail "$MODEL_DIR: no such folder"

PLAN=$(mktemp)
trap 'rm -f "$PLAN"' EXIT
# Of each task, every field ended by a null: name, what is taken, number of words, then the words of its command.
"$PYTHON" - "$MODEL_DIR" ${CHOSEN[@]+"${CHOSEN[@]}"} >"$PLAN" <<'END'
import sys
from pathlib import Path

from clue_utils import cli
from clue_utils.errors import UserError
from clue_utils.record import Record
from clue_utils.tasks import TASKS, get_task
from clue_utils.grid.outcomes import read_trials, winner


def score(folder):
    record = Record.read(folder) or Record()
    what = "no score recorded" if record.score is None else f"{record.metric} {record.score:.4f}"
    return f"{folder} ({what})"


def best_folder(folder, task):
    """The checkpoint of a task: the folder itself, or that of its winner among the trials in it."""
    if (folder / "config.json").is_file():
        return folder
    trials, damages = read_trials(folder, task)
    for damage in damages:
        print(f"{task.name}: passed over: {damage}", file=sys.stderr)
    best, usable = winner(trials), winner(trial for trial in trials if trial.has_checkpoint)
    if best and not best.has_checkpoint:
        print(f"{task.name}: {score(best.path)} is the best but kept no checkpoint", file=sys.stderr)
    return usable and usable.path


def main():
    model_dir, chosen = Path(sys.argv[1]), {}
    for word in sys.argv[2:]:
        name, _, folders = word.partition("=")
        task = get_task(name)
        if task.name in chosen:
            raise UserError(f"{task.name} is named twice: join its folders with commas")
        # A folder whose name holds a comma is one folder.
        chosen[task.name] = [folders] if Path(folders).is_dir() else folders.split(",")
        for folder in chosen[task.name]:
            if not Path(folder).is_dir():
                raise UserError(f"{name}={folders}: no such folder: {folder!r}")
    for task in TASKS.values():
        own = model_dir / task.name
        folders = chosen.get(task.name)
        if not folders:
            best = best_folder(own, task)
            folders = [best] if best else []
        words = []
        if folders:
            words = [task.script, *(["--task_name", task.name] if task.kind == "classification" else [])]
            words += ["--model_name_or_path", folders[0], *(["--ensemble", *folders[1:]] if folders[1:] else [])]
        what = " and ".join(map(score, folders)) or f"no trained checkpoint in {own}: left out"
        for field in (task.name, what, len(words), *words):
            sys.stdout.write(f"{field}\0")


cli.run(main)
END

NAMES=() LEFT_OUT=()
while IFS= read -r -d "" name && IFS= read -r -d "" what && IFS= read -r -d "" number; do
  echo "$name: $what"
  words=()
  for ((i = 0; i < number; i++)); do
    IFS= read -r -d "" word
    words+=("$word")
  done
  if ((number == 0)); then
    LEFT_OUT+=("$name")
    continue
  fi
  NAMES+=("$name")
  folder="$MODEL_DIR/predictions/$name"
  mkdir -p "$MODEL_DIR/predictions"
  status=0
  "$PYTHON" "$TOP/${words[0]}" "${words[@]:1}" --do_predict --output_dir "$folder" ${FLAGS[@]+"${FLAGS[@]}"} \
    </dev/null >"$folder.log" 2>&1 || status=$?
  if ((status != 0)); then
    { echo "$name failed; the end of $folder.log:"; tail -n 20 "$folder.log"; } >&2
    exit "$status"
  fi
done <"$PLAN"
((${#NAMES[@]})) || fail "no checkpoint of any task in $MODEL_DIR"

# The data that the scripts have predicted is what the zip is compared with.
DATA=()
for ((i = 0; i < ${#FLAGS[@]}; i++)); do
  case "${FLAGS[i]}" in
    --data_dir) if ((i + 1 < ${#FLAGS[@]})); then DATA=(--data_dir "${FLAGS[i + 1]}"); fi ;;
    --data_dir=*) DATA=("${FLAGS[i]}") ;;
  esac
done
echo
"$PYTHON" "$TOP/scripts/zip_predictions.py" "${NAMES[@]/#/$MODEL_DIR/predictions/}" --output "$OUTPUT"
echo
"$PYTHON" "$TOP/scripts/check_submission.py" "$OUTPUT" ${DATA[@]+"${DATA[@]}"}
if ((${#LEFT_OUT[@]})); then
  echo
  echo "Left out: ${LEFT_OUT[*]}. Under a model name that the leaderboard has already, a task left out loses its score."
fi

#!/usr/bin/env bash
# The main job on real input, from text to perplexity: this machine's C headers are turned into shards, a byte-level
# GPT trains on them over a ring of four ranks, is stopped half-way by SIGTERM, resumes, and is evaluated on text
# that it has not seen. `make demo` calls it.
#
#   tests/demo.sh PROGRAM [CONFIG]
set -euo pipefail
program="$1"
config="${2:-configs/demo.yaml}"
run=runs/demo
start=$SECONDS

say() {
  printf '\n== %s\n' "$*"
}

steps_done() {
  local count=0
  if [ -f "$run/metrics.jsonl" ]; then count=$(grep -c '"loss"' "$run/metrics.jsonl" || true); fi
  echo "$count"
}

rm -rf "$run"
say "1. The C headers under /usr/include become shards of bytes in $run/data"
"$program" prepare --out "$run/data" --suffix .h --val-fraction 0.05 /usr/include

say "2. Training over a ring of 4, to be stopped half-way by SIGTERM"
half=$(($(sed -n 's/^  steps: *\([0-9]*\).*/\1/p' "$config") / 2))
"$program" train "$config" &
trainer=$!
trap 'kill "$trainer" 2>/dev/null || true' EXIT
while kill -0 "$trainer" 2>/dev/null && [ "$(steps_done)" -lt "$half" ]; do sleep 0.2; done
kill -TERM "$trainer"
status=0
wait "$trainer" || status=$?
trap - EXIT
if [ "$status" != 75 ]; then
  echo "the stopped run ended with status $status instead of 75"
  exit 1
fi

say "3. The same command goes on where it stopped"
"$program" train "$config"

say "4. Perplexity on held-out headers"
"$program" eval "$config" --checkpoint "$(ls -d "$run"/checkpoints/step_* | tail -n 1)" \
  --context 4096,16384,65536 --json "$run/eval.json"

mean=$(grep '"loss"' "$run/metrics.jsonl" | tail -n 10 | sed 's/.*"loss": *\([0-9.eE+-]*\).*/\1/' |
  awk '{ sum += $1 } END { printf "%.4f", sum / NR }')
say "Done in $((SECONDS - start)) s; mean loss of the last ten steps: $mean"
cat <<END
  shards         $run/data
  configuration  $run/config.yaml (every option with its value)
  metrics        $run/metrics.jsonl
  checkpoints    $run/checkpoints (transformers loads each directory as it is)
  perplexity     $run/eval.json
END
awk -v mean="$mean" 'BEGIN { exit !(mean < 2.4) }' || {
  echo "the mean loss of the last ten steps is not below 2.4"
  exit 1
}

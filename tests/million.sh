#!/usr/bin/env bash
# A context of 1,048,576 tokens on this machine: its C headers become shards with more than 2^20 held-out tokens, a
# byte-level GPT of two layers trains on them with lengths up to 65,536, and is evaluated on the same held-out tokens
# at 4,096, 65,536 and 1,048,576 over a ring of four ranks. `make million` calls it; called again after an
# interruption, it goes on with what is there.
#
#   tests/million.sh PROGRAM [CONFIG]
set -euo pipefail
program="$1"
config="${2:-configs/million.yaml}"
run=runs/million
tokens=1048576
most_rise=1.2 # of the last bucket over that of positions 8,192 to 16,383
start=$SECONDS

# A softmax over more keys than any in training spreads over them; with scores that are a little larger it stays as
# sharp as it was, which is what YaRN's attention factor is for. The frequencies stay as they are.
sharpness=(model.rope_scaling.rope_type=yarn model.rope_scaling.factor=1
  model.rope_scaling.original_max_position_embeddings=65536 model.rope_scaling.attention_factor=1.08)

say() {
  printf '\n== %s\n' "$*"
}

# The figure that a JSON file gives under KEY behind the first line that matches PATTERN.
figure() { # FILE PATTERN KEY
  awk -v pattern="$2" -v key="\"$3\":" '
    index($0, pattern) { found = 1 }
    found && $1 == key { sub(/,$/, "", $2); print $2; exit }' "$1"
}

held_out() {
  figure "$run/data/dataset.json" '"val"' tokens
}

prepare() {
  local fraction
  for fraction in 0.05 0.1 0.2 0.4; do
    "$program" prepare --out "$run/data" --suffix .h --val-fraction "$fraction" --overwrite /usr/include
    if [ "$(held_out)" -gt "$tokens" ]; then return; fi
  done
  echo "/usr/include holds too few headers for $((tokens + 1)) held-out tokens: install more development packages"
  exit 1
}

say "1. The C headers under /usr/include become shards of bytes in $run/data"
if [ -f "$run/data/dataset.json" ] && [ "$(held_out)" -gt "$tokens" ]; then
  echo "they are there, $(held_out) tokens of them held out"
else
  prepare
fi

say "2. Training at 1,024 to 65,536 tokens"
"$program" train "$config"

checkpoint="$(ls -d "$run"/checkpoints/step_* | tail -n 1)"
say "3. Perplexity of the same $tokens held-out tokens at 4,096, 65,536 and $tokens: $checkpoint"
begin=$SECONDS
peak="$run/peak.txt"
rm -f "$peak"

# Writes the peak of the memory of the process whose number is in a file, as long as it is there.
watch_memory() { # PID_FILE
  local now pid
  until [ -s "$1" ]; do sleep 0.1; done
  pid=$(cat "$1")
  while now=$(awk '$1 == "VmHWM:" { print int($2 / 1024) }' "/proc/$pid/status" 2>/dev/null); do
    if [ -n "$now" ]; then echo "$now" >"$peak"; fi
    sleep 1
  done
}

pid_file=$(mktemp)
watch_memory "$pid_file" &
watcher=$!
trap 'kill "$watcher" 2>/dev/null || true; rm -f "$pid_file"' EXIT
# In the foreground, so that an interrupt reaches it and it says how far it came.
(
  echo "$BASHPID" >"$pid_file"
  exec "$program" eval "$config" "${sharpness[@]}" --checkpoint "$checkpoint" --context "4096,65536,$tokens" \
    --json "$run/eval.json" --plot "$run/perplexity.svg"
)

# Mean loss of the positions from FIRST on of the context of a million.
loss_from() { # FIRST
  awk -v tokens="$tokens" -v first="$1" '
    { value = $2; sub(/,$/, "", value) }
    $1 == "\"context\":" { million = value == tokens }
    $1 == "\"first\":" { here = million && value == first }
    $1 == "\"nll\":" && here { print value; exit }' "$run/eval.json"
}
early=$(loss_from 8192)
late=$(loss_from $((tokens / 2)))
say "Done in $((SECONDS - start)) s, of which $((SECONDS - begin)) s for the evaluation; its peak of memory: $(cat "$peak") MiB"
cat <<END
  shards       $run/data
  checkpoints  $run/checkpoints (transformers loads each directory as it is)
  perplexity   $run/eval.json
  picture      $run/perplexity.svg
  mean loss    $early at positions 8,192 to 16,383, $late at $((tokens / 2)) to $((tokens - 1))
END
awk -v early="$early" -v late="$late" -v most="$most_rise" 'BEGIN { exit !(late <= most * early) }' || {
  echo "the loss of the last positions is more than $most_rise times that of positions 8,192 to 16,383"
  exit 1
}

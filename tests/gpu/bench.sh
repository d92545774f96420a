#!/usr/bin/env bash
# Measures what runs on a GPU, part by part; `make bench-gpu` calls it.
#
#   tests/gpu/bench.sh [options] PROGRAM BENCH
#     PROGRAM           build/release/ringgpt, with ringgpt-cuda.so beside it
#     BENCH             build/release/bench/bench
#     --object FILE     the CUDA device; the emulated one, with --quick, serves to check this script without a GPU
#     --state DIR       what is done and its output (default: gpu-bench beside PROGRAM)
#     --part NAME       this part alone; more than once for several
#     --again           parts that are done, too
#     --limit SECONDS   for each part instead of its own
#     --quick           tiny sizes, whose figures mean nothing
#     --list            names the parts, with the seconds that each may take
#
# Parts: peak, attention, products, rows (tests/bench, by bench -d cuda); training, the median step of real runs of the
# program; evaluation and evaluation-1m, runs over one window of 131,072 and of 1,048,576 tokens, five and one, less
# the time of a run over a short window; sdpa, PyTorch's attention in the shapes that the part attention measured,
# where python3 has a torch that finds the GPU. Needs bash, coreutils, sed and awk; neither a network nor, but for
# sdpa, Python.
#
# Each part writes DIR/NAME.txt, the raw output of which tests/gpu/RESULTS.md keeps a copy, and leaves DIR/NAME.done
# where it succeeded: the same command goes on behind it, until something is built anew. All parts together take at
# most the sum of their limits, eight minutes. The exit status is 1 where a part failed.
#
# Floating-point operations: of training 6 N per token and 7 T C per token and layer for causal attention, of
# evaluation 2 N and 2 T C, with N the weights of all products, the head's included, C the width of attention; what
# is computed again counts once. Shares are of the peak that the part "peak" measured in the same run of this script.
set -uo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(dirname "$(dirname "$here")")"
export LC_ALL=C
# Ranks that share a GPU have three queues each: none shall wait behind another rank's.
export CUDA_DEVICE_MAX_CONNECTIONS="${CUDA_DEVICE_MAX_CONNECTIONS:-32}"

parts=("peak 15" "attention 90" "products 45" "rows 30" "training 60" "evaluation 40" "evaluation-1m 160" "sdpa 40")

usage() {
  sed -n '2,14s/^# \{0,1\}//p' "$0" >&2
  exit 64
}

left() {
  local seconds=$((part_end - SECONDS))
  echo $((seconds > 1 ? seconds : 1))
}

# ---------------------------------------------------------------- bench

# What of its limit a part may spend on beginning new cases; the case at hand then comes to its end.
bench_part() { # NAME LIMIT
  local name="$1"
  timeout --kill-after=5 "$(left)" "$bench" -d cuda ${quick:+-q} -p "$name" -t $(($2 * 3 / 4)) \
    -j "$state/$name.jsonl" </dev/null
}

# Work a second of the bf16 product, as measured; 0 where that has not run.
peak_rate() {
  sed -n 's/.*"case": "product bf16 .*"rate": \([0-9.e+-]*\).*/\1/p' "$state/peak.jsonl" 2>/dev/null | head -n 1 |
    awk '{ rate = $1 } END { printf "%g", 1e12 * rate }'
}

# ---------------------------------------------------------------- real runs

# Text for shards: it is the lengths that matter, not what it says. Half of it is for evaluation.
prepare_data() {
  local place sources=(checkpoints data kernels model tests train)
  [[ -d $work/data ]] && return 0
  for place in /usr/include "${CUDA_HOME:-/usr/local/cuda}/include"; do
    [[ -z $quick && -d $place ]] && sources+=("$place")
  done
  timeout "$(left)" "$program" prepare --out "$work/data" --suffix .c,.h,.cu --val-fraction 0.5 \
    "${sources[@]}" </dev/null
}

# Settings that make any model tiny.
tiny=(model.vocab_size=257 model.hidden_size=32 model.num_hidden_layers=1 model.num_attention_heads=2
  model.num_key_value_heads=2 model.intermediate_size=64)

run_program() { # COMMAND CONFIG SETTING...
  local command="$1" config="$2"
  shift 2
  timeout --kill-after=5 "$(left)" "$program" "$command" "$config" data.train="$work/data/train" \
    data.val="$work/data/val" device=cuda train.precision=bf16 "$@" </dev/null
}

# Milliseconds of steps 4 to the last: median, least, most.
step_times() { # METRICS
  sed -n 's/.*"step_ms": *\([0-9.eE+-]*\).*/\1/p' "$1" | tail -n +4 | sort -n |
    awk '{ x[NR] = $1 } END { if (NR == 0) exit 1; print x[int((NR + 1) / 2)], x[1], x[NR] }'
}

# One line of a result, from seconds and floating-point operations.
report_rate() { # WHAT TOKENS MS LEAST MOST FLOP
  awk -v what="$1" -v tokens="$2" -v ms="$3" -v least="$4" -v most="$5" -v flop="$6" -v peak="$(peak_rate)" 'BEGIN {
    printf "%-40s %10.2f ms (%.2f-%.2f) %12.0f tokens/s %8.2f TFLOP/s", what, ms, least, most, 1e3 * tokens / ms,
      flop / ms / 1e9
    if (peak > 0) printf " %5.1f %% of the peak", 100 * flop / ms * 1e3 / peak
    print "" }'
}

train_case() { # T MICRO GLOBAL SETTING...
  local length="$1" micro="$2" global="$3" times metrics="$work/train-$1/metrics.jsonl"
  # Weights of products, layers and the width of attention: of gpt2-124m.yaml, or of the tiny model.
  local weights=$((12 * 12 * 768 * 768 + 50257 * 768)) layers=12 width=768 settings=()
  shift 3
  if [[ -n $quick ]]; then
    weights=$((4 * 32 * 32 + 2 * 32 * 64 + 257 * 32)) layers=1 width=32 settings=("${tiny[@]}")
  fi
  rm -rf "$work/train-$length"
  run_program train configs/gpt2-124m.yaml "${settings[@]}" run.dir="$work/train-$length" train.steps=8 \
    train.sequence_length="$length" model.max_position_embeddings="$length" train.micro_batch_size="$micro" \
    train.global_batch_size="$global" checkpoint.every=0 eval.every=0 \
    scheduler.name=constant scheduler.warmup_steps=0 "$@" || return 1
  times="$(step_times "$metrics")" || return 1
  # shellcheck disable=SC2086 # three numbers
  report_rate "training gpt2-124m T $length batch $global" $((length * global)) $times \
    "$(awk -v n="$weights" -v l=$layers -v c=$width -v t="$length" -v b="$global" \
      'BEGIN { printf "%.9g", b * t * (6 * n + 7 * l * c * t) }')"
  rm -rf "$work/train-$length"
}

part_training() {
  prepare_data || return 1
  if [[ -n $quick ]]; then
    train_case 64 1 2 && train_case 128 1 1
  else
    train_case 1024 16 32 && train_case 32768 1 1 train.recompute=false
  fi
}

# Milliseconds of an evaluation, start and loading included.
time_evaluation() { # CONTEXT
  local start="${EPOCHREALTIME/[.,]/}" settings=()
  [[ -n $quick ]] && settings=("${tiny[@]}")
  run_program eval configs/gpt2-124m-1m.yaml --checkpoint "$checkpoint" --context "$1" "${settings[@]}" \
    eval.tokens="$1" >"$work/eval.txt" 2>&1 || {
    cat "$work/eval.txt" >&2
    return 1
  }
  echo $(((${EPOCHREALTIME/[.,]/} - start) / 1000))
}

# The model of the 1M configuration behind one short step: what it answers does not matter here.
make_model() {
  local settings=()
  [[ -n $quick ]] && settings=("${tiny[@]}")
  prepare_data || return 1
  rm -rf "$work/model"
  run_program train configs/gpt2-124m-1m.yaml "${settings[@]}" run.dir="$work/model" train.steps=1 \
    train.sequence_schedule={} train.sequence_length="$short_context" checkpoint.every=0 eval.every=0 \
    scheduler.warmup_steps=0 scheduler.decay_steps=0 || return 1
  checkpoint="$work/model/checkpoints/step_00000001"
}

evaluate() { # CONTEXT REPETITIONS
  local context="$1" count="$2" times=() short whole i sorted
  local weights=$((12 * (768 * 1280 + 768 * 768 + 3 * 768 * 2048) + 50257 * 768)) layers=12 width=768
  [[ -n $quick ]] && weights=$((4 * 32 * 32 + 3 * 32 * 64 + 257 * 32)) layers=1 width=32
  make_model || return 1
  short="$(time_evaluation "$short_context")" || return 1
  echo "a run of one window of $short_context tokens: $short ms"
  for ((i = 0; i < count; i++)); do
    whole="$(time_evaluation "$context")" || return 1
    echo "a run of one window of $context tokens: $whole ms"
    ((whole > short)) || return 1
    times+=($((whole - short)))
  done
  sed -n '/^context/,$p' "$work/eval.txt"
  mapfile -t sorted < <(printf '%s\n' "${times[@]}" | sort -n)
  report_rate "evaluation gpt2-124m-1m T $context" "$context" "${sorted[count / 2]}" "${sorted[0]}" \
    "${sorted[count - 1]}" \
    "$(awk -v n="$weights" -v l=$layers -v c=$width -v t="$context" \
      'BEGIN { printf "%.9g", t * (2 * n + 2 * l * c * t) }')"
}

part_evaluation() {
  evaluate $((${#quick} > 0 ? 512 : 131072)) 5
}

part_evaluation-1m() {
  evaluate $((${#quick} > 0 ? 2048 : 1048576)) 1
}

# Exit status 3: it cannot run here.
part_sdpa() {
  if [[ ! -f $state/attention.jsonl ]]; then
    echo "the part attention has not run"
    return 3
  fi
  command -v python3 >/dev/null || {
    echo "there is no python3"
    return 3
  }
  timeout --kill-after=5 "$(left)" python3 "$here/sdpa.py" "$state/attention.jsonl" </dev/null
}

# ---------------------------------------------------------------- running

run_part() { # NAME LIMIT
  local name="$1" output="$state/$1.txt" status=0 start=$SECONDS
  part_end=$((SECONDS + $2))
  echo "== $name"
  {
    echo "$machine"
    case $name in
      training | evaluation | evaluation-1m | sdpa) "part_$name" ;;
      *) bench_part "$name" "$2" ;;
    esac
  } >"$output" 2>&1 || status=$?
  tail -n +2 "$output"
  if ((status == 0)); then
    echo "$built" >"$state/$name.done"
  elif ((status == 3)) && [[ $name == sdpa ]]; then
    echo "$name: not run"
  else
    ((SECONDS - start >= $2)) && echo "$name: out of time: --part $name --limit SECONDS gives it more"
    echo "$name: FAILED with status $status; all of it: $output"
    failed=$((failed + 1))
  fi
  echo "== $name: $((SECONDS - start)) s"
}

wanted() { # NAME
  local part
  ((${#chosen[@]} == 0)) && return 0
  for part in "${chosen[@]}"; do [[ $1 == "$part" ]] && return 0; done
  return 1
}

object="" state="" again="" quick="" all_limit="" chosen=()
while [[ ${1:-} == --* ]]; do
  case $1 in
    --object | --state | --part | --limit)
      (($# >= 2)) || usage
      case $1 in
        --object) object="$2" ;;
        --state) state="$2" ;;
        --part) chosen+=("$2") ;;
        --limit) all_limit="$2" ;;
      esac
      shift
      ;;
    --again) again=yes ;;
    --quick) quick=yes ;;
    --list)
      printf '%s\n' "${parts[@]}"
      exit 0
      ;;
    *) usage ;;
  esac
  shift
done
(($# == 2)) || usage
program="$(realpath "$1")"
bench="$(realpath "$2")"
object="$(realpath "${object:-$(dirname "$program")/ringgpt-cuda.so}")"
if [[ ! -f $object ]]; then
  echo "$object is not there: build with the CUDA toolkit"
  exit 1
fi
mkdir -p "${state:=$(dirname "$program")/gpu-bench}" || exit 1
state="$(realpath "$state")"
work="$state/work"
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT
cd "$root" || exit 1
export RINGGPT_CUDA="$object"
if grep -aq EMULATED_DEVICES "$object"; then
  machine="emulated: nothing here ran on a GPU"
else
  machine="$(nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv,noheader 2>/dev/null |
    head -n 1)"
  machine="${machine:-nvidia-smi says nothing}"
fi
built="$(cksum "$program" "$bench" "$object" | cksum) $quick"
echo "$machine"
short_context=$((${#quick} > 0 ? 64 : 8192))
failed=0 any=""
for entry in "${parts[@]}"; do
  read -r name limit <<<"$entry"
  wanted "$name" || continue
  any=yes
  if [[ -z $again && -f $state/$name.done && "$(cat "$state/$name.done")" == "$built" ]]; then
    echo "== $name: done before"
    tail -n +2 "$state/$name.txt"
  else
    run_part "$name" "${all_limit:-$limit}"
  fi
done
if [[ -z $any ]]; then
  echo "no part has such a name; --list names them"
  exit 64
fi
((failed == 0))

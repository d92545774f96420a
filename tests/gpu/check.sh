#!/usr/bin/env bash
# Checks what runs on a GPU, part by part; `make check-gpu` calls it.
#
#   tests/gpu/check.sh [options] PROGRAM TEST...
#     PROGRAM           build/release/ringgpt, with ringgpt-cuda.so beside it
#     TEST              test programs (build/release/tests/test_*) and build/release/gpu/instructions
#     --object FILE     the CUDA device; the emulated one serves to check this script without a GPU
#     --state DIR       what is done and its logs (default: gpu-check beside PROGRAM)
#     --part NAME       this part alone, or all whose names begin so; more than once for several
#     --again           parts that have passed, too
#     --list            names the parts, with the seconds that each may take
#
# It needs bash, coreutils, diffutils, grep, sed and awk, and of the program's libraries those that it was built
# with; neither a network nor Python. Each part writes DIR/NAME.log and ends with a line
#
#   NAME: N passed, N failed
#
# with the number of tests that were skipped behind it, or the reason why the part was not run, which is not
# counted as passed. A part in which nothing failed leaves DIR/NAME.done: the same command goes on behind it, until
# something is built anew. All parts together take at most the sum of their limits, eight minutes. Results of the
# emulated device are marked so, and may take ten times as long. The exit status is 1 where anything failed or nothing
# passed.
set -uo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(dirname "$(dirname "$here")")"
unset CMOCKA_MESSAGE_OUTPUT CMOCKA_XML_FILE CMOCKA_TEST_ABORT
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
# Ranks that share a GPU have three queues each: none shall wait behind another rank's.
export CUDA_DEVICE_MAX_CONNECTIONS="${CUDA_DEVICE_MAX_CONNECTIONS:-32}"

# Name and limit in seconds of each part, in order.
parts=(
  "instructions 15"
  "operations 45"
  "attention 60"
  "device 30"
  "comm 20"
  "model 30"
  "training 40"
  "parity 40"
  "rings 30"
  "nccl 30"
  "sanitizer-memcheck 35"
  "sanitizer-synccheck 35"
  "sanitizer-racecheck 35"
  "sanitizer-initcheck 35"
)

usage() {
  sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
  exit 64
}

# ---------------------------------------------------------------- counting

# Seconds that the part at hand has left, at least 1.
left() {
  local seconds=$((part_end - SECONDS))
  echo $((seconds > 1 ? seconds : 1))
}

count_tests() { # FILE PATTERN
  grep -aoE "$2" "$1" | grep -oE '[0-9]+' | awk '{ sum += $1 } END { print sum + 0 }'
}

# Counts the tests of one program by its closing lines. One that crashes, runs out of time, ends with a failure that
# no test accounts for, or prints no closing line, counts as one failed test more.
run_tests() { # NAME COMMAND...
  local name="$1" output="$state/output.txt" status=0 good bad skipped fault=""
  shift
  timeout --kill-after=5 "$(left)" "$@" </dev/null >"$output" 2>&1 || status=$?
  good="$(count_tests "$output" '\[  PASSED  \] [0-9]+ test')"
  bad="$(count_tests "$output" '\[  FAILED  \] [0-9]+ test\(s\), listed below')"
  skipped="$(count_tests "$output" '\[  SKIPPED \] [0-9]+ test')"
  if ((status == 124 || status == 137)); then
    fault="out of time"
  elif ((status > 128)); then
    fault="died of signal $((status - 128))"
  elif ((status != 0 && bad == 0)); then
    fault="ended with status $status"
  elif ! grep -aqE '\[  (PASSED|FAILED)  \] [0-9]+ test' "$output"; then
    fault="ran no test"
  fi
  [[ -n $fault ]] && bad=$((bad + 1))
  cat "$output"
  echo "---- $name: $good passed, $bad failed, $skipped skipped${fault:+ ($fault)}"
  passed=$((passed + good))
  failed=$((failed + bad))
  unrun=$((unrun + skipped))
}

# One check that is not a test program.
expect() { # WHAT COMMAND...
  local what="$1"
  shift
  if "$@"; then
    echo "[       OK ] $what"
    passed=$((passed + 1))
  else
    echo "[  FAILED  ] $what"
    failed=$((failed + 1))
  fi
}

find_test() { # NAME
  local test
  for test in "${tests[@]}"; do
    if [[ ${test##*/} == "$1" ]]; then
      echo "$test"
      return 0
    fi
  done
  return 1
}

# A test program that was not given is a failure of the call.
run_test() { # NAME
  local test
  if test="$(find_test "$1")"; then
    run_tests "$1" "$test"
  else
    expect "$1 was given to this script" false
  fi
}

# ---------------------------------------------------------------- parts

part_instructions() {
  run_test instructions
}

part_operations() {
  local name
  for name in activation dropout linear loss norm optimizer position; do run_test "test_ops_$name"; done
}

part_attention() {
  run_test test_attention
}

part_device() {
  run_test test_cuda_device
  run_test test_cuda_products
}

part_comm() {
  run_test test_comm_device
}

part_model() {
  run_test test_cuda_model
  run_test test_predict
}

part_training() {
  run_test test_cuda_training
}

# Trains configs/tiny.yaml on this repository's sources, anew unless the name is followed by "on".
train() { # NAME[ on] DEVICE PRECISION RING STEPS
  local name="${1% on}"
  [[ $1 == *" on" ]] || rm -rf "${work:?}/$name"
  if [[ ! -d $work/data ]]; then
    "$program" prepare --out "$work/data" --suffix .c,.h --val-fraction 0.1 kernels model train || return 1
  fi
  timeout --kill-after=5 "$(left)" "$program" train configs/tiny.yaml run.dir="$work/$name" \
    data.train="$work/data/train" device="$2" train.precision="$3" parallelism.ring="$4" train.steps="$5" \
    scheduler.name=constant scheduler.warmup_steps=0 </dev/null
}

losses() { # NAME
  sed -n 's/.*"loss": *\([-+0-9.eE]*\).*/\1/p' "$work/$1/metrics.jsonl"
}

# The losses of two runs, step by step, differ by at most BOUND of the loss.
losses_agree() { # NAME NAME BOUND STEPS
  paste <(losses "$1") <(losses "$2") | awk -v bound="$3" -v steps="$4" -v names="$1, $2" '
    { d = ($1 - $2) / $1; if (d < 0) d = -d; if (d > worst) worst = d; if (NF != 2 || !(d <= bound)) bad = 1 }
    END { printf "%s: %d steps, largest relative difference of the loss %.3g, allowed %g\n", names, NR, worst, bound
          exit bad || NR != steps }'
}

losses_fall() { # NAME
  losses "$1" | awk 'NR == 1 { first = $1 } { last = $1 } END { exit !(NR > 1 && last < first) }'
}

# Every safetensors file of the last checkpoint, bit for bit.
same_bits() { # NAME NAME STEPS
  local a b file count=0
  a="$work/$1/checkpoints/$(printf 'step_%08d' "$3")"
  b="$work/$2/checkpoints/$(printf 'step_%08d' "$3")"
  for file in "$a"/*.safetensors; do
    cmp "$file" "$b/${file##*/}" || return 1
    count=$((count + 1))
  done
  ((count >= 2))
}

part_parity() {
  local steps=20 precision
  expect "the CPU trains" train cpu cpu fp32 1 $steps
  for precision in fp32 bf16; do
    expect "CUDA trains in $precision" train "$precision" cuda $precision 1 $steps
    expect "again" train "$precision-again" cuda $precision 1 $steps
    expect "the same bits again" same_bits "$precision" "$precision-again" $steps
    expect "half of it" train "$precision-halves" cuda $precision 1 $((steps / 2))
    expect "the other half" train "$precision-halves on" cuda $precision 1 $steps
    expect "the same bits behind a resume" same_bits "$precision" "$precision-halves" $steps
  done
  expect "fp32 as the CPU" losses_agree cpu fp32 1e-5 $steps
  expect "bf16 as the CPU in fp32" losses_agree cpu bf16 1e-2 $steps
  expect "the loss falls" losses_fall bf16
}

part_rings() {
  local steps=6 ring precision
  for precision in fp32 bf16; do
    expect "a ring of 1 in $precision" train "$precision-1" cuda $precision 1 $steps
    for ring in 2 4 8; do
      expect "a ring of $ring in $precision" train "$precision-$ring" cuda $precision $ring $steps
    done
  done
  for ring in 2 4 8; do
    expect "a ring of $ring as one rank" losses_agree fp32-1 "fp32-$ring" 1e-5 $steps
    expect "a ring of $ring as one rank in bf16" losses_agree bf16-1 "bf16-$ring" 1e-2 $steps
  done
}

part_nccl() {
  if find_test test_nccl >/dev/null; then
    run_test test_nccl
  else
    reason="there is no test_nccl"
  fi
}

# Small sizes of the test programs: RINGGPT_TEST_SMALL (tests/support/unit.h).
sanitizer() { # TOOL
  local tool name test
  if [[ -n $emulated ]]; then
    reason="it needs a GPU"
    return
  fi
  tool="$(command -v compute-sanitizer || ls "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer" 2>/dev/null)" || {
    reason="there is no compute-sanitizer"
    return
  }
  for name in test_ops_norm test_attention test_cuda_model; do
    if test="$(find_test $name)"; then
      RINGGPT_TEST_SMALL=1 run_tests "$name" "$tool" --tool "$1" --error-exitcode 86 "$test"
    else
      expect "$name was given to this script" false
    fi
  done
}

# ---------------------------------------------------------------- running

# What was built: another program, device or test makes all stamps void.
fingerprint() {
  cksum "$program" "$object" "${tests[@]}" | cksum
}

run_part() { # NAME LIMIT
  local name="$1" log="$state/$1.log" line start=$SECONDS
  passed=0 failed=0 unrun=0 reason=""
  work="$state/work-$name"
  part_end=$((SECONDS + $2 * (${#emulated} > 0 ? 10 : 1)))
  mkdir -p "$work"
  case $name in
    sanitizer-*) sanitizer "${name#sanitizer-}" ;;
    *) "part_$name" ;;
  esac >"$log" 2>&1
  rm -rf "$work" "$state/output.txt"
  line="$name: $passed passed, $failed failed"
  ((unrun > 0)) && line+=", $unrun skipped"
  [[ -n $reason ]] && line+=", not run: $reason"
  line+="$emulated"
  echo "$line" >>"$log"
  if ((failed > 0)); then
    grep -aE '^\[  FAILED  \]|^---- .*, [1-9][0-9]* failed|Error|error' "$log" | head -n 20 | sed 's/^/    /'
    echo "    all of it: $log"
  elif ((passed > 0)); then
    { echo "$built"; echo "$line"; } >"$state/$name.done"
  fi
  echo "$line  [$((SECONDS - start)) s]"
  total_passed=$((total_passed + passed))
  total_failed=$((total_failed + failed))
}

# Whether a part has passed already, with what is built now.
done_before() { # NAME
  [[ -z $again && -f $state/$1.done && "$(head -n 1 "$state/$1.done")" == "$built" ]]
}

count_before() { # NAME
  local line count
  line="$(tail -n 1 "$state/$1.done")"
  count="${line#*: }"
  total_passed=$((total_passed + ${count%% *}))
  echo "$line  [before]"
}

wanted() { # NAME
  local part
  ((${#chosen[@]} == 0)) && return 0
  for part in "${chosen[@]}"; do [[ $1 == "$part"* ]] && return 0; done
  return 1
}

describe_machine() {
  if [[ -n $emulated ]]; then
    echo "on the emulated device: nothing here ran on a GPU"
  else
    nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv,noheader 2>/dev/null ||
      echo "nvidia-smi says nothing"
  fi
}

object="" state="" again="" chosen=()
while [[ ${1:-} == --* ]]; do
  case $1 in
    --object | --state | --part)
      (($# >= 2)) || usage
      case $1 in
        --object) object="$2" ;;
        --state) state="$2" ;;
        --part) chosen+=("$2") ;;
      esac
      shift
      ;;
    --again) again=yes ;;
    --list)
      printf '%s\n' "${parts[@]}"
      exit 0
      ;;
    *) usage ;;
  esac
  shift
done
(($# >= 2)) || usage
program="$(realpath "$1")"
shift
tests=()
for test in "$@"; do tests+=("$(realpath "$test")"); done
object="$(realpath "${object:-$(dirname "$program")/ringgpt-cuda.so}")"
if [[ ! -f $object ]]; then
  echo "$object is not there: build with the CUDA toolkit"
  exit 1
fi
mkdir -p "${state:=$(dirname "$program")/gpu-check}" || exit 1
state="$(realpath "$state")"
cd "$root" || exit 1
export RINGGPT_CUDA="$object" RINGGPT_TEST_CUDA="$object"
emulated=""
grep -aq EMULATED_DEVICES "$object" && emulated=" (emulated)"
built="$(fingerprint)"
total_passed=0 total_failed=0 any=""
describe_machine
for entry in "${parts[@]}"; do
  read -r name limit <<<"$entry"
  wanted "$name" || continue
  any=yes
  if done_before "$name"; then
    count_before "$name"
  else
    run_part "$name" "$limit"
  fi
done
if [[ -z $any ]]; then
  echo "no part has such a name; --list names them"
  exit 64
fi
echo "$total_passed passed, $total_failed failed$emulated"
((total_failed == 0 && total_passed > 0))

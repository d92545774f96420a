#!/usr/bin/env bash
# Compares ringgpt with Hugging Face transformers, which it installs from PyPI into a virtual environment (several
# GB the first time): the stored models of this folder are made again, and models that ringgpt trains here are
# loaded by transformers, which must give the same logits and loss, and the same tokens by their tokenizers.
# `make check-peers` calls it.
#
#   tests/peers/check.sh PROGRAM LOGITS DIRECTORY
#     LOGITS      the program of tests/peers/logits.c
#     DIRECTORY   for the environment, which stays, and what is made here, which is made anew
set -euo pipefail
program="$1"
logits="$2"
directory="$3"
work="$directory/work"
venv="$directory/venv"

# By which the stored models were made; with others, make those anew.
packages=(transformers==5.23.0 torch==2.15.0 safetensors==0.8.0 numpy==2.4.6)

if [ "$(cat "$venv/installed" 2>/dev/null)" != "${packages[*]}" ]; then
  python3 -m venv "$venv" || {
    echo "python3 cannot make a virtual environment: install python3-venv and call make again"
    exit 1
  }
  "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
  echo "${packages[*]}" >"$venv/installed"
fi

rm -rf "$work"
mkdir -p "$work"
# Nothing is asked of the hub: all that is loaded lies here.
export HF_HUB_OFFLINE=1 HF_HOME="$work/home" PYTHONDONTWRITEBYTECODE=1

"$program" prepare --out "$work/data" --suffix .c --val-fraction 0.1 train model data >"$work/prepare.txt"
train() { # NAME OVERRIDE...
  local name="$1"
  shift
  "$program" train configs/tiny.yaml "run.dir=$work/$name" "data.train=$work/data/train_*.bin.gz" \
    optimizer.learning_rate=5e-3 train.steps=40 checkpoint.every=40 "$@" >"$work/$name.txt"
}
# The same with a tokenizer of GPT-2's kind, which is made here.
"$venv/bin/python" tests/peers/make_tokenizer.py "$work/tokenizer" train/*.c
mkdir "$work/texts"
cp train/sampler.c "$work/texts/code"
printf "Gr\303\274\303\237e,  it's\n\n 2024\t\346\227\245\346\234\254 \360\237\230\200 \302\275\302\240they'll " >"$work/texts/words"
"$program" prepare --out "$work/words" --tokenizer "gpt2:$work/tokenizer" --val-fraction 0 "$work/texts" \
  >>"$work/prepare.txt"
train llama model.rope_theta=700 model.initializer_range=0.1
train gpt2 model.position=learned model.norm=layernorm model.activation=gelu model.bias=true \
  model.tie_word_embeddings=true model.num_key_value_heads=4 model.max_position_embeddings=256 \
  model.initializer_range=0.1
# Scaled positions: trained for 64 of them, and compared at 150 and 200.
scaling=model.rope_scaling
train linear $scaling.rope_type=linear $scaling.factor=4
train dynamic $scaling.rope_type=dynamic $scaling.factor=2 model.max_position_embeddings=64
train yarn $scaling.rope_type=yarn $scaling.factor=4 $scaling.original_max_position_embeddings=64 \
  $scaling.beta_fast=4 $scaling.beta_slow=0.25
train yarn_own $scaling.rope_type=yarn $scaling.factor=16 $scaling.original_max_position_embeddings=64 \
  $scaling.attention_factor=1.5 $scaling.truncate=false
train llama3 $scaling.rope_type=llama3 $scaling.factor=8 $scaling.original_max_position_embeddings=64 \
  $scaling.low_freq_factor=1 $scaling.high_freq_factor=4
words=(data.train="$work/words/train" data.val="''" model.vocab_size=400 train.steps=2)
train words_llama "${words[@]}"
train words_mistral "${words[@]}" model.sliding_window=32
train words_gpt2 "${words[@]}" model.position=learned model.norm=layernorm model.activation=gelu model.bias=true \
  model.tie_word_embeddings=true model.num_key_value_heads=4 model.max_position_embeddings=256

checkpoints=()
for name in llama gpt2 linear dynamic yarn yarn_own llama3; do
  checkpoints+=("$work/$name/checkpoints/step_00000040")
done
"$venv/bin/python" tests/peers/check_peers.py "$logits" "$work" "${checkpoints[@]}"

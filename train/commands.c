/* The table of commands. */
#include "train/commands.h"

static const Command table[] = {
    {.name = "prepare",
     .usage = "--out DIR [flags] PATH...",
     .summary = "Turns text files, and the files in folders, into compressed shards of tokens.",
     .flags = {{"out", "DIR", "where the shards go; made where it is missing", true},
               {"tokenizer", "NAME", "bytes (the default), or gpt2:DIR with the files of GPT-2's in DIR",
                false},
               {"val-fraction", "F", "share of the documents kept for evaluation (default 0.01)", false},
               {"suffix", "S[,S...]", "of the files in folders only those that end so, such as .c,.h", false},
               {"shard-tokens", "N", "tokens of a shard (default 100000000)", false},
               {"seed", "N", "of the draw of documents for evaluation (default 1)", false},
               {"overwrite", NULL, "replace a set that is in DIR already", false}},
     .least_arguments = 1,
     .most_arguments = -1,
     .run = command_prepare},
    {.name = "train",
     .usage = "CONFIG.yaml [section.key=value ...]",
     .summary = "Trains a model; goes on by itself where an earlier run of the same configuration stopped.",
     .least_arguments = 1,
     .most_arguments = -1,
     .configured = true,
     .run = command_train},
    {.name = "eval",
     .usage = "CONFIG.yaml --checkpoint DIR [--context N[,N...]] [--json FILE] [section.key=value ...]",
     .summary = "Measures the perplexity of a checkpoint on data.val, also by position.",
     .flags = {{"checkpoint", "DIR", "a checkpoint, or any directory with a model.safetensors", true},
               {"context", "N[,N...]", "context lengths in tokens (default: eval.contexts)", false},
               {"json", "FILE", "write the results there too", false}},
     .least_arguments = 1,
     .most_arguments = -1,
     .configured = true,
     .run = command_eval},
    {.name = "inspect",
     .usage = "PATH",
     .summary = "Says what a shard, a prepared set or a checkpoint holds, and whether it is whole.",
     .least_arguments = 1,
     .most_arguments = 1,
     .run = command_inspect},
};

const Command *commands_table(int64_t *count) {
  *count = (int64_t)(sizeof table / sizeof table[0]);
  return table;
}

/* ringgpt prepare: text files and folders to a set of compressed shards. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/prepare.h"
#include "kernels/base/clock.h"
#include "train/commands.h"
#include "train/progress.h"

#define DEFAULT_TOKENIZER "bytes"
#define DEFAULT_VAL_FRACTION 0.01
#define DEFAULT_SEED 1
#define MOST_SUFFIXES 64
#define COUNT_BYTES 32

/* The endings of --suffix, cut out of a copy of its text. */
typedef struct Suffixes {
  char *text;
  const char *names[MOST_SUFFIXES];
  size_t count;
} Suffixes;

static Status cut_suffixes(const char *given, Suffixes *out, Error *error) {
  out->text = strdup(given);
  if (!out->text) return fail(error, STATUS_SYSTEM, "no memory for the list of suffixes");
  char *rest = NULL;
  for (char *name = strtok_r(out->text, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
    if (out->count == MOST_SUFFIXES)
      return fail(error, STATUS_USAGE, "--suffix has more than %d endings", MOST_SUFFIXES);
    out->names[out->count++] = name;
  }
  if (out->count == 0)
    return fail(error, STATUS_USAGE, "--suffix is '%.60s'; it must be a list as .c,.h", given);
  return STATUS_OK;
}

static Status read_flags(const CommandLine *line, Suffixes *suffixes, PrepareOptions *options, Error *error) {
  const char *fraction = command_line_flag(line, "val-fraction");
  const char *tokens = command_line_flag(line, "shard-tokens");
  const char *seed_text = command_line_flag(line, "seed");
  const char *suffix = command_line_flag(line, "suffix");
  const char *tokenizer = command_line_flag(line, "tokenizer");
  int64_t seed = DEFAULT_SEED;
  if (*options->out == '\0') return fail(error, STATUS_USAGE, "--out is ''; it must name a folder");
  if (tokenizer) options->tokenizer = tokenizer;
  if (fraction) TRY(command_line_real("--val-fraction", fraction, 0, 1, &options->val_fraction, error));
  if (tokens)
    TRY(command_line_integer("--shard-tokens", tokens, 1, INT32_MAX, &options->shard_tokens, error));
  if (seed_text) TRY(command_line_integer("--seed", seed_text, 0, INT64_MAX, &seed, error));
  if (suffix) TRY(cut_suffixes(suffix, suffixes, error));
  options->seed = (uint64_t)seed;
  options->suffixes = suffixes->names;
  options->suffix_count = suffixes->count;
  return STATUS_OK;
}

/* Draws the bar; `context` is when the work began. */
static void show_progress(void *context, const PrepareProgress *progress) {
  const double *began = context;
  const double elapsed = clock_seconds() - *began;
  const double left = progress->bytes > 0 ? elapsed * (double)(progress->bytes_total - progress->bytes) /
                                                (double)progress->bytes
                                          : -1;
  char bar[128], tokens[COUNT_BYTES];
  progress_bar(progress->bytes, progress->bytes_total, left, bar, sizeof bar);
  progress_count(progress->tokens, tokens, sizeof tokens);
  (void)fprintf(stderr, "\r\033[K%s  %s tokens", bar, tokens);
  (void)fflush(stderr);
}

static void print_summary(const char *directory, const Description *set) {
  (void)printf("%s: tokenizer %s, vocabulary of %lld, end of document %d\n", directory, set->tokenizer,
               (long long)set->vocab_size, (int)set->end_of_document);
  for (int i = 0; i < SPLIT_COUNT; i++) {
    const SplitDescription *split = &set->splits[i];
    char documents[COUNT_BYTES], bytes[COUNT_BYTES], tokens[COUNT_BYTES];
    progress_count(split->documents, documents, sizeof documents);
    progress_count(split->bytes, bytes, sizeof bytes);
    progress_count(split->tokens, tokens, sizeof tokens);
    (void)printf("  %-5s  %s document%s, %s bytes of text, %s tokens, %lld shard%s\n", split_name((Split)i),
                 documents, split->documents == 1 ? "" : "s", bytes, tokens, (long long)split->shards,
                 split->shards == 1 ? "" : "s");
  }
  (void)printf("in a configuration: data: {train: %s/train%s%s%s}, model: {vocab_size: %lld}\n", directory,
               set->splits[SPLIT_VAL].shards > 0 ? ", val: " : "",
               set->splits[SPLIT_VAL].shards > 0 ? directory : "",
               set->splits[SPLIT_VAL].shards > 0 ? "/val" : "", (long long)set->vocab_size);
}

Status command_prepare(const CommandLine *line, Error *error) {
  double began = clock_seconds();
  const bool bar = isatty(STDERR_FILENO) != 0;
  Suffixes suffixes = {0};
  Description set;
  Status status = STATUS_OK;
  PrepareOptions options = {.out = command_line_flag(line, "out"),
                            .tokenizer = DEFAULT_TOKENIZER,
                            .val_fraction = DEFAULT_VAL_FRACTION,
                            .shard_tokens = PREPARE_SHARD_TOKENS,
                            .overwrite = command_line_flag(line, "overwrite") != NULL,
                            .paths = (const char *const *)line->arguments,
                            .path_count = (size_t)line->count,
                            .progress = bar ? show_progress : NULL,
                            .context = &began};
  TRY_GOTO(read_flags(line, &suffixes, &options, error), done);
  status = prepare(&options, &set, error);
  if (bar) (void)fprintf(stderr, "\r\033[K");
  if (status == STATUS_OK) print_summary(options.out, &set);
done:
  free(suffixes.text);
  return status;
}

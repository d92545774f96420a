/* The work of `ringgpt prepare`. */
#include "data/prepare.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/file_list.h"
#include "data/prepared_set.h"
#include "data/shard.h"
#include "data/split_writer.h"
#include "data/tokenizer.h"
#include "kernels/base/clock.h"
#include "kernels/base/file.h"
#include "kernels/base/philox.h"

/* Text that is read at once; a longer word makes the buffer grow. */
#define TEXT_BYTES ((size_t)1 << 20)

/* Seconds between two reports of progress. */
#define PROGRESS_INTERVAL 0.1

/* Which documents go to the validation split. */
typedef struct SplitRule {
  uint64_t seed;
  double val_fraction;
  int64_t forced_val;   /* a document that goes there whatever it drew, -1: none */
  int64_t forced_train; /* one that does not */
} SplitRule;

typedef struct Preparation {
  const PrepareOptions *options;
  FileList files;
  char *fresh; /* the folder in which the set is written */
  int lock;    /* of options->out; -1: not held */
  SplitRule rule;
  Tokenizer *tokenizer;
  TokenizerFiles tokenizer_files; /* that the set keeps */
  SplitWriter writers[SPLIT_COUNT];
  Description description;
  TokenList tokens; /* of a piece of text */
  char *text;       /* (text_capacity) the piece of text at hand */
  size_t text_capacity;
  PrepareProgress progress;
  double last_report; /* when progress was last reported, in seconds */
} Preparation;

static double draw_split(const SplitRule *rule, int64_t document) {
  uint32_t words[4];
  philox_draw(rule->seed, PHILOX_DATA_SPLIT, 0, (uint64_t)document, words);
  return (double)words[0] * 0x1p-32;
}

static Split choose_split(const SplitRule *rule, int64_t document) {
  if (document == rule->forced_val) return SPLIT_VAL;
  if (document == rule->forced_train) return SPLIT_TRAIN;
  return draw_split(rule, document) < rule->val_fraction ? SPLIT_VAL : SPLIT_TRAIN;
}

/* Draws once for all documents, to give each split at least one: the nearest to the other side changes over.
 */
static SplitRule make_split_rule(uint64_t seed, double val_fraction, int64_t documents) {
  SplitRule rule = {.seed = seed, .val_fraction = val_fraction, .forced_val = -1, .forced_train = -1};
  double lowest = 1.0;
  double highest = 0.0;
  int64_t lowest_at = 0;
  int64_t highest_at = 0;
  for (int64_t i = 0; i < documents; i++) {
    const double drawn = draw_split(&rule, i);
    lowest_at = drawn < lowest ? i : lowest_at;
    lowest = drawn < lowest ? drawn : lowest;
    highest_at = drawn > highest ? i : highest_at;
    highest = drawn > highest ? drawn : highest;
  }
  if (val_fraction > 0.0 && documents >= 2 && lowest >= val_fraction) rule.forced_val = lowest_at;
  if (documents >= 1 && highest < val_fraction) rule.forced_train = highest_at;
  return rule;
}

static void report_progress(Preparation *work, bool always) {
  const PrepareOptions *options = work->options;
  if (options->progress == NULL) return;
  const double now = clock_seconds();
  if (!always && now - work->last_report < PROGRESS_INTERVAL) return;
  work->last_report = now;
  options->progress(options->context, &work->progress);
}

static Status check_options(const PrepareOptions *options, Error *error) {
  if (!(options->val_fraction >= 0.0 && options->val_fraction < 1.0)) {
    return fail(error, STATUS_USAGE, "a validation fraction of %g is not in [0, 1)", options->val_fraction);
  }
  if (options->shard_tokens < 1 || options->shard_tokens > SHARD_TOKENS_MAX) {
    return fail(error, STATUS_USAGE, "%lld tokens per shard are not in 1 ... %d",
                (long long)options->shard_tokens, SHARD_TOKENS_MAX);
  }
  if (strlen(options->tokenizer) >= sizeof(((Description *)NULL)->tokenizer)) {
    return fail(error, STATUS_USAGE, "the name of the tokenizer is too long: %.40s...", options->tokenizer);
  }
  return STATUS_OK;
}

/* Lists the documents and decides which split each goes to. */
static Status find_documents(Preparation *work, Error *error) {
  const PrepareOptions *options = work->options;
  const FileFilter filter = {
      .suffixes = options->suffixes, .suffix_count = options->suffix_count, .output = options->out};
  for (size_t i = 0; i < options->path_count; i++) {
    TRY(file_list_add(&work->files, options->paths[i], &filter, error));
  }
  file_list_sort(&work->files);
  if (work->files.count == 0) {
    return fail(error, STATUS_NO_INPUT, "%s%s: no file with text there", options->paths[0],
                options->path_count > 1 ? " and the other paths" : "");
  }
  work->rule = make_split_rule(options->seed, options->val_fraction, work->files.count);
  work->progress.documents_total = work->files.count;
  for (int64_t i = 0; i < work->files.count; i++) work->progress.bytes_total += work->files.entries[i].bytes;
  return STATUS_OK;
}

/* Makes the folder and takes its lock, unless there is something in it that must stay. */
static Status make_folder(Preparation *work, Error *error) {
  const PrepareOptions *options = work->options;
  bool exists = false;
  TRY(file_make_directory(options->out, error));
  TRY(prepared_set_lock(options->out, &work->lock, error));
  TRY(prepared_set_exists(options->out, &exists, error));
  if (options->overwrite || !exists) {
    return prepared_set_check(options->out, &work->tokenizer_files, options->overwrite, error);
  }
  return fail(
      error, STATUS_USAGE,
      "%s: holds a prepared set or parts of one already: choose another folder, or say that it may be "
      "overwritten",
      options->out);
}

/* Opens the tokenizer and sets up what is written with it. */
static Status set_up(Preparation *work, Error *error) {
  const PrepareOptions *options = work->options;
  Description *description = &work->description;
  TRY(tokenizer_open(options->tokenizer, &work->tokenizer, error));
  TRY(tokenizer_read_files(options->tokenizer, &work->tokenizer_files, error));
  (void)snprintf(description->tokenizer, sizeof description->tokenizer, "%s", options->tokenizer);
  description->vocab_size = work->tokenizer->vocab_size;
  description->end_of_document = work->tokenizer->end_of_document;
  description_set_files(description, &work->tokenizer_files);
  for (Split split = SPLIT_TRAIN; split <= SPLIT_VAL; split++) {
    work->writers[split] = (SplitWriter){.split = split,
                                         .token_bytes = description->vocab_size <= UINT16_MAX + 1 ? 2 : 4,
                                         .shard_tokens = options->shard_tokens};
  }
  work->text_capacity = TEXT_BYTES;
  work->text = malloc(work->text_capacity);
  if (work->text == NULL) return fail(error, STATUS_SYSTEM, "no memory left for the text");
  return STATUS_OK;
}

/* Makes room for more text behind the `held` bytes, which are the beginning of one word when they fill it
 * all. */
static Status grow_text(Preparation *work, size_t held, Error *error) {
  if (held < work->text_capacity) return STATUS_OK;
  const size_t capacity = 2 * held + TEXT_BYTES;
  char *larger = realloc(work->text, capacity);
  if (larger == NULL) {
    return fail(error, STATUS_SYSTEM, "no memory left for a word of more than %zu bytes", held);
  }
  work->text = larger;
  work->text_capacity = capacity;
  return STATUS_OK;
}

/* Reads a file piece by piece and writes its tokens. */
static Status add_text(Preparation *work, const File *file, int64_t bytes, SplitWriter *writer,
                       Error *error) {
  size_t held = 0; /* bytes at the start of `text` that the tokenizer has not taken yet */
  for (int64_t offset = 0; offset < bytes || held > 0;) {
    const int64_t left = bytes - offset;
    TRY(grow_text(work, held, error));
    const size_t room = work->text_capacity - held;
    const size_t part = left < (int64_t)room ? (size_t)left : room;
    size_t used = 0;
    TRY(file_read_exact_at(file, offset, work->text + held, part, error));
    offset += (int64_t)part;
    held += part;
    work->tokens.count = 0;
    TRY(tokenizer_encode(work->tokenizer, work->text, held, offset == bytes, &used, &work->tokens, error));
    TRY(split_writer_append(writer, work->tokens.tokens, work->tokens.count, error));
    memmove(work->text, work->text + used, held - used);
    held -= used;
    work->progress.bytes += (int64_t)part;
    work->progress.tokens += work->tokens.count;
    report_progress(work, false);
  }
  return STATUS_OK;
}

static Status add_document(Preparation *work, int64_t document, Error *error) {
  const Split split = choose_split(&work->rule, document);
  SplitWriter *writer = &work->writers[split];
  SplitDescription *described = &work->description.splits[split];
  File file = FILE_CLOSED;
  int64_t bytes = 0;
  Status status = STATUS_OK;
  TRY(file_open_read(work->files.entries[document].path, &file, error));
  TRY_GOTO(file_size(&file, &bytes, error), close);
  TRY_GOTO(add_text(work, &file, bytes, writer, error), close);
  TRY_GOTO(split_writer_append(writer, &work->tokenizer->end_of_document, 1, error), close);
  described->documents++;
  described->bytes += bytes;
  work->progress.documents++;
  work->progress.tokens++;
close:
  file_close(&file);
  return status;
}

static Status write_set(Preparation *work, Error *error) {
  Description *description = &work->description;
  TRY(prepared_set_begin(work->options->out, &work->fresh, error));
  for (Split split = SPLIT_TRAIN; split <= SPLIT_VAL; split++) work->writers[split].directory = work->fresh;
  for (int64_t i = 0; i < work->files.count; i++) TRY(add_document(work, i, error));
  for (Split split = SPLIT_TRAIN; split <= SPLIT_VAL; split++) {
    TRY(split_writer_finish(&work->writers[split], error));
    description->splits[split].shards = work->writers[split].shards;
    description->splits[split].tokens = work->writers[split].tokens;
  }
  TRY(prepared_set_write_tokenizer(work->fresh, &work->tokenizer_files, error));
  report_progress(work, true);
  TRY(description_write(work->fresh, description, error));
  return prepared_set_finish(work->options->out, work->fresh, error);
}

static void release(Preparation *work) {
  file_list_free(&work->files);
  tokenizer_free_files(&work->tokenizer_files);
  tokenizer_close(work->tokenizer);
  free(work->tokens.tokens);
  free(work->text);
  free(work->fresh);
  if (work->lock >= 0) (void)close(work->lock);
}

Status prepare(const PrepareOptions *options, Description *out, Error *error) {
  Status status = STATUS_OK;
  Error ignored = {0}; /* of cleaning up: what led to it is reported */
  Preparation work = {.options = options, .lock = -1};
  TRY_GOTO(check_options(options, error), release);
  TRY_GOTO(set_up(&work, error), release);
  TRY_GOTO(make_folder(&work, error), release);
  TRY_GOTO(find_documents(&work, error), release);
  TRY_GOTO(write_set(&work, error), discard);
  *out = work.description;
  goto release;
discard:
  for (Split split = SPLIT_TRAIN; split <= SPLIT_VAL; split++) split_writer_abandon(&work.writers[split]);
  if (work.fresh != NULL) (void)prepared_set_discard(work.fresh, &ignored);
release:
  release(&work);
  return status;
}

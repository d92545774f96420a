/* A folder for the files of a part: see the header. */
#include "tests/bench/scratch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "checkpoints/directory.h"
#include "data/split_writer.h"

#define PIECE_TOKENS 4096

Status scratch_create(Scratch *scratch, Error *error) {
  const char *parent = getenv("TMPDIR");
  const int length = snprintf(scratch->path, sizeof scratch->path, "%s/ringgpt-bench.XXXXXX",
                              parent != NULL && parent[0] != '\0' ? parent : "/tmp");
  if (length < (int)sizeof scratch->path && mkdtemp(scratch->path) != NULL) return STATUS_OK;
  const int code = length < (int)sizeof scratch->path ? errno : ENAMETOOLONG;
  const Status status = fail_errno(error, STATUS_IO, code, "cannot make the folder %s", scratch->path);
  scratch->path[0] = '\0';
  return status;
}

void scratch_remove(const Scratch *scratch) {
  Error error = {0};
  if (scratch->path[0] == '\0') return;
  if (directory_remove(scratch->path, &error) != STATUS_OK) (void)fprintf(stderr, "bench: %s\n", error.text);
}

const char *scratch_path(const Scratch *scratch, const char *name, char path[384]) {
  (void)snprintf(path, 384, "%s/%s", scratch->path, name);
  return path;
}

/* Half of the tokens are taken again from a short way back, the others are mostly small numbers. */
static void draw_tokens(uint32_t *random, int64_t vocab_size, int32_t *tokens) {
  for (int64_t i = 0; i < PIECE_TOKENS; i++) {
    *random = *random * 1664525U + 1013904223U;
    const int64_t number = (int64_t)(*random >> 16); /* 16 bits */
    const int64_t back = 1 + number % 512;
    tokens[i] = (int32_t)(number * number / 65536 * number / 65536 % vocab_size);
    if ((number & 1) == 0 && back <= i) tokens[i] = tokens[i - back];
  }
}

static Status write_pieces(SplitWriter *writer, int64_t count, int64_t vocab_size, Error *error) {
  int32_t tokens[PIECE_TOKENS];
  uint32_t random = 1;
  for (int64_t done = 0; done < count; done += PIECE_TOKENS) {
    draw_tokens(&random, vocab_size, tokens);
    TRY(split_writer_append(writer, tokens, count - done < PIECE_TOKENS ? count - done : PIECE_TOKENS,
                            error));
  }
  return split_writer_finish(writer, error);
}

Status scratch_shards(const Scratch *scratch, int64_t count, int64_t vocab_size, Error *error) {
  SplitWriter writer = {
      .directory = scratch->path, .split = SPLIT_TRAIN, .token_bytes = 2, .shard_tokens = count};
  const Status status = write_pieces(&writer, count, vocab_size, error);
  if (status != STATUS_OK) split_writer_abandon(&writer);
  return status;
}

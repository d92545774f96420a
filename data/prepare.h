/* The work of `ringgpt prepare`: text files to a set of compressed shards with a description and the files of
 * its tokenizer. */
#ifndef RINGGPT_DATA_PREPARE_H
#define RINGGPT_DATA_PREPARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/description.h"
#include "kernels/base/status.h"

/* Tokens per shard unless told otherwise. */
#define PREPARE_SHARD_TOKENS 100000000

typedef struct PrepareProgress {
  int64_t documents, documents_total;
  int64_t bytes, bytes_total; /* of text */
  int64_t tokens;
} PrepareProgress;

typedef struct PrepareOptions {
  const char *out;             /* directory of the set; made where it is missing */
  const char *tokenizer;       /* as tokenizer_open takes it */
  double val_fraction;         /* [0, 1): share of the documents that go to the validation split */
  uint64_t seed;               /* of the draw that splits */
  int64_t shard_tokens;        /* tokens per shard, 1 to SHARD_TOKENS_MAX */
  bool overwrite;              /* a set that is there already is replaced */
  const char *const *paths;    /* (path_count) files and folders */
  size_t path_count;           /* >= 1 */
  const char *const *suffixes; /* (suffix_count) of the files taken from folders, such as ".h" */
  size_t suffix_count;         /* 0: all files are taken */
  void (*progress)(void *context, const PrepareProgress *progress); /* called some times a second; or NULL */
  void *context;
} PrepareOptions;

/* Makes the set, in place of an old one only when it is complete, and stores its description in *out. One
 * document a file, in the order of their paths, each followed by the end-of-document token; empty files hold
 * no document. Of the files in folders only regular ones are taken, and links to such; links to folders are
 * not followed. With val_fraction > 0 and at least two documents, each split gets at least one. The same
 * files give the same set, byte for byte, with one version of zlib. Files that are met by several paths are
 * taken once, by the first of them in their order. STATUS_USAGE for options out of range, a set that is there
 * and may not be replaced, another tokenizer's files where this one's are to be kept, what is no regular file
 * where one of the set is to be, another preparation under way in the folder, or a path that is the output
 * folder or a file of the set in it; STATUS_NO_INPUT for a path that cannot be read, or no document at
 * all; STATUS_IO when writing fails. */
Status prepare(const PrepareOptions *options, Description *out, Error *error);

#endif

/* Logits and loss of a model in a directory of Hugging Face's kind: what tests/peers/check_peers.py compares
 * with transformers.
 *
 *   logits DIRECTORY TOKENS LOGITS
 *     TOKENS   file of int32 token ids, at least two
 *     LOGITS   file that gets the float32 logits (tokens, vocabulary)
 *
 * Prints the mean loss of the tokens but the first. */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/base/file.h"
#include "tests/support/hf_logits.h"

#define MOST_BYTES ((size_t)1 << 24)

static Status write_logits(const char *path, const float *logits, size_t count, Error *error) {
  FILE *file = fopen(path, "wbe");
  const bool opened = file != NULL;
  const bool written = opened && fwrite(logits, sizeof *logits, count, file) == count;
  if (opened && fclose(file) == 0 && written) return STATUS_OK;
  return fail(error, STATUS_IO, "%s: cannot be written", path);
}

static Status run(const char *directory, const char *tokens_path, const char *logits_path, Error *error) {
  char *tokens = NULL;
  size_t bytes = 0;
  HfLogits result;
  TRY(file_read_whole(tokens_path, MOST_BYTES, &tokens, &bytes, error));
  const size_t count = bytes / sizeof(int32_t);
  Status status = count < 2 ? fail(error, STATUS_DATA, "%s: holds less than two tokens", tokens_path)
                            : hf_logits_run(directory, (int64_t)count, (const int32_t *)(const void *)tokens,
                                            &result, error);
  free(tokens);
  if (status != STATUS_OK) return status;
  status = write_logits(logits_path, result.logits, count * (size_t)result.vocab, error);
  free(result.logits);
  (void)printf("%.12g\n", result.loss);
  return status;
}

int main(int argc, char **argv) {
  Error error = {0};
  if (argc != 4) {
    (void)fprintf(stderr, "usage: logits DIRECTORY TOKENS LOGITS\n");
    return STATUS_USAGE;
  }
  const Status status = run(argv[1], argv[2], argv[3], &error);
  if (status != STATUS_OK) (void)fprintf(stderr, "logits: %s\n", error.text);
  return (int)status;
}

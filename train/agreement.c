/* That all ranks were given the same program, configuration and data. */
#include "train/agreement.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/dataset.h"
#include "kernels/base/memory.h"
#include "train/commands.h"

/* Characters of a value that a message shows: those of both sides fit. */
#define SHOWN_CHARACTERS 240

/* ---------------------------------------------------------------- the configuration */

/* A piece of a text that goes on behind it. */
typedef struct Piece {
  const char *text;
  int length;
} Piece;

/* Takes the next line off *text; an empty one at its end. */
static Piece take_line(const char **text) {
  const Piece line = {.text = *text, .length = (int)strcspn(*text, "\n")};
  *text += line.length;
  if (**text == '\n') (*text)++;
  return line;
}

static bool same(Piece a, Piece b) {
  return a.length == b.length && memcmp(a.text, b.text, (size_t)a.length) == 0;
}

/* The key of a line "  key: value", and what is behind it. */
static Piece key_of(Piece line) {
  const int indent = (int)strspn(line.text, " ");
  return (Piece){.text = line.text + indent, .length = (int)strcspn(line.text + indent, ":\n")};
}

static Piece value_of(Piece line) {
  const Piece key = key_of(line);
  const char *value = key.text + key.length;
  value += strspn(value, ": ");
  const int length = (int)(line.text + line.length - value);
  return (Piece){.text = value, .length = length < SHOWN_CHARACTERS ? length : SHOWN_CHARACTERS};
}

/* Compares two texts of `describe`, which have the same lines but for the values. */
static Status compare(const char *own, const char *first, Error *error) {
  Piece section = {.text = "", .length = 0};
  while (*own != '\0' && *first != '\0') {
    const Piece here = take_line(&own);
    const Piece there = take_line(&first);
    const bool inside = here.text[0] == ' ';
    if (!same(here, there)) {
      const Piece key = key_of(here);
      const Piece values[2] = {value_of(here), value_of(there)};
      return fail(error, STATUS_CONFIG,
                  "this process has %.*s%s%.*s %.*s, rank 0 has %.*s: every process must be given the same "
                  "program and configuration",
                  inside ? section.length : 0, section.text, inside ? "." : "", key.length, key.text,
                  values[0].length, values[0].text, values[1].length, values[1].text);
    }
    if (!inside) section = key_of(here);
  }
  return STATUS_OK;
}

/* The program and the configuration as lines, a new block: the version in front, then the YAML of
 * config_dump, one option a line. */
static Status describe(const Config *config, char **out, Error *error) {
  char *options = NULL;
  *out = NULL;
  TRY(config_dump(config, &options, error));
  if (asprintf(out, "ringgpt: " RINGGPT_VERSION "\n%s", options) < 0) *out = NULL;
  free(options);
  return *out != NULL ? STATUS_OK : fail(error, STATUS_SYSTEM, "no memory to compare the configuration");
}

Status agreement_config(Comm *world, const Config *config, Error *error) {
  Status status = STATUS_OK;
  char *own = NULL;
  void *first = NULL;
  TRY(describe(config, &own, error));
  int64_t bytes = (int64_t)strlen(own) + 1;
  TRY_GOTO(comm_broadcast(world, 0, &bytes, sizeof bytes, error), done);
  TRY_GOTO(memory_alloc((size_t)bytes, 1, "the configuration of rank 0", &first, error), done);
  if (world->rank == 0) memcpy(first, own, (size_t)bytes);
  TRY_GOTO(comm_broadcast(world, 0, first, (size_t)bytes, error), done);
  status = compare(own, first, error);
done:
  /* Before the text is freed, which others may still copy. */
  if (status != STATUS_OK) comm_abort(world, error);
  free(first);
  free(own);
  return status;
}

/* ---------------------------------------------------------------- the device */

Status agreement_device(Comm *world, const Device *device, Error *error) {
  char first[32];
  const char *own = device->ops.attention.name;
  (void)snprintf(first, sizeof first, "%s", own);
  TRY(comm_broadcast(world, 0, first, sizeof first, error));
  if (strcmp(own, first) == 0) return STATUS_OK;
  return fail(
      error, STATUS_CONFIG,
      "this process computes attention by %s, rank 0 by %s, and they cannot exchange keys: give all the "
      "same device, or set the environment variable RINGGPT_ISA to what all CPUs have",
      own, first);
}

/* ---------------------------------------------------------------- the data */

Status agreement_data(Comm *world, const Config *config, const char *pattern, Error *error) {
  enum { TOKENS, CRC32, NUMBERS };
  Dataset *dataset = NULL;
  TRY(dataset_open(pattern, config->model.vocab_size, &dataset, error));
  const int64_t own[NUMBERS] = {dataset_tokens(dataset), (int64_t)dataset_crc32(dataset)};
  dataset_close(dataset);
  int64_t first[NUMBERS] = {own[TOKENS], own[CRC32]};
  TRY(comm_broadcast(world, 0, first, sizeof first, error));
  if (own[TOKENS] == first[TOKENS] && own[CRC32] == first[CRC32]) return STATUS_OK;
  return fail(
      error, STATUS_DATA,
      "%s: is another set of shards here, of %lld tokens, than on rank 0, of %lld: every host must have the "
      "same files",
      pattern, (long long)own[TOKENS], (long long)first[TOKENS]);
}

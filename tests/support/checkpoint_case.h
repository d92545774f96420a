/* A small model for tests of checkpoints: its table, weights and moments that are a function of a number
 * alone, saved and loaded on any number of ranks and compared bit for bit. */
#ifndef RINGGPT_SUPPORT_CHECKPOINT_CASE_H
#define RINGGPT_SUPPORT_CHECKPOINT_CASE_H

#include <stdbool.h>
#include <stdint.h>

#include "checkpoints/checkpoint.h"
#include "kernels/base/status.h"
#include "kernels/base/tensor_table.h"

enum { CASE_MOST_RANKS = 8, CASE_MOST_WARNINGS = 32 };

/* Lines that came to a log. */
typedef struct CaseWarnings {
  int count;
  char text[CASE_MOST_WARNINGS][1536];
} CaseWarnings;

/* A log that collects into `warnings`. */
CheckpointLog case_log(CaseWarnings *warnings);

/* Whether some line holds both texts. */
bool case_warned(const CaseWarnings *warnings, const char *name, const char *reason);

/* GPT-2's kinds of tensors in little: matrices, vectors, some transposed, sizes that do not divide by ranks.
 */
const TensorTable *case_table(void);

/* The bits that element `element` of the weights (kind 0), m (1) or v (2) has in a save of number `number`:
 * any bits, also those of NaNs, which must come back as they were. */
uint32_t case_bits(int64_t number, int kind, int64_t element);

/* How a save is made. */
typedef struct CaseSave {
  const char *directory;
  int ranks;
  int64_t keep;
  int64_t step;
  int64_t number;         /* decides the contents, and is the manifest's number of samples */
  int greedy_rank;        /* this rank holds all moments but one of each other rank; -1: equal shares */
  bool in_pieces;         /* a rank's share is one piece of each half of the table */
  CaseWarnings *warnings; /* may be NULL */
} CaseSave;

/* Saves, and checks that all ranks got the same status and message, which it returns. */
Status case_save(const CaseSave *save, Error *error);

/* A plain save that must succeed: keep 2, equal shares. */
void case_save_step(const char *directory, int ranks, int64_t step);

/* Opens `path` on so many ranks, loads it, and checks every number and every bit against case_bits. The
 * contents are those of the manifest's number of samples. Returns the first failure. */
Status case_load(const char *path, int ranks, Error *error);

/* The same into another table, without a look at the contents. */
Status case_load_table(const char *path, int ranks, const TensorTable *table, Error *error);

/* Finds on one rank. */
Status case_find(const char *directory, CaseWarnings *warnings, Checkpoint *found, Error *error);

/* "step_00000100" below the directory, or a file in it, for the caller to free. */
char *case_path(const char *directory, int64_t step, const char *file);

/* Entries of a directory, "." and ".." left out. */
int case_entries(const char *directory);

#endif

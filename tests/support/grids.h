/* The same training on different grids: what may differ and what may not. */
#ifndef RINGGPT_SUPPORT_GRIDS_H
#define RINGGPT_SUPPORT_GRIDS_H

#include "tests/support/training.h"

typedef struct GridCase {
  int ring;
  int data;
} GridCase;

/* Overrides that turn configs/tiny.yaml into a model of GPT-2's kind; a list ended by NULL. */
const char *const *grids_gpt2_overrides(void);

/* Two runs that differ only in rounding: first loss within 1e-7, losses after 20 steps within 1e-6
 * (relative), norms of the gradient within 1e-5. */
void grids_check_metrics(const char *what, const Metrics *a, const Metrics *b);

/* Trains configs/tiny.yaml with `overrides` on one rank and on each of the grids, and compares. */
void grids_compare(const char *directory, const char *name, const char *const overrides[],
                   const GridCase *cases, int count);

#endif

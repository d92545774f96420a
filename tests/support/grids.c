/* The same training on different grids. */
#include "tests/support/grids.h"

#include <math.h>
#include <stdio.h>

#include "tests/support/compare.h"
#include "tests/support/unit.h"

const char *const *grids_gpt2_overrides(void) {
  static const char *const overrides[] = {"model.position=learned",
                                          "model.norm=layernorm",
                                          "model.activation=gelu",
                                          "model.bias=true",
                                          "model.tie_word_embeddings=true",
                                          "model.num_key_value_heads=4",
                                          NULL};
  return overrides;
}

static double relative(double a, double b) {
  return fabs(a - b) / fabs(b);
}

void grids_check_metrics(const char *what, const Metrics *a, const Metrics *b) {
  char name[160];
  assert_int_equal(a->count, b->count);
  (void)snprintf(name, sizeof name, "%s: first loss", what);
  check_within(name, relative(a->loss[0], b->loss[0]), 1e-7);
  for (int64_t i = 0; i < a->count; i++) {
    (void)snprintf(name, sizeof name, "%s: loss of step %lld", what, (long long)i + 1);
    check_within(name, relative(a->loss[i], b->loss[i]), 1e-6);
    (void)snprintf(name, sizeof name, "%s: norm of step %lld", what, (long long)i + 1);
    check_within(name, relative(a->grad_norm[i], b->grad_norm[i]), 1e-5);
  }
}

static Metrics run_grid(const char *directory, const char *name, const char *const overrides[],
                        GridCase grid) {
  enum { MOST = 24 };
  const char *all[MOST] = {NULL};
  char ring[48];
  char data[48];
  char run[160];
  int count = 0;
  (void)snprintf(ring, sizeof ring, "parallelism.ring=%d", grid.ring);
  (void)snprintf(data, sizeof data, "parallelism.data=%d", grid.data);
  (void)snprintf(run, sizeof run, "%s-%d-%d", name, grid.ring, grid.data);
  while (overrides[count] != NULL && count < MOST - 3) {
    all[count] = overrides[count];
    count++;
  }
  all[count] = ring;
  all[count + 1] = data;
  const Config config = training_config(directory, run, all);
  return training_metrics(&config);
}

void grids_compare(const char *directory, const char *name, const char *const overrides[],
                   const GridCase *cases, int count) {
  const Metrics alone = run_grid(directory, name, overrides, (GridCase){.ring = 1, .data = 1});
  for (int i = 0; i < count; i++) {
    char what[160];
    const Metrics metrics = run_grid(directory, name, overrides, cases[i]);
    (void)snprintf(what, sizeof what, "%s, ring %d x data %d", name, cases[i].ring, cases[i].data);
    grids_check_metrics(what, &metrics, &alone);
  }
}

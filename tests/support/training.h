/* Training runs inside a test: data made on the spot, configs/tiny.yaml with overrides, results read back. */
#ifndef RINGGPT_SUPPORT_TRAINING_H
#define RINGGPT_SUPPORT_TRAINING_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "train/config.h"

#define TRAINING_MOST_STEPS 512

/* What metrics.jsonl says of each step. */
typedef struct Metrics {
  int64_t count;
  double loss[TRAINING_MOST_STEPS]; /* NaN where it is null */
  double learning_rate[TRAINING_MOST_STEPS];
  double grad_norm[TRAINING_MOST_STEPS];
  int64_t sequence_length[TRAINING_MOST_STEPS];
  bool skipped[TRAINING_MOST_STEPS];
} Metrics;

/* DIRECTORY/NAME, to be freed. */
char *training_path(const char *directory, const char *name);

/* Set-up of a group of cmocka tests that share one directory of shards of made-up text, the same every
 * time; temp_dir_tear_down removes it, training_directory gives its path. */
int training_set_up(void **state);
const char *training_directory(void **state);

/* configs/tiny.yaml with the data of DIRECTORY, the run directory DIRECTORY/NAME and `overrides`, a list of
 * "section.key=value" ended by NULL. */
Config training_config(const char *directory, const char *name, const char *const overrides[]);

/* Trains and returns how it ended. */
Status training_run(const Config *config, Error *error);

/* The same, ending the test unless it succeeds, and the metrics of the whole run. */
Metrics training_metrics(const Config *config);

/* Reads the metrics of a run, which may be going on. */
Metrics training_read_metrics(const Config *config);

/* The path of a file of the run's checkpoint at `step`, to be freed. */
char *training_checkpoint(const Config *config, int64_t step, const char *file);

/* Ends the test unless both runs have, bit for bit, the same weights and moments at `step`. */
void training_same_state(const Config *a, const Config *b, int64_t step);

#endif

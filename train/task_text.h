/* Questions about something hidden in a long text, for any model with its tokenizer.
 *
 *   needle   a sentence with a number of 7 digits, hidden in text of the evaluation's shards; the form of the
 *            test that became known as "needle in a haystack" (G. Kamradt, 2023)
 *   passkey  a number of 5 digits in a sentence that is said to be important, hidden among sentences that are
 *            repeated (A. Mohtashami and M. Jaggi, "Landmark Attention", 2023)
 *
 * A sample is [introduction][filler][sentence][filler][question][answer]. It has one token more than the
 * context: the last one is read by nobody and is only a target. */
#ifndef RINGGPT_TRAIN_TASK_TEXT_H
#define RINGGPT_TRAIN_TASK_TEXT_H

#include <stdint.h>

#include "data/dataset.h"
#include "data/tokenizer.h"
#include "kernels/base/status.h"

typedef enum TaskTextKind { TASK_TEXT_NEEDLE, TASK_TEXT_PASSKEY } TaskTextKind;

typedef struct TaskTextOptions {
  TaskTextKind kind;
  const char *tokenizer; /* as tokenizer_open takes it */
  const char *pattern;   /* the shards with the filler of TASK_TEXT_NEEDLE, as dataset_open takes them */
  int64_t vocab_size;    /* of the model */
  uint64_t seed;         /* of the numbers, and of the places from which filler is taken */
} TaskTextOptions;

/* For one thread. */
typedef struct TaskText TaskText;

/* Where a sentence is hidden. */
typedef struct TaskTextPlace {
  int64_t context; /* tokens that the model reads */
  int64_t sample;  /* the number, and the filler of a context, are functions of it */
  double depth;    /* share of the filler that stands before the sentence, in [0, 1] */
} TaskTextPlace;

/* Opens tokenizer and shards. Fails as tokenizer_open and dataset_open; STATUS_CONFIG when the model's
 * vocabulary is smaller than the tokenizer's, or the shards are of another tokenizer. The caller closes *out.
 */
Status task_text_open(const TaskTextOptions *options, TaskText **out, Error *error);

/* Makes a sample: tokens (context + 1), of which the last *answers are the answer. STATUS_CONFIG when the
 * context is too short for all but filler, STATUS_DATA when the shards have not enough of that. */
Status task_text_sample(TaskText *text, const TaskTextPlace *place, int32_t *tokens, int64_t *answers,
                        Error *error);

/* Releases it; NULL is allowed. */
void task_text_close(TaskText *text);

#endif

/* The float64 answer to a case of tests/support/attention_runs.h, and how far results are from it. */
#ifndef RINGGPT_SUPPORT_ATTENTION_ANSWER_H
#define RINGGPT_SUPPORT_ATTENTION_ANSWER_H

#include "tests/support/attention64.h"
#include "tests/support/attention_runs.h"

/* The problem in double without holes, and its solution; shapes as in AttentionOutputs. */
typedef struct AttentionAnswer {
  Attention64 problem; /* reads first_key of the inputs, which must live as long */
  double *q;
  double *k;
  double *v;
  double *dout;
  double *out;
  double *lse;
  double *dq;
  double *dk;
  double *dv;
} AttentionAnswer;

/* Release with attention_answer_free. */
AttentionAnswer attention_answer(const AttentionCase *c, const AttentionInputs *in);
void attention_answer_free(AttentionAnswer *answer);

/* The distances of out, dq, dk and dv from the answer: the norm of the difference over the norm of what is
 * wanted, which counts as at least 0.1 per element, since a single visible key has gradients that are exactly
 * 0. NaN anywhere gives NaN. */
enum { ATTENTION_DISTANCES = 4 };
extern const char *const attention_distance_names[ATTENTION_DISTANCES];
void attention_distances(const AttentionCase *c, const AttentionOutputs *got, const AttentionAnswer *wanted,
                         double distances[ATTENTION_DISTANCES]);

#endif

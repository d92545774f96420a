/* The float64 answer to a case of attention: see the header. */
#include "tests/support/attention_answer.h"

#include <math.h>
#include <stdlib.h>

static double *to_double(int64_t length, int64_t row, int64_t stride, const float *from) {
  double *to = attention_memory((size_t)(length * row) * sizeof *to);
  for (int64_t i = 0; i < length; i++) {
    for (int64_t j = 0; j < row; j++) to[i * row + j] = (double)from[i * stride + j];
  }
  return to;
}

static double *zeros(int64_t count) {
  return attention_memory((size_t)count * sizeof(double));
}

AttentionAnswer attention_answer(const AttentionCase *c, const AttentionInputs *in) {
  const int64_t q_row = c->heads * c->head_dim;
  const int64_t k_row = c->kv_heads * c->head_dim;
  AttentionAnswer a = {.q = to_double(c->length, q_row, in->q_stride, in->q),
                       .k = to_double(c->length, k_row, in->k_stride, in->k),
                       .v = to_double(c->length, k_row, in->k_stride, in->v),
                       .dout = to_double(c->length, q_row, in->q_stride, in->dout),
                       .out = zeros(c->length * q_row),
                       .lse = zeros(c->length * c->heads),
                       .dq = zeros(c->length * q_row),
                       .dk = zeros(c->length * k_row),
                       .dv = zeros(c->length * k_row)};
  a.problem = (Attention64){.length = c->length,
                            .heads = c->heads,
                            .kv_heads = c->kv_heads,
                            .head_dim = c->head_dim,
                            .scale = (double)in->dims.scale,
                            .first_key = in->first_key,
                            .q = a.q,
                            .k = a.k,
                            .v = a.v};
  attention64_forward(&a.problem, a.out, a.lse);
  attention64_backward(&a.problem, a.dout, a.dq, a.dk, a.dv);
  return a;
}

void attention_answer_free(AttentionAnswer *answer) {
  free(answer->q);
  free(answer->k);
  free(answer->v);
  free(answer->dout);
  free(answer->out);
  free(answer->lse);
  free(answer->dq);
  free(answer->dk);
  free(answer->dv);
}

static double distance(int64_t count, const float *got, const double *wanted) {
  double difference = 0;
  double norm = 0;
  for (int64_t i = 0; i < count; i++) {
    const double error = (double)got[i] - wanted[i];
    difference += error * error;
    norm += wanted[i] * wanted[i];
  }
  return count > 0 ? sqrt(difference) / fmax(sqrt(norm), 0.1 * sqrt((double)count)) : 0;
}

const char *const attention_distance_names[ATTENTION_DISTANCES] = {"out", "dq", "dk", "dv"};

void attention_distances(const AttentionCase *c, const AttentionOutputs *got, const AttentionAnswer *wanted,
                         double distances[ATTENTION_DISTANCES]) {
  const int64_t q_count = c->length * c->heads * c->head_dim;
  const int64_t k_count = c->length * c->kv_heads * c->head_dim;
  distances[0] = distance(q_count, got->out, wanted->out);
  distances[1] = distance(q_count, got->dq, wanted->dq);
  distances[2] = distance(k_count, got->dk, wanted->dk);
  distances[3] = distance(k_count, got->dv, wanted->dv);
}

/* Vectorised cross-entropy: the body for any width of kernels/cpu/vector.h and any elements. A row of logits
 * is read once for the loss and once more for the gradient. */
#ifndef RINGGPT_CPU_VECTOR_LOSS_H
#define RINGGPT_CPU_VECTOR_LOSS_H

#include <math.h>

#include "kernels/cpu/poll.h"
#include "kernels/cpu/vector_element.h"
#include "kernels/device.h"

/* Logits whose maximum is found before their exponentials are summed: few enough to stay in the first cache.
 */
#define LOGITS_AT_A_TIME 2048

/* The largest of `least` and the logits. */
static float largest_logit(int64_t count, const Element *logits, float least) {
  Vector most[VECTOR_GROUP];
  int64_t j = 0;
  for (int k = 0; k < VECTOR_GROUP; k++) most[k] = vector_set(least);
  for (; j + GROUP_FLOATS <= count; j += GROUP_FLOATS) {
    for (int k = 0; k < VECTOR_GROUP; k++) {
      most[k] = vector_max(most[k], vector_load_elements(logits + j + k * VECTOR_FLOATS, VECTOR_FLOATS));
    }
  }
  for (; j + VECTOR_FLOATS <= count; j += VECTOR_FLOATS) {
    most[0] = vector_max(most[0], vector_load_elements(logits + j, VECTOR_FLOATS));
  }
  for (int k = 1; k < VECTOR_GROUP; k++) most[0] = vector_max(most[0], most[k]);
  float largest = vector_largest(most[0]);
  for (; j < count; j++) largest = fmaxf(largest, to_float(logits[j]));
  return largest;
}

/* x[k] = exp(logit - maximum) for the vectors of a group, `count` logits. */
GROUP_INLINE void exponentials(int vectors, const Element *logits, int64_t count, Vector maximum, Vector *x) {
  group_load_elements(vectors, logits, count, x);
  for (int k = 0; k < vectors; k++) x[k] -= maximum;
  group_exp(vectors, x);
}

/* The sum of exp(logit - maximum). A group's are added in float and their sums in double: all are positive,
 * so that next to nothing is lost. The logits after these are asked for meanwhile. */
static double sum_of_exponentials(int64_t count, const Element *logits, float maximum) {
  const Vector most = vector_set(maximum);
  DoubleSum sum = double_sum_zero();
  Vector x[VECTOR_GROUP];
  int64_t j = 0;
  for (; j + GROUP_FLOATS <= count; j += GROUP_FLOATS) {
    group_prefetch(logits + j + LOGITS_AT_A_TIME);
    exponentials(VECTOR_GROUP, logits + j, GROUP_FLOATS, most, x);
    for (int k = 1; k < VECTOR_GROUP; k++) x[0] += x[k];
    double_sum_add(&sum, x[0]);
  }
  for (; j + VECTOR_FLOATS <= count; j += VECTOR_FLOATS) {
    exponentials(1, logits + j, VECTOR_FLOATS, most, x);
    double_sum_add(&sum, x[0]);
  }
  double total = double_sum_total(&sum);
  for (; j < count; j++) total += exp((double)to_float(logits[j]) - (double)maximum);
  return total;
}

/* What the loss of a row and its gradient need. */
typedef struct Softmax {
  float maximum; /* of all logits */
  double others; /* sum of exp(logit - maximum) over all but the target */
  double sum;    /* over all */
} Softmax;

/* Reads the row in one pass (M. Milakov and N. Gimelshein, 2018). The target stands aside as -inf meanwhile
 * and stays that: beside its term of 1, the sum of the small ones is the loss itself. */
static Softmax softmax_statistics(int64_t vocab, Element *logits, int64_t target) {
  const float own = to_float(logits[target]);
  Softmax s = {.maximum = own};
  logits[target] = from_float(-INFINITY);
  for (int64_t first = 0; first < vocab; first += LOGITS_AT_A_TIME) {
    const int64_t count = vocab - first < LOGITS_AT_A_TIME ? vocab - first : LOGITS_AT_A_TIME;
    const float here = largest_logit(count, logits + first, s.maximum);
    if (here > s.maximum) s.others *= exp((double)s.maximum - (double)here);
    s.maximum = here;
    s.others += sum_of_exponentials(count, logits + first, here);
  }
  s.sum = s.others + exp((double)own - (double)s.maximum);
  return s;
}

/* logits = factor exp(logits - maximum) for the vectors of a group, `count` logits. */
GROUP_INLINE void probabilities(int vectors, int64_t count, Vector maximum, Vector factor, Element *logits) {
  Vector x[VECTOR_GROUP];
  exponentials(vectors, logits, count, maximum, x);
  for (int k = 0; k < vectors; k++) x[k] *= factor;
  group_store_elements(vectors, logits, x, count);
}

/* logits = softmax - one_hot(target). The target's own element is taken from the sum of the others. */
static void softmax_gradient(int64_t vocab, Element *logits, int64_t target, const Softmax *s) {
  const Vector factor = vector_set((float)(1.0 / s->sum));
  const Vector most = vector_set(s->maximum);
  int64_t j = 0;
  for (; j + GROUP_FLOATS <= vocab; j += GROUP_FLOATS) {
    probabilities(VECTOR_GROUP, GROUP_FLOATS, most, factor, logits + j);
  }
  for (; j < vocab; j += VECTOR_FLOATS) probabilities(1, vocab - j, most, factor, logits + j);
  logits[target] = from_float((float)(-s->others / s->sum));
}

static void vector_cross_entropy(Device *device, int64_t n, int64_t vocab, int64_t stride, elem *logits,
                                 const int32_t *targets, bool gradient, float *nll) {
  Element *rows = logits; /* (n, vocab), stride apart */
#pragma omp parallel for num_threads(device->threads) if (device->threads > 1)
  for (int64_t i = 0; i < n; i++) {
    poll_within(device, i, vocab);
    Element *row = rows + i * stride;
    if (targets[i] == IGNORED_TARGET) {
      nll[i] = 0.0F;
      for (int64_t j = 0; gradient && j < vocab; j++) row[j] = from_float(0.0F);
      continue;
    }
    const Element own = row[targets[i]]; /* softmax_statistics takes it out of the row */
    const Softmax s = softmax_statistics(vocab, row, targets[i]);
    nll[i] = (float)(((double)s.maximum - (double)to_float(own)) + log(s.sum));
    if (gradient) {
      softmax_gradient(vocab, row, targets[i], &s);
    } else {
      row[targets[i]] = own;
    }
  }
}

#endif

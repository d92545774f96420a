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

static inline float largest_logit(int64_t count, const Element *logits) {
  float largest = to_float(logits[0]);
  int64_t j = 0;
  if (count >= VECTOR_FLOATS) {
    Vector most = vector_load_elements(logits, VECTOR_FLOATS);
    for (; j + VECTOR_FLOATS <= count; j += VECTOR_FLOATS) {
      most = vector_max(most, vector_load_elements(logits + j, VECTOR_FLOATS));
    }
    largest = vector_largest(most);
  }
  for (; j < count; j++) largest = fmaxf(largest, to_float(logits[j]));
  return largest;
}

/* The sum of exp(logit - maximum). Whole vectors are summed in double: beside a term of 1, the sum of the
 * small ones is the loss itself. */
static inline double sum_of_exponentials(int64_t count, const Element *logits, float maximum) {
  DoubleSum sum = double_sum_zero();
  int64_t j = 0;
  for (; j + VECTOR_FLOATS <= count; j += VECTOR_FLOATS) {
    double_sum_add(&sum, vector_exp(vector_load_elements(logits + j, VECTOR_FLOATS) - vector_set(maximum)));
  }
  double total = double_sum_total(&sum);
  for (; j < count; j++) total += exp((double)to_float(logits[j]) - (double)maximum);
  return total;
}

/* The maximum of a row and the sum of exp(logit - maximum), in one pass (M. Milakov and N. Gimelshein, 2018).
 */
static inline void softmax_statistics(int64_t vocab, const Element *logits, float *maximum, double *sum) {
  float largest = -INFINITY;
  double total = 0;
  for (int64_t first = 0; first < vocab; first += LOGITS_AT_A_TIME) {
    const int64_t count = vocab - first < LOGITS_AT_A_TIME ? vocab - first : LOGITS_AT_A_TIME;
    const float here = fmaxf(largest, largest_logit(count, logits + first));
    if (first > 0 && here > largest) total *= exp((double)largest - (double)here);
    largest = here;
    total += sum_of_exponentials(count, logits + first, largest);
  }
  *maximum = largest;
  *sum = total;
}

/* logits = softmax - one_hot(target). The target's own element is taken from the sum of the others.
 */
static inline void softmax_gradient(int64_t vocab, Element *logits, int64_t target, float maximum,
                                    double sum) {
  const double others = sum - exp((double)to_float(logits[target]) - (double)maximum);
  const Vector factor = vector_set((float)(1.0 / sum));
  for (int64_t j = 0; j < vocab; j += VECTOR_FLOATS) {
    const Vector above = vector_load_elements(logits + j, vocab - j) - vector_set(maximum);
    vector_store_elements(logits + j, factor * vector_exp(above), vocab - j);
  }
  logits[target] = from_float((float)(-others / sum));
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
    float maximum = 0;
    double sum = 0;
    softmax_statistics(vocab, row, &maximum, &sum);
    nll[i] = (float)(((double)maximum - (double)to_float(row[targets[i]])) + log(sum));
    if (gradient) softmax_gradient(vocab, row, targets[i], maximum, sum);
  }
}

#endif

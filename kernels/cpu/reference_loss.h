/* Reference operations: cross-entropy and its gradient over rows of logits: the bodies for any elements. */
#ifndef RINGGPT_CPU_REFERENCE_LOSS_H
#define RINGGPT_CPU_REFERENCE_LOSS_H

#include <math.h>

#include "kernels/cpu/element.h"
#include "kernels/cpu/poll.h"
#include "kernels/device.h"

/* The loss of one row of at least one logit, (max - target logit) + log sum exp(logit - max): two terms that
 * are both accurate where the loss is small. Stores the maximum and the sum for the gradient. */
static double row_loss(int64_t vocab, const Element *logits, int64_t target, double *maximum, double *sum) {
  float largest = to_float(logits[0]);
  for (int64_t j = 1; j < vocab; j++) largest = fmaxf(largest, to_float(logits[j]));
  double total = exp((double)to_float(logits[0]) - (double)largest);
  for (int64_t j = 1; j < vocab; j++) total += exp((double)to_float(logits[j]) - (double)largest);
  *maximum = (double)largest;
  *sum = total;
  return ((double)largest - (double)to_float(logits[target])) + log(total);
}

static void row_gradient(int64_t vocab, Element *logits, int64_t target, double maximum, double sum) {
  for (int64_t j = 0; j < vocab; j++) {
    const double probability = exp((double)to_float(logits[j]) - maximum) / sum;
    logits[j] = from_float((float)(probability - (j == target ? 1.0 : 0.0)));
  }
}

static void reference_cross_entropy(Device *device, int64_t n, int64_t vocab, int64_t stride, elem *logits,
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
    double maximum = 0;
    double sum = 0;
    nll[i] = (float)row_loss(vocab, row, targets[i], &maximum, &sum);
    if (gradient) row_gradient(vocab, row, targets[i], maximum, sum);
  }
}

#endif

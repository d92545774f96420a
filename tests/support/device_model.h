/* Models that every device computes, against the float64 reference. */
#ifndef RINGGPT_SUPPORT_DEVICE_MODEL_H
#define RINGGPT_SUPPORT_DEVICE_MODEL_H

#include "tests/support/test_device.h"

/* gpt_case_check of a model of GPT-2's kind with documents and ignored targets, and of one of Llama's with
 * documents, grouped heads, a window, scaled positions and layers computed again. */
void device_model_check_gpt2(TestDevice device, const int (*grids)[2], int count);
void device_model_check_llama(TestDevice device, const int (*grids)[2], int count);

#endif

/* The backward kernels of attention for bf16, on tensor cores. */
#include "kernels/cuda/attention_backward.h"

template void attention_backward_launch<bf16>(Device *device, const BackwardWork<bf16> *work);

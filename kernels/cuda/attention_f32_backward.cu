/* The backward kernels of attention for float32. */
#include "kernels/cuda/attention_backward.h"

template void attention_backward_launch<float>(Device *device, const BackwardWork<float> *work);

/* The forward kernel of attention for float32. */
#include "kernels/cuda/attention_forward.h"

template void attention_forward_launch<float>(Device *device, const ForwardWork<float> *work);

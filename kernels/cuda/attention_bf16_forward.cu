/* The forward kernel of attention for bf16, on tensor cores. */
#include "kernels/cuda/attention_forward.h"

template void attention_forward_launch<bf16>(Device *device, const ForwardWork<bf16> *work);

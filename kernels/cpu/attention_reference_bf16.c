/* The reference attention with elements in bf16. */
#define ELEMENTS_ARE_BF16
#define ATTENTION_TABLE attention_reference_bf16
#include "kernels/cpu/attention_equations.h"

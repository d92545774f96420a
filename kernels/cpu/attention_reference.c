/* The reference attention with elements that are floats. */
#define ATTENTION_TABLE attention_reference
#include "kernels/cpu/attention_equations.h"

/* CUDA C for the host's compiler, as far as ringgpt's kernels and device layer use it: what <cuda_runtime.h>
 * of the toolkit gives, written anew for the emulator (emulator.h says how it works). */
#ifndef RINGGPT_EMULATED_CUDA_RUNTIME_H
#define RINGGPT_EMULATED_CUDA_RUNTIME_H

#include "emulated/arithmetic.h"
#include "emulated/keywords.h"
#include "emulated/runtime_api.h"
#include "emulated/threads.h"
#include "emulated/vectors.h"

#endif

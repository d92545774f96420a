/* Finds the CUDA device: loads the shared object that holds it when it is first asked for. The object is the
 * one that the environment variable RINGGPT_CUDA names, or ringgpt-cuda.so in the program's own folder. */
#ifndef RINGGPT_CUDA_LOAD_H
#define RINGGPT_CUDA_LOAD_H

#include "kernels/device.h"

/* *devices: CUDA devices that this process can use, at least 1. STATUS_CONFIG where there is none, with the
 * reason: no shared object beside the program, one that is not of this build or lacks libraries, no driver,
 * no GPU. */
Status cuda_device_count(int *devices, Error *error);

/* Makes CUDA device `index` ready for one rank, with elements of one type; several ranks may share it. It
 * belongs to the calling thread and is released by device_destroy. STATUS_CONFIG as cuda_device_count, or
 * where there is no device of this number; STATUS_SYSTEM where it has not the memory. */
Status cuda_device_create(int index, ElementType elements, Device **out, Error *error);

#endif

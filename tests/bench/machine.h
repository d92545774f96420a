/* The devices that are measured. */
#ifndef RINGGPT_BENCH_MACHINE_H
#define RINGGPT_BENCH_MACHINE_H

#include "tests/bench/measure.h"

/* Makes the devices of the bench, in each type of elements that this machine has, and prepares the peaks;
 * says on stdout what they are, and what is missing. STATUS_CONFIG where there is no such device. On failure
 * nothing is left. */
Status machine_open(Bench *bench, int units, Error *error);
void machine_close(Bench *bench);

#endif

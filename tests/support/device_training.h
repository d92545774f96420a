/* Training runs that are the same but for device, precision and grid: what a test of a device compares. */
#ifndef RINGGPT_SUPPORT_DEVICE_TRAINING_H
#define RINGGPT_SUPPORT_DEVICE_TRAINING_H

#include "tests/support/training.h"

enum { DEVICE_STEPS = 6, DEVICE_HALF = 3 };

/* A run of configs/tiny.yaml made smaller still, for the emulator. */
typedef struct DeviceRun {
  const char *name;
  const char *device;
  const char *precision;
  int ring;
  int data;
  int steps;
  int threads; /* of a rank on the CPU; 0: as the configuration has it */
} DeviceRun;

/* Its configuration, after training_set_up. */
Config device_training_config(void **state, const DeviceRun *run);

/* Trains; fails the running test if training fails. */
Metrics device_training_run(void **state, const DeviceRun *run);

/* The run of all steps on the CPU in fp32 on one rank. */
Metrics device_training_on_cpu(void **state);

/* The largest difference of two runs' losses, relative to the loss; both have DEVICE_STEPS. */
double device_training_difference(const Metrics *a, const Metrics *b);

/* Fail the running test unless on `device` ...
 *   losses in bf16, on rings of one and two, differ from those of the CPU in fp32, by less than 0.5 %;
 *   the weights in the checkpoint of a run in bf16 are floats;
 *   a run gives the same bits again, and when it is cut into two. */
void device_training_check_bf16(void **state, const char *device);
void device_training_check_masters(void **state, const char *device);
void device_training_check_resume(void **state, const char *device, const char *precision);

#endif

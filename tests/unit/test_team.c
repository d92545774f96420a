/* Threads are started before the first step and never within one; those that read data compute as if there
 * were no device. Starts are counted by a pthread_create of this program's own, which the libraries call too.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "data/loader.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"
#include "tests/support/training.h"
#include "tests/support/unit.h"

/* ---------------------------------------------------------------- counting */

typedef int (*CreateThread)(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                            void *argument);

/* The only way from an interposed function to a test. */
static atomic_int started;  /* threads */
static atomic_int flushing; /* of them: computed with subnormal numbers as zero when they ended */

typedef struct Start {
  void *(*start)(void *);
  void *argument;
} Start;

static __attribute__((noinline)) bool flushes(void) {
  volatile float small = 0x1p-140F;
  volatile float factor = 0x1p20F;
  volatile float product = small * factor;
  return !(product > 0.0F);
}

/* Without a variable in memory: OpenMP's threads end within `start`, and the address sanitizer would find
 * what it guards such variables with still there. */
static void *start_counted(void *argument) {
  Start *counted = argument;
  void *(*start)(void *) = counted->start;
  argument = counted->argument;
  free(counted);
  void *result = start(argument);
  if (flushes()) atomic_fetch_add(&flushing, 1);
  return result;
}

int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
                   void *(*start)(void *), void *restrict argument) {
  CreateThread create = NULL;
  *(void **)&create = dlsym(RTLD_NEXT, "pthread_create");
  Start *counted = malloc(sizeof *counted);
  if (create == NULL || counted == NULL) abort();
  *counted = (Start){.start = start, .argument = argument};
  atomic_fetch_add(&started, 1);
  const int code = create(thread, attributes, start_counted, counted);
  if (code != 0) free(counted);
  return code;
}

/* ---------------------------------------------------------------- training */

/* Threads that a run of so many steps starts. */
static int run_of(void **state, const char *name, const char *const overrides[], int steps) {
  enum { MOST = 12 };
  const char *all[MOST] = {NULL};
  char count[32];
  char directory[48];
  int used = 0;
  (void)snprintf(count, sizeof count, "train.steps=%d", steps);
  (void)snprintf(directory, sizeof directory, "%s-%d", name, steps);
  all[used++] = count;
  for (int i = 0; overrides[i] != NULL && used < MOST - 1; i++) all[used++] = overrides[i];
  const Config config = training_config(training_directory(state), directory, all);
  const int before = atomic_load(&started);
  const Metrics metrics = training_metrics(&config);
  assert_int_equal(metrics.count, steps);
  return atomic_load(&started) - before;
}

/* Runs of 2 and of 8 steps start as many threads, so that steps 3 to 8 start none. What is larger than
 * tiny.yaml makes teams of all sizes: operations of one thread, products of one block and of several. */
static void check_steps(void **state, const char *name, const char *const overrides[]) {
  const int few = run_of(state, name, overrides, 2);
  const int many = run_of(state, name, overrides, 8);
  assert_true(few >= 2); /* at least the thread of the signals and the loader's: the count counts */
  assert_int_equal(many, few);
}

static int usable_cores(void) {
  cpu_set_t set;
  assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
  return CPU_COUNT(&set);
}

static void test_no_thread_within_a_step(void **state) {
  const char *const one[] = {"parallelism.ring=1",    "parallelism.threads=2",     "checkpoint.every=0",
                             "model.hidden_size=128", "train.sequence_length=512", NULL};
  const char *const two[] = {"parallelism.ring=2",    "parallelism.threads=2",     "checkpoint.every=0",
                             "model.hidden_size=128", "train.sequence_length=512", NULL};
  if (usable_cores() < 2) skip();
  check_steps(state, "one", one);
  check_steps(state, "two", two);
}

/* ---------------------------------------------------------------- data */

/* A loader that the owner of a device opens. */
static void test_loader_is_no_compute_thread(void **state) {
  char *pattern = training_path(training_directory(state), "data/train_*.bin.gz");
  const LoaderOptions options = {.pattern = pattern,
                                 .vocab_size = 257,
                                 .end_of_document = 256,
                                 .sequence_length = 64,
                                 .micro_batch = 1,
                                 .ring_size = 1,
                                 .data_size = 1,
                                 .read_ahead = 1};
  Error error = {0};
  Device *device = NULL;
  Loader *loader = NULL;
  expect_ok(cpu_device_create(1, ELEMENT_F32, &device, &error), &error);
  const int before = atomic_load(&started);
  atomic_store(&flushing, 0);
  expect_ok(loader_open(&options, &loader, &error), &error);
  loader_close(loader);
  assert_int_equal(atomic_load(&started), before + 1);
  assert_int_equal(atomic_load(&flushing), 0);
  device_destroy(device);
  free(pattern);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_no_thread_within_a_step),
      cmocka_unit_test(test_loader_is_no_compute_thread),
  };
  return cmocka_run_group_tests(tests, training_set_up, temp_dir_tear_down);
}

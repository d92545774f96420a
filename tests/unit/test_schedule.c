/* The learning rate and the sequence length of every step. */
#include <math.h>

#include "tests/support/unit.h"
#include "train/schedule.h"

static Config base(SchedulerKind name) {
  Config config = {0};
  config.train.steps = 110;
  config.train.sequence_length = 8192;
  config.train.micro_batch_size = 2;
  config.train.global_batch_size = 6;
  config.optimizer.learning_rate = 0.5;
  config.scheduler = (SchedulerConfig){.name = name, .warmup_steps = 10, .min_lr_ratio = 0.1};
  return config;
}

static void assert_near(double got, double expected) {
  if (!(fabs(got - expected) <= 1e-15)) fail_msg("got %.17g, expected %.17g", got, expected);
}

static void test_warmup(void **state) {
  (void)state;
  for (int kind = SCHEDULER_COSINE; kind <= SCHEDULER_WSD; kind++) {
    Config config = base((SchedulerKind)kind);
    config.scheduler.decay_steps = 20;
    assert_near(schedule_learning_rate(&config, 0), 0.05);
    assert_near(schedule_learning_rate(&config, 4), 0.25);
    assert_near(schedule_learning_rate(&config, 9), 0.5);
    assert_near(schedule_learning_rate(&config, 10), 0.5);
    config.scheduler.warmup_steps = 0;
    assert_near(schedule_learning_rate(&config, 0), 0.5);
  }
}

static void test_constant(void **state) {
  (void)state;
  const Config config = base(SCHEDULER_CONSTANT);
  for (int64_t step = 10; step < 110; step++) assert_near(schedule_learning_rate(&config, step), 0.5);
}

static void test_linear(void **state) {
  (void)state;
  const Config config = base(SCHEDULER_LINEAR);
  assert_near(schedule_learning_rate(&config, 60), 0.275);
  assert_near(schedule_learning_rate(&config, 109), 0.5 - 0.45 * 0.99);
  assert_near(schedule_learning_rate(&config, 110), 0.05);
  assert_near(schedule_learning_rate(&config, 500), 0.05);
}

static void test_cosine(void **state) {
  (void)state;
  const Config config = base(SCHEDULER_COSINE);
  assert_near(schedule_learning_rate(&config, 60), 0.275);
  /* A third of the half wave: cos(pi / 3) = 1 / 2. */
  Config thirds = config;
  thirds.train.steps = 310;
  assert_near(schedule_learning_rate(&thirds, 110), 0.05 + 0.45 * 0.75);
  assert_near(schedule_learning_rate(&config, 110), 0.05);
  for (int64_t step = 11; step < 110; step++)
    assert_true(schedule_learning_rate(&config, step) < schedule_learning_rate(&config, step - 1));
}

static void test_wsd(void **state) {
  (void)state;
  Config config = base(SCHEDULER_WSD);
  config.scheduler.decay_steps = 20;
  for (int64_t step = 10; step <= 90; step++) assert_near(schedule_learning_rate(&config, step), 0.5);
  assert_near(schedule_learning_rate(&config, 95), 0.5 - 0.45 * 0.25);
  assert_near(schedule_learning_rate(&config, 100), 0.275);
  assert_near(schedule_learning_rate(&config, 110), 0.05);
}

static void test_warmup_that_fills_the_run(void **state) {
  (void)state;
  Config config = base(SCHEDULER_COSINE);
  config.train.steps = config.scheduler.warmup_steps = 10;
  assert_near(schedule_learning_rate(&config, 9), 0.5);
  assert_near(schedule_learning_rate(&config, 10), 0.05);
}

static void assert_stage(const Config *config, int64_t step, SequenceStage expected) {
  const SequenceStage stage = schedule_stage(config, step);
  assert_int_equal(stage.index, expected.index);
  assert_int_equal(stage.first_step, expected.first_step);
  assert_int_equal(stage.end_step, expected.end_step);
  assert_int_equal(stage.sequence_length, expected.sequence_length);
  assert_int_equal(stage.micro_batch_size, expected.micro_batch_size);
  assert_int_equal(stage.global_batch_size, expected.global_batch_size);
  assert_int_equal(stage.global_batch_size * stage.sequence_length, schedule_step_tokens(config));
}

static void test_one_length(void **state) {
  (void)state;
  const Config config = base(SCHEDULER_COSINE);
  const SequenceStage only = {0, 0, 110, 8192, 2, 6};
  assert_stage(&config, 0, only);
  assert_stage(&config, 109, only);
  assert_int_equal(schedule_step_tokens(&config), 6 * 8192);
}

static void test_stages(void **state) {
  (void)state;
  Config config = base(SCHEDULER_COSINE);
  config.train.sequence_schedule =
      (SequenceSchedule){.count = 3, .first_steps = {0, 30, 31}, .lengths = {1024, 8192, 2048}};
  const SequenceStage first = {0, 0, 30, 1024, 16, 48};
  const SequenceStage second = {1, 30, 31, 8192, 2, 6};
  const SequenceStage third = {2, 31, 110, 2048, 8, 24};
  assert_stage(&config, 0, first);
  assert_stage(&config, 29, first);
  assert_stage(&config, 30, second);
  assert_stage(&config, 31, third);
  assert_stage(&config, 109, third);
  /* A run that ends before a stage begins. */
  config.train.steps = 20;
  assert_stage(&config, 19, (SequenceStage){0, 0, 20, 1024, 16, 48});
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_warmup),     cmocka_unit_test(test_constant),
      cmocka_unit_test(test_linear),     cmocka_unit_test(test_cosine),
      cmocka_unit_test(test_wsd),        cmocka_unit_test(test_warmup_that_fills_the_run),
      cmocka_unit_test(test_one_length), cmocka_unit_test(test_stages),
  };
  return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}

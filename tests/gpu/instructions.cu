/* Runs the cases of instruction_cases.h on the device that there is: a GPU, when compiled by nvcc, or the
 * emulator. It says which, and ends with the lines by which tests/run.sh counts. */
#include "tests/gpu/instruction_cases.h"

struct InstructionCase {
  const char *name;
  bool (*holds)(void);
};

static const InstructionCase instruction_cases[] = {
    {"mma: integers", case_mma_of_integers},
    {"mma: float accumulation", case_mma_accumulates_in_float},
    {"mma: special numbers", case_mma_of_special_numbers},
    {"ldmatrix", case_load_by_rows},
    {"ldmatrix, transposed", case_load_by_columns},
    {"cp.async, ldmatrix and mma", case_product_through_shared_memory},
    {"cp.async: groups", case_groups_land_in_order},
    {"pack: rounding", case_pack_rounds_to_nearest_even},
    {"Philox", case_philox_gives_the_known_answers},
};

int main(void) {
  int passed = 0;
  int failed = 0;
  cudaDeviceProp properties;
  case_need(cudaGetDeviceProperties(&properties, 0), "no CUDA device");
  (void)printf("on %s, sm_%d%d\n", properties.name, properties.major, properties.minor);
  for (const InstructionCase &instruction : instruction_cases) {
    const bool holds = instruction.holds();
    (void)printf("[ %s ] %s\n", holds ? "      OK" : " FAILED ", instruction.name);
    passed += holds;
    failed += !holds;
  }
  (void)printf("[  PASSED  ] %d test(s).\n", passed);
  if (failed > 0) (void)printf("[  FAILED  ] %d test(s), listed below:\n", failed);
  return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

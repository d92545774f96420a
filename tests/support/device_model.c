/* Models that every device computes: see the header. */
#include "tests/support/device_model.h"

#include "tests/support/gpt_case.h"

void device_model_check_gpt2(TestDevice device, const int (*grids)[2], int count) {
  const GptCase test = {.config = gpt2_config(2, 2, 16),
                        .sequences = 2,
                        .sequence_length = 75,
                        .loss_chunk = 64,
                        .document_mask = true,
                        .ignore_every = 5,
                        .threads = 1,
                        .device = device};
  gpt_case_check("GPT-2 with documents", &test, grids, count);
}

void device_model_check_llama(TestDevice device, const int (*grids)[2], int count) {
  GptCase test = {.config = llama_config(2, 4, 2, 8, false),
                  .sequences = 2,
                  .sequence_length = 70,
                  .loss_chunk = 50,
                  .document_mask = true,
                  .recompute = true,
                  .threads = 1,
                  .device = device};
  test.config.sliding_window = 23;
  test.config.rope_scaling = (RopeScaling){.rope_type = ROPE_YARN,
                                           .factor = 4,
                                           .original_max_position_embeddings = 32,
                                           .beta_fast = 4,
                                           .beta_slow = 0.25,
                                           .attention_factor = 1.5,
                                           .truncate = true};
  gpt_case_check("Llama with documents, window and scaled positions", &test, grids, count);
}

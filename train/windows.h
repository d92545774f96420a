/* Which windows of a set of tokens an evaluation computes, and which of their positions it scores. Position p
 * of a window is scored by the token behind it, given all tokens of the window up to p.
 *
 * Full: windows of `context` positions one behind the other, all positions; the token behind the last
 * position is the first of the next window.
 *
 * Strided: windows of `context` tokens, each `stride` tokens further than the one before; of every window but
 * the first only the tokens that the one before did not have are scored. The last ends with the set and may
 * be shorter. That is the convention of Hugging Face ("Perplexity of fixed-length models" of the transformers
 * documentation).
 *
 * llama.cpp: windows of `context` tokens one behind the other; in each the positions context/2 ... context -
 * 2, as in the perplexity tool of llama.cpp, without its token for the beginning of a text.
 */
#ifndef RINGGPT_TRAIN_WINDOWS_H
#define RINGGPT_TRAIN_WINDOWS_H

#include <stdint.h>

#include "kernels/base/status.h"
#include "train/config.h"

typedef struct Windows {
  EvalMode mode;
  int64_t context;
  int64_t stride; /* tokens from the start of a window to the start of the next */
  int64_t count;
  int64_t tokens; /* of the set, of which the windows are made */
} Windows;

/* The windows of `context` tokens that eval.mode, eval.stride and eval.tokens ask for, in a set of
 * `available` tokens named `source`. STATUS_DATA where it is shorter than one window. */
Status windows_plan(const EvalConfig *eval, int64_t context, int64_t available, const char *source,
                    Windows *out, Error *error);

/* Positions of window w. */
int64_t windows_length(const Windows *windows, int64_t w);

/* The first position of window w that is scored; all behind it that have a target in the window are, too. */
int64_t windows_first_scored(const Windows *windows, int64_t w);

/* The name of a mode in output and JSON, such as "strided". */
const char *windows_mode_name(EvalMode mode);

#endif

/* Which windows of a set of tokens an evaluation computes. */
#include "train/windows.h"

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static int64_t greatest(int64_t a, int64_t b) {
  return a > b ? a : b;
}

/* Behind its last position, a window of mode full needs a target. */
static Status check_length(int64_t context, int64_t needed, int64_t available, const char *source,
                           Error *error) {
  if (available >= needed) return STATUS_OK;
  return fail(error, STATUS_DATA,
              "%s: holds %lld tokens, too few for a window of %lld%s: give more text or a shorter context",
              source, (long long)available, (long long)context,
              needed > context ? " and the target of its last position" : "");
}

Status windows_plan(const EvalConfig *eval, int64_t context, int64_t available, const char *source,
                    Windows *out, Error *error) {
  const int64_t behind = eval->mode == EVAL_FULL ? 1 : 0;
  *out = (Windows){.mode = eval->mode, .context = context, .stride = context};
  TRY(check_length(context, context + behind, available, source, error));
  out->tokens = available;
  if (eval->tokens > 0) out->tokens = least(available, greatest(eval->tokens, context) + behind);
  if (eval->mode == EVAL_STRIDED) {
    out->stride = eval->stride > 0 ? eval->stride : greatest(context / 2, 1);
    /* Window by window until one reaches the end. */
    out->count = 1 + (out->tokens - context + out->stride - 1) / out->stride;
  } else {
    out->count = (out->tokens - behind) / context;
    out->tokens = out->count * context + behind;
  }
  return STATUS_OK;
}

int64_t windows_length(const Windows *windows, int64_t w) {
  return least(windows->context, windows->tokens - w * windows->stride);
}

int64_t windows_first_scored(const Windows *windows, int64_t w) {
  if (windows->mode == EVAL_LLAMA_CPP) return windows->context / 2;
  if (windows->mode == EVAL_FULL || w == 0) return 0;
  /* The first new token is the target of the position before it, if that is in the window. */
  return greatest(windows->context - windows->stride - 1, 0);
}

const char *windows_mode_name(EvalMode mode) {
  static const char *const names[] = {
      [EVAL_FULL] = "full prefix", [EVAL_STRIDED] = "strided", [EVAL_LLAMA_CPP] = "llama.cpp"};
  return names[mode];
}

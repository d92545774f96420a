/* The tokenizer of GPT-2: splits text into words by a pattern and encodes each by merging pairs of its bytes.
 */
#define PCRE2_CODE_UNIT_WIDTH 8

#include "data/tokenizer_gpt2.h"

#include <pcre2.h>
#include <stdlib.h>

#include "data/bpe.h"
#include "data/gpt2_files.h"
#include "data/utf8.h"

/* White space as Unicode has it; \s would be another set in PCRE2 (it has U+180E). */
#define SPACE                                                                                                \
  "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

/* The words of GPT-2. Every character starts a match of one of the branches. */
#define WORD_PATTERN                                                                                         \
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" SPACE "\\p{L}\\p{N}]+|[" SPACE "]+(?![^" SPACE          \
  "])|[" SPACE "]+"

/* A word is known to end only when this many bytes are behind it: the pattern looks at most two characters
 * ahead, of four bytes at most each. */
#define WORD_LOOK_AHEAD 8

typedef struct Gpt2 {
  Tokenizer base;
  Gpt2Files files;
  pcre2_code *pattern;
  pcre2_match_data *match;
} Gpt2;

static Status compile_pattern(Gpt2 *gpt2, Error *error) {
  int problem = 0;
  PCRE2_SIZE place = 0;
  gpt2->pattern = pcre2_compile((PCRE2_SPTR)WORD_PATTERN, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_ANCHORED,
                                &problem, &place, NULL);
  if (gpt2->pattern == NULL) {
    return fail(error, STATUS_INTERNAL, "the pattern of words does not compile: PCRE2 error %d at %zu",
                problem, place);
  }
  /* Where the machine allows no code made at run time, the pattern is interpreted. */
  (void)pcre2_jit_compile(gpt2->pattern, PCRE2_JIT_COMPLETE);
  gpt2->match = pcre2_match_data_create_from_pattern(gpt2->pattern, NULL);
  if (gpt2->match == NULL) return fail(error, STATUS_SYSTEM, "no memory left for a tokenizer");
  return STATUS_OK;
}

/* The length of the word at the start of `text`, which is valid UTF-8. */
static Status match_word(Gpt2 *gpt2, const char *text, size_t bytes, size_t *word, Error *error) {
  const int result =
      pcre2_match(gpt2->pattern, (PCRE2_SPTR)text, bytes, 0, PCRE2_NO_UTF_CHECK, gpt2->match, NULL);
  if (result < 0)
    return fail(error, STATUS_INTERNAL, "the words of a text are not found: PCRE2 error %d", result);
  *word = pcre2_get_ovector_pointer(gpt2->match)[1];
  return STATUS_OK;
}

static Status gpt2_encode(Tokenizer *tokenizer, const char *text, size_t bytes, bool last, size_t *used,
                          TokenList *list, Error *error) {
  Gpt2 *gpt2 = (Gpt2 *)tokenizer;
  size_t valid_end = 0; /* text up to here is valid UTF-8, what is there is not */
  size_t at = 0;
  while (at < bytes) {
    size_t word = 1; /* a byte that is not UTF-8 is a word */
    if (at >= valid_end) valid_end = at + utf8_valid_prefix(text + at, bytes - at);
    if (at < valid_end) TRY(match_word(gpt2, text + at, valid_end - at, &word, error));
    if (!last && bytes - at - word < WORD_LOOK_AHEAD) break;
    TRY(bpe_encode(gpt2->files.bpe, text + at, word, list, error));
    at += word;
  }
  *used = at;
  return STATUS_OK;
}

static Status gpt2_decode(Tokenizer *tokenizer, int32_t token, const char **text, size_t *bytes,
                          Error *error) {
  const Gpt2Files *files = &((Gpt2 *)tokenizer)->files;
  (void)error; /* tokenizer_decode has checked the token */
  *text = files->text + files->starts[token];
  *bytes = (size_t)(files->starts[token + 1] - files->starts[token]);
  return STATUS_OK;
}

static void gpt2_close(Tokenizer *tokenizer) {
  Gpt2 *gpt2 = (Gpt2 *)tokenizer;
  pcre2_match_data_free(gpt2->match);
  pcre2_code_free(gpt2->pattern);
  gpt2_files_free(&gpt2->files);
  free(gpt2);
}

static const TokenizerTable gpt2_table = {.encode = gpt2_encode, .decode = gpt2_decode, .close = gpt2_close};

Status tokenizer_gpt2_open(const char *directory, Tokenizer **out, Error *error) {
  *out = NULL;
  Status status = STATUS_OK;
  Gpt2 *gpt2 = calloc(1, sizeof *gpt2);
  if (gpt2 == NULL) return fail(error, STATUS_SYSTEM, "no memory left for a tokenizer");
  gpt2->base.table = &gpt2_table;
  TRY_GOTO(compile_pattern(gpt2, error), close);
  TRY_GOTO(gpt2_files_read(directory, &gpt2->files, error), close);
  gpt2->base.vocab_size = gpt2->files.vocab_size;
  gpt2->base.end_of_document = gpt2->files.end_of_document;
  *out = &gpt2->base;
  return STATUS_OK;
close:
  gpt2_close(&gpt2->base);
  return status;
}

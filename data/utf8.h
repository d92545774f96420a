/* UTF-8, strictly: no overlong forms, no surrogates, nothing beyond U+10FFFF (RFC 3629). */
#ifndef RINGGPT_DATA_UTF8_H
#define RINGGPT_DATA_UTF8_H

#include <stddef.h>

/* The length of the longest prefix of `text` that is valid UTF-8. */
size_t utf8_valid_prefix(const char *text, size_t bytes);

#endif

/* The tokenizer of GPT-2: byte-level byte-pair encoding (A. Radford et al., "Language models are unsupervised
 * multitask learners", 2019; R. Sennrich et al., 2016). */
#ifndef RINGGPT_DATA_TOKENIZER_GPT2_H
#define RINGGPT_DATA_TOKENIZER_GPT2_H

#include "data/tokenizer.h"
#include "kernels/base/status.h"

/* Reads the vocabulary from DIRECTORY/vocab.json (or encoder.json) and the merges from DIRECTORY/merges.txt
 * (or vocab.bpe). The document's end is the entry "<|endoftext|>", 50256 in GPT-2's own. STATUS_NO_INPUT when
 * a file is missing, STATUS_DATA with file and line when one is damaged. */
Status tokenizer_gpt2_open(const char *directory, Tokenizer **out, Error *error);

#endif

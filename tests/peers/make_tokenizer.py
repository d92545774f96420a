"""Makes a small tokenizer of GPT-2's kind from texts.

    python make_tokenizer.py DIRECTORY TEXT...

DIRECTORY gets vocab.json and merges.txt.
"""

import json
import pathlib
import sys

import tokenizers

VOCABULARY = 400
END = "<|endoftext|>"


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True)
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train(sys.argv[2:], vocab_size=VOCABULARY - 1, show_progress=False)
    trained.save_model(str(directory))
    path = directory / "vocab.json"
    vocabulary = json.loads(path.read_text())
    vocabulary[END] = len(vocabulary)
    path.write_text(json.dumps(vocabulary, ensure_ascii=False))


if __name__ == "__main__":
    main()

"""The comparison of tests/peers/check.sh with Hugging Face transformers.

    python check_peers.py LOGITS WORK CHECKPOINT...

LOGITS is the program of tests/peers/logits.c, WORK a folder for files, and each CHECKPOINT a directory that ringgpt
saved. Ends with status 1 and the reasons where anything differs.
"""

import gzip
import json
import logging
import pathlib
import subprocess
import sys
import warnings

import numpy
import safetensors.numpy
import torch
import transformers

import make_models

LOGITS_BOUND = 1e-5  # of the largest logit
LOSS_BOUND = 1e-6
STORED = pathlib.Path(__file__).parent


class Report:
    def __init__(self):
        self.failed = False

    def line(self, good, text):
        self.failed |= not good
        print(f"{'ok    ' if good else 'FAILED'} {text}")


class Messages(logging.Handler):
    """What transformers has to say while it loads a model."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


def relative(got, expected):
    return float(numpy.abs(got - expected).max() / numpy.abs(expected).max())


def check_stored(report, work, name):
    """The models of this folder are those that the script makes now."""
    made, stored = work / "models" / name, STORED / name
    configs = [json.loads((folder / "config.json").read_text()) for folder in (made, stored)]
    for config in configs:
        config.pop("transformers_version")
    report.line(configs[0] == configs[1], f"{name}: the stored config.json is what transformers writes")
    tensors = [safetensors.numpy.load_file(folder / "model.safetensors") for folder in (made, stored)]
    same = tensors[0].keys() == tensors[1].keys() and all(
        numpy.array_equal(tensor, tensors[1][key]) for key, tensor in tensors[0].items())
    report.line(same, f"{name}: the stored weights are what the script makes")
    expected = [json.loads((folder / "expected.json").read_text()) for folder in (made, stored)]
    error = relative(numpy.array(expected[1]["logits"]), numpy.array(expected[0]["logits"]))
    report.line(expected[0]["tokens"] == expected[1]["tokens"] and error < LOGITS_BOUND,
                f"{name}: the stored logits are those of this transformers: {error:.1e}")


def ours(program, work, checkpoint, tokens):
    """Logits and loss of this program."""
    paths = work / "tokens.bin", work / "logits.bin"
    numpy.array(tokens, dtype="<i4").tofile(paths[0])
    done = subprocess.run([program, checkpoint, *paths], check=True, stdout=subprocess.PIPE, text=True)
    return numpy.fromfile(paths[1], dtype="<f4").reshape(len(tokens), -1), float(done.stdout)


def load(report, checkpoint):
    """A checkpoint of ours as transformers loads it, in float64; silence is part of the check."""
    messages = Messages()
    transformers.logging.add_handler(messages)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint, dtype=torch.float64, output_loading_info=True)
    transformers.logging.remove_handler(messages)
    told = messages.texts + [str(warning.message) for warning in caught]
    told += [f"{kind}: {keys}" for kind, keys in info.items() if keys]
    report.line(not told, f"{checkpoint.parts[-3]}: {type(model).__name__} loads our checkpoint "
                + (f"but says {told}" if told else "without a word"))
    return model


def check_checkpoint(report, program, work, checkpoint):
    name = checkpoint.parts[-3]
    model = load(report, checkpoint)
    text = (STORED / "check_peers.py").read_bytes()[:200]
    # The longer one last: with dynamic scaling transformers keeps the frequencies of the longest that it has seen.
    for what, tokens in (("random tokens", numpy.random.RandomState(3).randint(257, size=150).tolist()),
                         ("text", list(text))):
        expected, expected_loss = make_models.forward(model, tokens)
        logits, loss = ours(program, work, checkpoint, tokens)
        error = relative(logits, expected)
        report.line(error < LOGITS_BOUND, f"{name}: logits of {what}: {error:.1e} of the largest")
        report.line(abs(loss - expected_loss) < LOSS_BOUND,
                    f"{name}: loss of {what}: {loss:.6f}, {abs(loss - expected_loss):.1e} apart")


def read_shards(folder):
    """The tokens of all training shards: a header of 256 int32, then tokens of 16 bits."""
    parts = []
    for path in sorted(folder.glob("train_*.bin.gz")):
        parts.append(numpy.frombuffer(gzip.decompress(path.read_bytes())[1024:], dtype="<u2"))
    return numpy.concatenate(parts).tolist()


def check_tokenizer(report, work, name):
    """The tokenizer that a checkpoint carries gives the tokens on which it was trained."""
    checkpoint = work / name / "checkpoints" / "step_00000002"
    # transformers takes no vocab.json for AutoTokenizer beside a model of Mistral's type.
    kind = transformers.GPT2Tokenizer if name == "words_mistral" else transformers.AutoTokenizer
    tokenizer = kind.from_pretrained(checkpoint)
    end = json.loads((checkpoint / "config.json").read_text())["eos_token_id"]
    expected = []
    for path in sorted((work / "texts").iterdir()):
        expected += tokenizer(path.read_bytes().decode("utf-8"))["input_ids"] + [end]
    report.line(tokenizer.eos_token_id == end, f"{name}: the document ends by the same token, {end}")
    report.line(expected == read_shards(work / "words"),
                f"{name}: {kind.__name__} gives the {len(expected)} tokens of the shards")


def main():
    program, work = sys.argv[1], pathlib.Path(sys.argv[2])
    report = Report()
    transformers.logging.disable_progress_bar()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    for seed, (name, config) in enumerate(make_models.MODELS.items()):
        make_models.make(work / "models" / name, config, seed)
        check_stored(report, work, name)
    for checkpoint in sys.argv[3:]:
        check_checkpoint(report, program, work, pathlib.Path(checkpoint))
    for name in ("words_llama", "words_gpt2", "words_mistral"):
        check_tokenizer(report, work, name)
    sys.exit(report.failed)


if __name__ == "__main__":
    main()

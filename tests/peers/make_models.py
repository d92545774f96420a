"""Makes the two small models of random weights that tests/unit/test_peers.c reads, with Hugging Face transformers.

    python make_models.py DIRECTORY

DIRECTORY/gpt2 and DIRECTORY/llama each get config.json and model.safetensors as save_pretrained writes them, and
expected.json: token ids, the logits behind each of them from a forward pass in float64, and the mean loss of each
token's successor. The models in this folder were made with the versions that check.sh installs; others may write
another config.json and round the logits otherwise.
"""

import json
import pathlib
import sys

import numpy
import torch
import transformers

TOKENS = 32
VOCABULARY = 61

MODELS = {
    "gpt2": transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=40, n_embd=24, n_layer=2, n_head=3, n_inner=80,
        layer_norm_epsilon=1e-4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=0, eos_token_id=0),
    # Grouped heads, and neither theta nor epsilon are what they are where nothing is said.
    "llama": transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, max_position_embeddings=64, rms_norm_eps=3e-5, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0}, bos_token_id=0, eos_token_id=0),
}


def set_weights(model, random):
    """Weights large enough that attention is far from even; scales of norms around 1; biases that count."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = random.standard_normal(tuple(parameter.shape)) * (0.3 if parameter.dim() == 2 else 0.2)
            if parameter.dim() == 1 and name.endswith("weight"):
                values += 1
            parameter.copy_(torch.from_numpy(values))


def forward(model, tokens):
    """The logits (T, V) and the mean loss, in float64."""
    ids = torch.tensor([tokens])
    with torch.no_grad():
        logits = model.double().eval()(input_ids=ids).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])
    return logits.numpy(), float(loss)


def make(directory, config, seed):
    # The stream of RandomState is frozen: the same numbers in every version of numpy.
    random = numpy.random.RandomState(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    set_weights(model, random)
    model.save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    tokens = random.randint(VOCABULARY, size=TOKENS).tolist()
    logits, loss = forward(model, tokens)
    rows = ",\n".join("[" + ",".join(f"{value:.8g}" for value in row) + "]" for row in logits)
    (directory / "expected.json").write_text(
        f'{{"tokens": {json.dumps(tokens)},\n"loss": {loss!r},\n"logits": [\n{rows}]}}\n')


def main():
    directory = pathlib.Path(sys.argv[1])
    for seed, (name, config) in enumerate(MODELS.items()):
        make(directory / name, config, seed)


if __name__ == "__main__":
    main()

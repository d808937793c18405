"""Streaming clients of `tohum serve` through HTTP, beside MLflow's scoring server in the same run, as JSON.

    python -m tests.bench.serving [--project FOLDER] [--model base] [--clients 32] [--tokens 64] [--rounds 4]
                                  [--mlflow models:/tohum-base@candidate [--mlflow-threads 1]] [--requests 10000]

Clients ask one after another, each the next prompt as soon as its answer has ended, `--rounds` times (MLflow's once).
`tokens_per_cpu_second` divides the answers' tokens by the CPU time of the server's process. Latencies are wall time, so
`load` (of the machine, a minute's mean, before and after) belongs to them. `--mlflow` exports that registered version
and serves it with `mlflow models serve`, asked by as many clients without streaming; as it comes, torch takes a thread
a core for each request at once, `--mlflow-threads 1` takes one. `--requests` measures the server's
memory over so many short requests instead.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from pipeline.paths import CODE

_NAMES = ("Ayşe", "Bora", "Selin", "Emre", "Deniz", "Can", "Zeynep", "Mert")


class Timing(NamedTuple):
    """One answer."""

    tokens: int
    first_token_s: float
    total_s: float


def main(arguments: list[str] | None = None) -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serving", description=__doc__)
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--model", default="base")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--mlflow")
    parser.add_argument("--mlflow-threads", type=int)
    parser.add_argument("--requests", type=int)
    options = parser.parse_args(arguments)
    result: dict[str, Any] = {"load_before": os.getloadavg()[0]}
    with server(options.project, options.model) as (port, process):
        if options.requests:
            result["memory"] = asyncio.run(memory(port, process, options))
        else:
            result["tohum"] = asyncio.run(load(streamed(port, options), process, options, options.rounds))
    if options.mlflow:
        with mlflow_server(options.project, options.mlflow, options.mlflow_threads) as (port, process):
            result["mlflow"] = asyncio.run(load(scored(port, options), process, options, 1))
        both = result["tohum"]["requests_per_second"], result["mlflow"]["requests_per_second"]
        result["times_mlflow"] = round(both[0] / both[1], 1)
        both = result["tohum"]["tokens_per_cpu_second"], result["mlflow"]["tokens_per_cpu_second"]
        result["times_mlflow_by_cpu"] = round(both[0] / both[1], 1)
    print(json.dumps(result | {"load_after": os.getloadavg()[0]}, indent=1))


async def load(
    ask: Callable[[int], Awaitable[Timing]], process: psutil.Process, options: argparse.Namespace, rounds: int
) -> dict[str, Any]:
    """Figures of `clients` clients that ask `rounds` times each, after a warm-up of 4 requests."""

    async def client(number: int) -> list[Timing]:
        return [await ask(number + options.clients * (1 + place)) for place in range(rounds)]

    await asyncio.gather(*(ask(number) for number in range(4)))
    cpu, began = cpu_seconds(process), time.perf_counter()
    answers = await asyncio.gather(*(client(number) for number in range(options.clients)))
    wall, used = time.perf_counter() - began, cpu_seconds(process) - cpu
    timings = [timing for one in answers for timing in one]
    tokens = sum(timing.tokens for timing in timings)
    return {
        "requests": len(timings),
        "tokens": tokens,
        "requests_per_second": round(len(timings) / wall, 2),
        "tokens_per_second": round(tokens / wall),
        "tokens_per_cpu_second": round(tokens / used),
        "cpu_seconds": round(used, 2),
        "cores_used": round(used / wall, 2),
        "answer_s": quantiles([timing.total_s for timing in timings]),
        "first_token_s": quantiles([timing.first_token_s for timing in timings]),
    }


async def memory(port: int, process: psutil.Process, options: argparse.Namespace) -> dict[str, Any]:
    """Resident memory after the first thousand and after all of `requests` short streamed requests."""
    options.tokens, ask, sizes = 4, None, []
    ask = streamed(port, options)
    for first in range(0, options.requests, 1000):
        for start in range(first, first + 1000, options.clients):
            await asyncio.gather(*(ask(number) for number in range(start, start + options.clients)))
        sizes.append(round(process.memory_info().rss / 2**20, 1))
    return {"requests": options.requests, "mib_by_thousand": sizes, "growth_mib": round(sizes[-1] - sizes[0], 1)}


def streamed(port: int, options: argparse.Namespace) -> Callable[[int], Awaitable[Timing]]:
    """A client of the server."""

    async def ask(number: int) -> Timing:
        body = {"model": options.model, "prompt": prompt(number), "max_tokens": options.tokens, "stream": True}
        began, first, tokens = time.perf_counter(), 0.0, 0
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(posted("/v1/completions", port, body | {"stream_options": {"include_usage": True}}))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        async for line in reader:
            if line.startswith(b'data: {"id"'):
                first = first or time.perf_counter() - began
                if b'"choices":[]' in line:
                    tokens = json.loads(line[6:])["usage"]["completion_tokens"]
            if line == b"data: [DONE]\n":
                break
        writer.close()
        return Timing(tokens, first, time.perf_counter() - began)

    return ask


def scored(port: int, options: argparse.Namespace) -> Callable[[int], Awaitable[Timing]]:
    """A client of MLflow's scoring server, which does not stream."""
    from pipeline.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(options.project / "models" / options.model)

    async def ask(number: int) -> Timing:
        body = {"dataframe_records": [{"text": prompt(number)}], "params": {"max_tokens": options.tokens}}
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(posted("/invocations", port, body))
        answer = await reader.read()
        writer.close()
        seconds = time.perf_counter() - began
        assert answer.startswith(b"HTTP/1.1 200"), answer[:500]
        said = json.loads(answer.partition(b"\r\n\r\n")[2])["predictions"][0]["completion"]
        return Timing(len(tokenizer.encode(said)), seconds, seconds)

    return ask


def prompt(number: int) -> str:
    """One of many different beginnings."""
    return f"{_NAMES[number % 8]} ve {_NAMES[number // 8 % 8]}, {number}"


def posted(path: str, port: int, body: dict[str, Any]) -> bytes:
    """A request as bytes."""
    data = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Type: application/json",
        f"Content-Length: {len(data)}", "Connection: close",
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode() + data


def quantiles(values: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum."""
    cuts = statistics.quantiles(values, n=100)
    return {"p50": round(cuts[49], 3), "p99": round(cuts[98], 3), "max": round(max(values), 3)}


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time of a process and its children."""
    members = [process, *process.children(recursive=True)]
    return sum(times.user + times.system for times in (member.cpu_times() for member in members))


@contextmanager
def server(project: Path, model: str) -> Iterator[tuple[int, psutil.Process]]:
    """`tohum serve MODEL` in a project: its port and its process."""
    port = free_port()
    words = [sys.executable, "-m", "pipeline.cli", "serve", model, "--port", str(port)]
    with running(words, project, port, "/health", 1) as process:
        yield port, process


@contextmanager
def mlflow_server(project: Path, uri: str, threads: int | None) -> Iterator[tuple[int, psutil.Process]]:
    """`mlflow models serve` with a registered version: its port and its process."""
    import tempfile

    port = free_port()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "version"
        export = [sys.executable, "-m", "pipeline.cli", "download", uri, str(folder)]
        subprocess.run(export, cwd=project, env=environment(1), check=True, capture_output=True)
        words = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local"]
        with running([*words, "--port", str(port), "--workers", "1"], project, port, "/ping", threads) as process:
            yield port, process


@contextmanager
def running(words: list[str], project: Path, port: int, path: str, threads: int | None) -> Iterator[psutil.Process]:
    """A server's process, from the moment it answers until the block ends."""
    process = subprocess.Popen(
        words, cwd=project, env=environment(threads), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not answers(port, path):
            assert process.poll() is None, "the server ended"
            time.sleep(0.2)
        yield psutil.Process(process.pid)
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.terminate()
            process.terminate()
        process.wait(timeout=30)


def answers(port: int, path: str) -> bool:
    """Whether a server answers at a port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
            return connection.recv(15).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(threads: int | None) -> dict[str, str]:
    """This process's, with this checkout's code and so many threads of torch; None: as many as it takes itself."""
    made = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    made["PYTHONPATH"] = f"{CODE}:{os.environ.get('PYTHONPATH', '')}"
    # MLflow's server gives up after 60 s, which its last client waits longer for
    made["MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"] = "3600"
    return made if threads is None else made | {"OMP_NUM_THREADS": str(threads)}


if __name__ == "__main__":
    main()

"""Asks a served model many times at once, and says how long it took.

    python load.py digit.png --protocol=rest --requests=10000 --threads=8

Each thread sends the images of the file again and again and waits for each
answer. Prints the throughput, percentiles of the latency as a client sees it,
and what failed; at Ctrl-C, of the requests until then. Needs rest_client.py or
grpc_client.py, and payloads.py, beside it.

The threads share one Python interpreter: where the server is fast, the tail
is this program's own. Then several of it, or a tool made for the purpose.
"""

import collections
import concurrent.futures
import dataclasses
import importlib
import math
import signal
import sys
import threading
import time

import payloads

# The server's usual address, by protocol.
_ADDRESSES = {"rest": "http://localhost:8501", "grpc": "localhost:8500"}
_MOST_THREADS = 1000
# A server that words each error anew must not fill memory and screen.
_MOST_REASONS = 20
_OTHERS = "other reasons"
_STOPPED = 128 + signal.SIGINT


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of the requests.

    Attributes:
        seconds: From the first request to the last answer.
        latencies: Seconds of each request that was answered, sorted.
        errors: How many requests failed, by the sentence that says why; the
            first 20 sentences of each thread.
    """

    seconds: float
    latencies: list
    errors: collections.Counter

    def percentile(self, share):
        """The least latency that `share` percent of the answers kept to."""
        place = math.ceil(share / 100 * len(self.latencies)) - 1
        return self.latencies[max(place, 0)]


def run(clients, images, requests, error, stop=None):
    """Sends the same images again and again, with each client in a thread.

    Args:
        clients: Clients of rest_client or grpc_client, one for each thread.
        images: What their `predict` takes.
        requests: How many requests in all.
        error: The class of error that counts as a failed request.
        stop: A `threading.Event`: once it is set, no request follows those
            under way.

    Returns:
        A `Result`.
    """
    stop = stop or threading.Event()

    def work(client, count):
        latencies, errors = [], collections.Counter()
        for _ in range(count):
            if stop.is_set():
                break
            started = time.perf_counter()
            try:
                client.predict(images)
            except error as failure:
                reason = str(failure)
                known = reason in errors or len(errors) < _MOST_REASONS
                errors[reason if known else _OTHERS] += 1
            else:
                latencies.append(time.perf_counter() - started)
        return latencies, errors

    share, rest = divmod(requests, len(clients))
    counts = [share + (place < rest) for place in range(len(clients))]
    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(len(clients)) as threads:
        results = list(threads.map(work, clients, counts))
    seconds = time.perf_counter() - started
    latencies = sorted(one for taken, _ in results for one in taken)
    errors = sum((failed for _, failed in results), collections.Counter())
    return Result(seconds, latencies, errors)


def describe(result, threads, images):
    """Lines for a reader."""
    answered = len(result.latencies)
    failed = result.errors.total()
    lines = [
        f"{answered + failed} requests of {images} images from {threads} "
        f"threads in {result.seconds:.2f} s: {answered} answered, "
        f"{failed} failed",
    ]
    if answered:
        rate = answered / result.seconds
        marks = [
            (f"p{share}", result.percentile(share)) for share in (50, 90, 99)
        ]
        marks.append(("max", result.latencies[-1]))
        lines += [
            f"{rate:.0f} requests/s, {rate * images:.0f} images/s",
            "latency: "
            + ", ".join(f"{name} {1e3 * mark:.2f} ms" for name, mark in marks),
        ]
    lines += [
        f"failed {count} times: {sentence}"
        for sentence, count in result.errors.most_common()
    ]
    return lines


def main():
    """Runs the load that the command line asks for."""
    parser = payloads.Parser(description=__doc__.split("\n")[0])
    parser.add_argument("file", help="a PNG, JPEG or .npy file")
    parser.add_argument("--protocol", choices=_ADDRESSES, default="rest")
    parser.add_argument(
        "--address",
        help="default: http://localhost:8501 for REST, localhost:8500 for gRPC",
    )
    parser.add_argument("--model", default="classifier")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds")
    parser.add_argument("--retries", type=int, default=3)
    parser.add_argument("--max_answer_bytes", type=int, default=16 * 2**20)
    flags = parser.parse_args()
    if flags.requests < 1 or not 1 <= flags.threads <= _MOST_THREADS:
        parser.error(
            f"got {flags.requests} requests and {flags.threads} threads; "
            "expected at least one request, and at least one thread and at "
            f"most {_MOST_THREADS}"
        )
    # Only the chosen client, so that REST needs the standard library alone.
    module = importlib.import_module(f"{flags.protocol}_client")
    address = flags.address or _ADDRESSES[flags.protocol]
    try:
        images = module.read(flags.file)
        clients = [
            module.Client(
                address,
                flags.model,
                timeout=flags.timeout,
                retries=flags.retries,
                max_answer_bytes=flags.max_answer_bytes,
            )
            for _ in range(flags.threads)
        ]
    except module.RequestError as error:
        sys.exit(payloads.wrapped(f"load: {error}", sys.stderr))
    stop = _at_interrupt()
    result = run(clients, images, flags.requests, module.RequestError, stop)
    lines = describe(result, flags.threads, len(images))
    if stop.is_set():
        lines.append(f"stopped before all of {flags.requests} requests")
    for line in lines:
        print(payloads.wrapped(line, sys.stdout))
    sys.exit(_STOPPED if stop.is_set() else bool(result.errors))


def _at_interrupt():
    """A `threading.Event` that Ctrl-C sets; a second one ends the process."""
    stop = threading.Event()

    def interrupted(*_):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        stop.set()
        sentence = "waiting for the requests under way; Ctrl-C again ends it."
        print(f"load: {sentence}", file=sys.stderr, flush=True)

    signal.signal(signal.SIGINT, interrupted)
    return stop


if __name__ == "__main__":
    main()

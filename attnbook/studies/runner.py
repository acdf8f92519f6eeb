"""Runs the jobs of a study: in several processes, kept one by one, so that none is lost.

A job is one call of a function with one dictionary of arguments, and its result can be written as
JSON. Each job computes in one thread and draws from its own seed, so results do not depend on how
many run at once, nor on where.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

Work = Callable[..., Any]
PACKAGE = Path(__file__).parents[1]


class Each:
    """Call it with a function and a list of jobs; it returns the list of their results.

    >>> Each()(pow, [{"base": 2, "exp": 3}, {"base": 3, "exp": 2}])
    [8, 9]
    """

    def __init__(
        self,
        *,
        jobs: int = 1,
        device: str | None = None,
        dask: str | None = None,
        folder: Path | None = None,
        progress: bool = False,
    ) -> None:
        """Set up the runner.

        Args:
            jobs: how many processes run at once; -1 is one for each core.
            device: given to every job as its argument `device`; None gives none.
            dask: the address of a Dask scheduler whose workers run the jobs instead.
            folder: where finished jobs are kept, and looked for; None keeps none.
            progress: shows a bar with the time left.
        """
        self.jobs, self.device, self.dask = jobs, device, dask
        self.folder, self.progress = folder, progress
        self.seconds = 0.0  # processor time of all jobs, in this run or an earlier one

    def __call__(self, work: Work, jobs: Sequence[dict[str, Any]], what: str = "jobs") -> list[Any]:
        """Return the result of `work(**job)` for each job, in the order of the jobs."""
        where = {} if self.device is None else {"device": self.device}
        jobs = [{**job, **where} for job in jobs]
        kept = self.folder and self.folder / sources(work)
        paths = [kept and kept / file_name(work, job) for job in jobs]
        done = {n: json.loads(p.read_text()) for n, p in enumerate(paths) if p and p.exists()}
        waiting = [n for n in range(len(jobs)) if n not in done]
        bar = tqdm(total=len(jobs), initial=len(done), desc=what, disable=not self.progress)
        with bar, self._backend() as parallel:
            for n, finished in parallel(work, [(n, jobs[n]) for n in waiting]):
                done[n] = finished
                if path := paths[n]:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    draft = path.with_suffix(f".{os.getpid()}")  # never half a file under its name
                    draft.write_text(json.dumps(finished))
                    draft.replace(path)
                bar.update()
        self.seconds += sum(done[n]["seconds"] for n in range(len(jobs)))
        return [done[n]["result"] for n in range(len(jobs))]

    @contextlib.contextmanager
    def _backend(self) -> Iterator[Callable[[Work, list[tuple[int, dict[str, Any]]]], Any]]:
        # joblib is imported here: a chapter that only reads stored results needs none of it.
        import joblib  # noqa: PLC0415

        def parallel(work: Work, jobs: list[tuple[int, dict[str, Any]]]) -> Any:
            spread = joblib.Parallel(n_jobs=self.jobs, return_as="generator_unordered")
            return spread(joblib.delayed(timed)(work, n, job) for n, job in jobs)

        if self.dask is None:
            yield parallel
            return
        try:
            from distributed import Client  # noqa: PLC0415 # pyright: ignore[reportMissingImports]
        except ImportError:
            sys.exit("--dask needs the package distributed: pip install distributed")
        with Client(self.dask), joblib.parallel_config(backend="dask"):
            yield parallel


def timed(work: Work, number: int, job: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the job's number, its result as JSON has it, and the seconds of a processor it took.

    One thread: how a sum is split among threads changes its last digits.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start = time.process_time()
    try:
        result = json.loads(json.dumps(work(**job)))
    finally:
        torch.set_num_threads(threads)
    return number, {"result": result, "seconds": time.process_time() - start}


def file_name(work: Work, job: dict[str, Any]) -> str:
    """Return the name of the file that keeps the result of a job."""
    key = f"{work.__module__}.{work.__qualname__} {json.dumps(job, sort_keys=True)}"
    return f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def sources(work: Work) -> str:
    """Return a name for all that decides what a job computes: the package, the study, torch.

    Of the studies only the job's own counts. Where a study lists its jobs (`run` and what stands
    below it) may change without a loss of finished jobs.
    """
    study = Path(sys.modules[work.__module__].__file__ or "")
    text = study.read_text(encoding="utf-8").partition("\ndef run(")[0]
    package = [path.read_bytes() for path in sorted(PACKAGE.glob("*.py"))]
    text += version("torch")
    return f"{study.stem}-{hashlib.sha256(b''.join([*package, text.encode()])).hexdigest()[:16]}"

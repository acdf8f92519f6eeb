"""Build the site in both languages; a warning, or too long a time, is a failure.

python tools/build_site.py                   into _build/html
python tools/build_site.py --output FOLDER   into FOLDER/_build/html
"""

from __future__ import annotations

import argparse
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import chinese
from notebooks import ROOT, chapters

LONGEST = 60  # seconds of one processor, so that a busy machine does not count


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT)
    chapters()  # names the one that cannot be read, which Sphinx does not
    output = parser.parse_args().output.absolute() / "_build"
    output.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    builds = [Build(ROOT, output)]
    if (ROOT / "book" / "zh" / "index.md").is_file():
        builds.append(Build(chinese.sources(output / "zh"), output / "zh" / "_build"))
    said = [problem for build in builds if (problem := build.end())]
    if said:
        sys.exit("\n".join(said))
    shutil.rmtree(output / "html" / "zh", ignore_errors=True)
    if len(builds) > 1:
        shutil.copytree(output / "zh" / "_build" / "html", output / "html" / "zh")
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"built in {time.monotonic() - start:.0f} s")
    if spent.ru_utime + spent.ru_stime > LONGEST:
        sys.exit(f"The site took more than {LONGEST} s of one processor.")
    for build in builds:
        build.builder.write_text(sys.prefix, encoding="utf-8")


class Build:
    """A run of Jupyter Book, which goes on beside others until its end is asked for."""

    def __init__(self, source: Path, output: Path) -> None:
        """Start it."""
        output.mkdir(parents=True, exist_ok=True)
        self.log, self.builder = output / "site.log", output / "built-with"
        command = [str(Path(sys.prefix, "bin", "jupyter-book")), "build", str(source), "-q"]
        command += ["-W", "-n", "--keep-going", "--path-output", str(output.parent)]
        if builds_all(output / "html" / "book" / "index.html", self.builder):
            # Addresses of scripts and styles depend on what an earlier build has left.
            shutil.rmtree(output / "html", ignore_errors=True)
            command.append("--all")
        self.builder.unlink(missing_ok=True)
        with self.log.open("w", encoding="utf-8") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)

    def end(self) -> str:
        """Wait, and return what went wrong."""
        if not self.process.wait():
            return ""
        said = what_went_wrong(self.log.read_text(encoding="utf-8"))
        return f"{said}\n(all that was said: {self.log})"


def builds_all(page: Path, builder: Path) -> bool:
    """Whether something changed that Sphinx does not look at: it looks at the pages alone.

    That is the look, what all pages share, and what is installed.
    """
    if (
        not page.exists()
        or not builder.exists()
        or builder.read_text(encoding="utf-8") != sys.prefix
    ):
        return True
    shared = [ROOT / "_config.yml", ROOT / "_toc.yml", Path(sys.prefix, "packages.done")]
    # A page that is translated for the first time is named on others; the folder is as new as it.
    shared += [ROOT / "book" / "zh", ROOT / "tools" / "chinese.py"]
    for folder in ("_static", "_ext", "_templates"):
        shared += [p for p in (ROOT / "book" / folder).rglob("*") if "__pycache__" not in p.parts]
    built = page.stat().st_mtime
    return any(path.stat().st_mtime > built for path in shared if path.exists())


def what_went_wrong(said: str) -> str:
    """Return the sentences that say why, or the end of what was said."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", said).replace(f"{ROOT}/", "")
    lines = [line for line in plain.splitlines() if re.search(r"WARNING|ERROR|[a-z]Error: ", line)]
    reasons = [line for line in dict.fromkeys(lines) if not line.startswith("RuntimeError")]
    return "\n".join(["The site was not built.", *(reasons or plain.splitlines()[-20:])])


if __name__ == "__main__":
    main()

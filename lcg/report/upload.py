"""Upload a report to W&B: the page and its figures as one artifact of a separate run."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from lcg.log import log
from lcg.report.build import Report
from lcg.runs.record import RunRecord
from lcg.runs.wandb_logger import choose_mode

NAME = "report"  # of the artifact: every upload to a project is its next version


def upload(
    report: Report, records: Iterable[RunRecord], page: Path, entity: str, project: str
) -> None:
    """Log `page` and every figure's SVG as the next version of the project's report.

    Without a login or a network they go into an offline run next to the page, and the command to
    send it later is logged. An error of W&B is logged in one line: the page is on disk already.
    """
    mode, why = choose_mode("auto")
    if mode == "disabled":
        log.info("W&B: disabled, nothing was sent")
        return
    import wandb

    settings = wandb.Settings(silent=True, console="off", init_timeout=20, finish_timeout=60)
    try:
        run = wandb.init(
            entity=entity,
            project=project,
            job_type="report",
            name=page.stem,
            dir=page.parent,
            mode=mode,
            settings=settings,
        )
        artifact = wandb.Artifact(
            NAME, type="report", metadata={"runs": sorted(record.run for record in records)}
        )
        artifact.add_file(str(page), name=page.name)
        for drawing in report.drawings:
            with artifact.new_file(f"figures/{drawing.name}.svg", encoding="utf-8") as file:
                file.write(drawing.svg)
        run.log_artifact(artifact)
        run.finish()
    except Exception as error:
        log.warning(f"W&B: the report was not sent ({' '.join(str(error).split())[:200]})")
        return
    if mode == "offline":
        because = f" because {why}" if why else ""
        folder = shlex.quote(str(Path(run.dir).parent))
        log.info(f"W&B: offline{because}; send the report later with: wandb sync {folder}")
    else:
        log.info(f"W&B: {run.url}")

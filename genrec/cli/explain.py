"""`genrec explain`: a file of people and items in, a file of explanations out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import AsJson, EngineOption, RunPath, app, engine_options, is_standard_output
from genrec.console import ConsoleProgress, print_json, print_lines
from genrec.errors import ConfigError


@app.command()
def explain(
    run: RunPath,
    input_: Annotated[
        Path, typer.Option("--input", help='JSON lines, plain or .gz: {"history": [item ids], "item_id": …}.')
    ],
    output: Annotated[Path, typer.Option(help="Where the explanations go, one line per input line.")],
    style: Annotated[
        str, typer.Option(help="line, paragraph, bullets, for-whom; headline, description; taste (no item_id).")
    ] = "line",
    language: Annotated[str, typer.Option(help="A language of RUN/prompts/ or of --prompts, by its code.")] = "en",
    tone: Annotated[str, typer.Option(help="plain, warm or brief.")] = "plain",
    writer: Annotated[str, typer.Option(help="`template`, `model`, or `auto`: the model if it knows words.")] = "auto",
    tags: Annotated[Path | None, typer.Option(help="CSV of user_id, item_id, tag: people's own words.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A folder of languages in place of the run's.")] = None,
    engine: Annotated[str, typer.Option(help="Which engine writes.")] = "transformers",
    engine_option: EngineOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a killed job stopped.")] = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="Work on a Ray cluster; without --ray-address on this machine.")
    ] = False,
    ray_address: Annotated[str | None, typer.Option(help="The cluster, such as ray://host:10001.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes of the Ray cluster.  [default: 2]")] = None,
    json_: AsJson = False,
) -> None:
    """Explain a file of recommendations. Every statement is checked; a bad line gets an error in its place.

    A line may also hold `"user_id"`: then the person's own reviews and tags count as evidence.
    """
    if not ray and (ray_address is not None or workers is not None):
        raise ConfigError("--ray-address and --workers are options of --ray.", "Give --ray too.")
    from genrec.explanation.explainer import Wording
    from genrec.explanation.loading import as_writer
    from genrec.explanation_batch import Answers, ExplainJob, explain_file, explain_here

    answers: Answers = explain_here
    if ray:
        from genrec.explanation_ray import explain_on_ray

        answers = explain_on_ray(ray_address, workers=2 if workers is None else workers)
    job = ExplainJob(
        run.absolute(),
        Wording(style, language, tone),
        input_.name,
        engine=engine,
        engine_options=engine_options(engine_option),
        writer=as_writer(writer),
        prompts=None if prompts is None else prompts.absolute(),
        tags=None if tags is None else tags.absolute(),
    )
    summary = explain_file(job, input_, output, resume=resume, answers=answers, progress=ConsoleProgress())
    aside = is_standard_output(output)
    if json_:
        print_json(asdict(summary), aside=aside)
    else:
        served = summary.num_lines - summary.num_errors
        counts = ", ".join(f"{name} {count:,}" for name, count in sorted(summary.counts.items()))
        lines = [f"{served:,} of {summary.num_lines:,} lines served: {output}", f"  {counts}", *summary.errors]
        print_lines(lines, aside=aside)
    if summary.num_errors:
        raise typer.Exit(1)

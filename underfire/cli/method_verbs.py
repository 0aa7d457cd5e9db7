"""Define the verbs about single methods and models: attack, explain, train, list, show and layers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from underfire.cli.flags import (
    MOST,
    BatchSize,
    Defenses,
    Device,
    Force,
    Images,
    ImagesIfGiven,
    Json,
    Model,
    Number,
    Out,
    Output,
    Quiet,
    Seed,
    Settings,
    Size,
)
from underfire.errors import InputError

verbs = typer.Typer()


@verbs.command()
def attack(
    name: Annotated[str, typer.Argument(help="An attack of `underfire list attacks`.")],
    images: Images,
    model: Model,
    output: Output = None,
    eps: Annotated[str | None, typer.Option(help="Largest size of the perturbation, such as 0.03 or 8/255.")] = None,
    norm: Annotated[str | None, typer.Option(help="Norm of the size: linf, l2, l1 ...")] = None,
    steps: Annotated[int | None, typer.Option(max=MOST, help="Number of iterations.")] = None,
    goal: Annotated[
        str | None,
        typer.Option(help="A class, `random` or `least-likely`; default: any wrong class."),
    ] = None,
    interpreter: Annotated[
        str | None, typer.Option(help="Also write the maps of this interpreter; adv2 attacks them.")
    ] = None,
    defense: Defenses = None,
    settings: Settings = None,
    n: Number = None,
    size: Size = None,
    batch_size: BatchSize = 16,
    out: Out = None,
    force: Force = False,
    seed: Seed = 0,
    device: Device = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Attack images; write adversarial images, magnified perturbations, figures and a table of measurements."""
    from underfire.catalog import find
    from underfire.cli import options, pictures

    aimed = "interpreter" in find("attack", name).options
    entry = options.attack(
        name,
        tuple(settings or ()),
        eps=eps,
        norm=norm,
        steps=steps,
        goal={None: "untargeted", "random": "random-target"}.get(goal, goal),
        interpreter=interpreter if aimed else None,
    )
    place = out or Path(f"underfire-{name}")
    job = pictures.Job(images, model, n, size, batch_size, place, force, seed, device, quiet, as_json, output)
    job = replace(job, defenses=tuple(defense or ()))
    pictures.attack(job, entry, interpreter)


@verbs.command()
def explain(
    model: Model,
    output: Output = None,
    name: Annotated[
        str | None,
        typer.Argument(help="An interpreter of `underfire list interpreters`, or several: NAME,NAME."),
    ] = None,
    images: ImagesIfGiven = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="One figure per image: the interpreters named, or all with maps, for every class."),
    ] = False,
    classes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST,
            help="With --all: the number of most likely classes.",
            show_default="all of up to 10, else 3",
        ),
    ] = None,
    goal: Annotated[
        str | None,
        typer.Option(
            help="The class to explain; default: the predicted class. Of changed images, the class to reach; "
            "default: any other class."
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Images to fit the interpreter to or to compare with, as a data URI.")
    ] = None,
    reference_n: Annotated[
        int | None, typer.Option(min=1, max=MOST, help="Number of images of --reference; default: all.")
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(help="A measure of the maps, such as insertion or mass_inside; may be repeated."),
    ] = None,
    npy: Annotated[bool, typer.Option("--npy", help="Also write the maps themselves, as NumPy files.")] = False,
    defense: Defenses = None,
    settings: Settings = None,
    n: Number = None,
    size: Size = None,
    batch_size: BatchSize = 16,
    out: Out = None,
    force: Force = False,
    seed: Seed = 0,
    device: Device = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Explain predictions; write maps over images, changed images, examples or rules, and a table.

    Maps are also on a sheet with the image and a legend.
    """
    from underfire.cli import explaining, pictures, side_by_side

    if every and name is not None and images is None:  # with --all, the first of one argument is the images
        name, images = "", name
    if name is None or images is None or (every and (settings or reference or measure or npy)):
        usage = "explain --all [NAME,NAME] IMAGES --model URI" if every else "explain NAME IMAGES --model URI"
        without = ", without --set, --reference, --measure and --npy" if every else ""
        raise typer.BadParameter(f"the arguments must be: underfire {usage}{without}")
    if classes is not None and not every:
        raise typer.BadParameter("--classes requires --all; one interpreter explains --goal, or the predicted class")
    names = tuple(dict.fromkeys(part.strip() for part in name.split(","))) if name else ()
    place = out or Path(f"underfire-{'all' if every else '-'.join(names)}")
    job = pictures.Job(images, model, n, size, batch_size, place, force, seed, device, quiet, as_json, output)
    job = replace(job, defenses=tuple(defense or ()))
    if every:
        side_by_side.explain_all(job, names, goal, classes)
    else:
        more = tuple(measure or ()), npy
        explaining.explain(job, names, goal, tuple(settings or ()), reference, reference_n, *more)


@verbs.command()
def train(
    name: Annotated[
        str,
        typer.Argument(
            help="A method of `underfire list training`, such as trades; or one that has a network of its own, such as "
            "rts, hgd or atta; aid or linear_head."
        ),
    ],
    data: Annotated[str, typer.Option(help="Training images, as a data URI (cluttered-digits:train).")],
    out: Annotated[Path, typer.Option(help="The file to write, such as rts.safetensors.")],
    model: Annotated[
        str | None, typer.Option(help="The model, as a URI; comdefend can be trained without one.")
    ] = None,
    output: Output = None,
    settings: Settings = None,
    n: Annotated[
        int | None,
        typer.Option("--n", min=1, max=MOST, help="Number of images of --data, and at most of --test; default: all."),
    ] = None,
    eps: Annotated[
        str | None,
        typer.Option(help="Size of the inner attack of a training, and of the attacks of --audit; default: 8/255."),
    ] = None,
    test: Annotated[str | None, typer.Option(help="Images to evaluate the result on, as a data URI.")] = None,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit",
            help="Attack the trained classifier by PGD, AutoAttack and ADV², and check for masked gradients; without "
            "--test, on a part of --data that is not trained on.",
        ),
    ] = False,
    devices: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST, help="Number of devices, such as GPUs, each of which gets a process; default: one."
        ),
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="A file for loss, rate and metrics of every step, as lines of JSON.")
    ] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="A folder for the same, which TensorBoard shows.")] = None,
    mlflow: Annotated[
        str | None, typer.Option(metavar="EXPERIMENT", help="An experiment of MLflow that gets the same as a run.")
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run of the same command.")] = False,
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a classifier, also to resist attacks, or a network of an interpreter, a defence or an attack.

    aid hardens RTS, and linear_head fits a head. The weights are written to a file.
    """
    from underfire.catalog import cards

    if name in {card.name for card in cards("training")}:
        if model is None:
            raise InputError(f"{name} trains a model; pass --model URI")
        from underfire.cli.classifiers import Job, Tracking, train_classifier

        job = Job(
            name,
            model,
            output,
            data,
            out,
            tuple(settings or ()),
            eps,
            n,
            test,
            audit,
            seed,
            device,
            resume,
            force,
            quiet,
            as_json,
        )
        train_classifier(replace(job, devices=devices, tracking=Tracking(ledger, tensorboard, mlflow)))
        return
    from underfire.cli.training import trained_network

    own: dict[str, object] = {"--audit": audit or None, "--eps": eps, "--devices": devices}
    own |= {"--ledger": ledger, "--tensorboard": tensorboard, "--mlflow": mlflow}
    flag = next((flag for flag, value in own.items() if value is not None), None)
    if flag is not None and (name == "linear_head" or trained_network(name)):
        raise InputError(f"{flag} is for methods of training, such as trades; {name} has its options by --set")
    if name == "linear_head":
        if model is None:
            raise InputError("linear_head is trained for a model; pass --model URI")
        from underfire.cli.head import train_head

        train_head(model, data, out, tuple(settings or ()), n, seed, device, force, quiet, as_json)
        return
    from underfire.cli.training import train as go

    go(name, model, output, data, out, tuple(settings or ()), n, test, seed, device, resume, force, quiet, as_json)


@verbs.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(help="attack, interpreter, measure ..., or the name of a method; default: all kinds."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the methods with one line for each; with the name of a method, show it."""
    from underfire.cli.listing import show

    show(kind, as_json)


@verbs.command()
def show(
    name: Annotated[str, typer.Argument(help="A method of `underfire list`: an attack, an interpreter, a defense ...")],
    as_json: Json = False,
) -> None:
    """Show a method: what it does, its options with defaults and meanings, its paper and an example."""
    from underfire.cli.showing import show as go

    go(name, as_json)


@verbs.command()
def layers(
    model: Annotated[str, typer.Argument(help="The model, as a URI.")],
    data: Annotated[str | None, typer.Option(help="Images whose first one passes through the model.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Side of a noise image in pixels, instead of --data.")] = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """List the layers of a model, whose names options such as layer= take."""
    from underfire.cli.showing import layers as go

    go(model, output, data, size, as_json)

"""The training loop: an engine, two sources of batches, a plan; resumable at any step."""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from minet.augment.plan import EpochPlan
from minet.augment.transforms import AugmentParams
from minet.core.arrays import all_indices
from minet.core.errors import InputError, InterruptedRun
from minet.core.rng import RngStream, torch_seed
from minet.loader.batch import Batch, Source
from minet.loader.prefetch import prefetch_to_device
from minet.train.context import TrainContext, TrainResult
from minet.train.distributed.process_group import StopConsensus
from minet.train.oom import oom_as_input_error
from minet.train.schedule import image_size_at, learning_rate
from minet.train.state import EpochRecord, TrainState
from minet.train.step import TrainStep

_SAVE, _STOP = 1, 100  # votes: a save is due; plus a signal: it asks to stop


@runtime_checkable
class EpochAware(Protocol):
    """A layer with a schedule; what it sets must be a buffer, so that the weights carry it."""

    def set_epoch(self, epoch: int) -> None:
        """Take the number of the epoch that begins, from 0."""
        ...


def fit(run: TrainContext) -> TrainResult:
    """Train for the recipe's epochs, from the last save if there is one.

    InputError stops a run whose loss is not finite or that needs more memory than there is;
    InterruptedRun one that was asked to stop, when it is saved.
    """
    check_last_batch(run)
    progress, votes = TrainState(run.settings, run.engine.device), StopConsensus(run.engine.team)
    _take_up(run, progress)
    while progress.epoch < run.settings.train.epochs:
        with oom_as_input_error(run.settings.train, run.engine.team.world_size, run.engine.device):
            _epoch(run, progress, votes)
        _stop_if(run, votes.now(_wish(run)))
    run.store.finish()
    best = progress.history[progress.best_epoch]
    return TrainResult(progress.best_weights, best, progress.history, progress.seconds)


def _epoch(run: TrainContext, progress: TrainState, votes: StopConsensus) -> None:
    """Train on what is left of an epoch, validate, tell and save."""
    lr = _train_epoch(run, progress, votes)
    sums = _summed(run, progress)
    plan = None if run.val_plan is None else run.val_plan(progress.epoch)
    scores = validate(run.engine, run.val, plan, lambda: bool(run.interrupt.signal))
    if scores is None:  # the launcher asks all ranks, and rank 0 has the sums of all
        _store(run, progress, sums)
        run.store.finish()
        raise InterruptedRun(run.interrupt.signal)
    progress.check_validation(scores[0])
    losses, hits = sums
    record = EpochRecord(
        progress.epoch,
        losses.double().sum().item() / run.count,
        hits.item() / run.count,
        *(*scores, lr),
    )
    with run.engine.scoring():
        progress.end_epoch(record, run.engine.weights())
    run.watcher.history(progress.history)
    run.watcher.epoch(progress.history, run.engine.model)
    _save(run, progress)


def check_last_batch(run: TrainContext) -> None:
    """Stop before the first step if an epoch's last batch cannot be trained on.

    Batch norm over a map of one pixel needs more than one image.
    """
    recipe, image_size = run.settings.train, image_size_at(run.settings.train, 0)
    last = run.count % recipe.batch_size or recipe.batch_size
    smallest = min(max(1, size // recipe.accumulation_steps) for size in (last, recipe.batch_size))
    if smallest > 1:
        return
    model = copy.deepcopy(run.engine.model).to("meta").train()
    try:
        model(torch.empty(1, run.engine.planes, image_size, image_size, device="meta"))
    except ValueError as error:
        raise InputError(
            f"train.batch_size is {recipe.batch_size} and train.accumulation_steps {recipe.accumulation_steps}: "
            f"the last of {run.count} images come one at a time, which {run.settings.model} cannot "
            f"be trained on at {image_size} px ({error}); choose a size that leaves none or several"
        ) from error


@torch.inference_mode()
def validate(
    engine: TrainStep,
    source: Source,
    plan: EpochPlan | None = None,
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> tuple[float, float] | None:
    """Mean cross-entropy in nats (never smoothed) and accuracy over a whole split, of all ranks.

    `plan` says what is done to each image, if anything. None if this process was asked to stop
    meanwhile.
    """
    team, device = engine.team, engine.device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    hits = torch.zeros((), dtype=torch.int64, device=device)
    order = all_indices(source.count)[team.rank :: team.world_size]
    with engine.scoring():
        for batch in prefetch_to_device(source.batches(order), device):
            if asked_to_stop():
                return None
            draws = None if plan is None else AugmentParams.from_plan(plan, batch.indices, device)
            logits = engine.predict(batch.images, draws)
            labels = batch.labels.to(device)
            loss += F.cross_entropy(logits, labels, reduction="sum")
            hits += (logits.argmax(dim=1) == labels).sum()
    team.all_reduce(loss, hits)
    return loss.item() / source.count, hits.item() / source.count


def _take_up(run: TrainContext, progress: TrainState) -> None:
    """Go on from the last save, which rank 0 reads and hands on."""
    team = run.engine.team
    state = team.broadcast(run.store.load() if team.is_rank_zero else None)
    if state is None:
        return
    run.engine.load_state_dict(state["engine"])
    progress.load_state_dict(_to(state["progress"], run.engine.device))
    if not team.is_rank_zero:  # sums are added up over the ranks, and rank 0 has them all
        progress.losses.zero_()
        progress.hits.zero_()
        return
    print(f"resumed at epoch {progress.epoch}, step {progress.step} (both from 0)", flush=True)
    if progress.history:
        run.watcher.history(progress.history)


def _train_epoch(run: TrainContext, progress: TrainState, votes: StopConsensus) -> float:
    """Train on what is left of an epoch; return the last learning rate."""
    recipe, engine, share = run.settings.train, run.engine, run.share
    plan = run.plan(progress.epoch)
    for layer in engine.model.modules():
        if isinstance(layer, EpochAware):
            layer.set_epoch(progress.epoch)
    progress.begin_epoch(run.steps)
    engine.model.train()
    order = share.order(plan.order)[progress.step * share.size :]
    draws = AugmentParams.from_plan(plan, order, engine.device)
    image_size = image_size_at(recipe, progress.epoch)
    done = 0
    batches = prefetch_to_device(run.train.batches(order), engine.device)
    progress_bar = run.watcher.steps(batches, progress.epoch, progress.step, run.steps)
    for batch in _with_idle(progress_bar, run, progress):
        step = progress.step
        # dropout; the words of rank 0 are those of a process alone
        torch.manual_seed(
            torch_seed(run.settings.seed, RngStream.STEP, progress.epoch, step, engine.team.rank)
        )
        progress.add(
            *engine.step(
                batch,
                draws.narrow(done, len(batch.indices)),
                images=min(share.batch_size, run.count - step * share.batch_size),
                lr=learning_rate(recipe, progress.epoch + (step + 0.5) / run.steps),
                image_size=image_size,
            )
        )
        done += len(batch.indices)
        decided = votes.after_step(_wish(run))
        if decided:
            _save(run, progress)
            _stop_if(run, decided)
    return learning_rate(recipe, progress.epoch + 1 - 0.5 / run.steps)


def _with_idle(
    batches: Iterable[Batch], run: TrainContext, progress: TrainState
) -> Iterator[Batch]:
    """Add an empty batch where the last one leaves no image to this rank."""
    yield from batches
    if progress.step < run.steps:
        image_size = run.engine.input_px
        images = torch.zeros((0, 3, image_size, image_size), dtype=torch.uint8)
        yield Batch(images, torch.zeros(0, dtype=torch.int64), all_indices(0))


def _wish(run: TrainContext) -> int:
    if run.interrupt.signal:
        return _STOP + run.interrupt.signal
    return _SAVE if run.engine.team.is_rank_zero and run.store.should_save() else 0


def _save(run: TrainContext, progress: TrainState) -> None:
    """Save the state of all ranks, which meet for it, if no loss says that it is spoilt."""
    _store(run, progress, _summed(run, progress))


def _store(run: TrainContext, progress: TrainState, sums: tuple[Tensor, Tensor]) -> None:
    """Save the state with the losses and the hits of all ranks."""
    if run.engine.team.is_rank_zero:
        books = progress.state_dict() | {"losses": sums[0], "hits": sums[1]}
        run.store.save({"engine": run.engine.state_dict(), "progress": books})


def _summed(run: TrainContext, progress: TrainState) -> tuple[Tensor, Tensor]:
    """Give the epoch's losses by step and its hits, of all ranks; stop on a bad loss."""
    losses, hits = progress.losses.clone(), progress.hits.clone()
    run.engine.team.all_reduce(losses, hits)
    progress.check_finite(losses)
    return losses, hits


def _stop_if(run: TrainContext, decided: int) -> None:
    if decided > _STOP:
        run.store.finish()
        raise InterruptedRun(decided - _STOP)


def _to(state: Any, device: torch.device) -> Any:
    """Bring the tensors of a state to a device."""
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, dict):
        return {name: _to(value, device) for name, value in state.items()}
    return state

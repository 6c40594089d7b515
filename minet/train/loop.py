"""The training loop; it can be interrupted and resumed at any step."""

import copy
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from minet.augment.plan import EpochPlan
from minet.augment.transforms import AugmentParams
from minet.core.arrays import all_indices
from minet.core.errors import InputError, InterruptedRun
from minet.core.rng import RngStream, torch_seed
from minet.loader.batch import Batch, Source
from minet.loader.prefetch import prefetch_to_device
from minet.train.context import TrainContext, TrainResult
from minet.train.distributed.process_group import StepRequest, StopConsensus
from minet.train.interrupt import Interrupt
from minet.train.oom import oom_as_input_error
from minet.train.schedule import image_size_at, learning_rate
from minet.train.state import EpochRecord, TrainState
from minet.train.step import TrainStep


@runtime_checkable
class EpochAware(Protocol):
    """A layer with a schedule; what it sets must be a buffer, which is saved with the weights."""

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch that begins, from 0."""
        ...


def fit(context: TrainContext) -> TrainResult:
    """Train for the recipe's epochs, from the last snapshot if there is one.

    InputError if a loss is not finite or memory does not suffice; InterruptedRun if the run was
    asked to stop, after its state is saved.
    """
    check_last_batch(context)
    recipe, train_step = context.settings.train, context.train_step
    state = TrainState(context.settings, train_step.device)
    consensus = StopConsensus(train_step.group)
    _resume(context, state)
    while state.epoch < recipe.epochs:
        with oom_as_input_error(recipe, train_step.group.world_size, train_step.device):
            _train_epoch(context, state, consensus)
            _end_epoch(context, state)
        _stop_if_requested(context, consensus.now(_request(context)))
    context.store.finish()
    best = state.history[state.best_epoch]
    return TrainResult(state.best_weights, best, state.history, state.seconds)


def check_last_batch(context: TrainContext) -> None:
    """Raise InputError before the first step if an epoch's last batch cannot be trained on.

    Batch norm of a feature map of one pixel needs more than one image.
    """
    recipe, count = context.settings.train, context.train_count
    image_size = image_size_at(recipe, 0)
    last = count % recipe.batch_size or recipe.batch_size
    smallest = min(max(1, size // recipe.accumulation_steps) for size in (last, recipe.batch_size))
    if smallest > 1:
        return
    model = copy.deepcopy(context.train_step.model).to("meta").train()
    channels = context.train_step.input_channels
    try:
        model(torch.empty(1, channels, image_size, image_size, device="meta"))
    except ValueError as error:
        raise InputError(
            f"train.batch_size is {recipe.batch_size} and train.accumulation_steps "
            f"{recipe.accumulation_steps}: the last micro-batch of {count} images has one image, "
            f"on which {context.settings.model} cannot be trained at {image_size} px ({error}); "
            "choose a batch size that avoids that"
        ) from error


@torch.inference_mode()
def validate(
    train_step: TrainStep,
    source: Source,
    plan: EpochPlan | None = None,
    interrupt: Interrupt | None = None,
) -> tuple[float, float]:
    """Return mean cross-entropy in nats (never smoothed) and accuracy over a split, of all ranks.

    The images are augmented by `plan`, if given. InterruptedRun, before anything is saved, if
    `interrupt` notes a signal meanwhile.
    """
    group, device = train_step.group, train_step.device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    order = all_indices(source.count)[group.rank :: group.world_size]
    with train_step.eval_mode():
        for batch in prefetch_to_device(source.batches(order), device):
            if interrupt is not None and interrupt.signal:
                raise InterruptedRun(interrupt.signal)
            params = None if plan is None else AugmentParams.from_plan(plan, batch.indices, device)
            logits = train_step.predict(batch.images, params)
            labels = batch.labels.to(device)
            loss += F.cross_entropy(logits, labels, reduction="sum")
            correct += (logits.argmax(dim=1) == labels).sum()
    group.all_reduce(loss, correct)
    return loss.item() / source.count, correct.item() / source.count


def _resume(context: TrainContext, state: TrainState) -> None:
    """Load the last snapshot, which rank 0 reads and broadcasts, if there is one."""
    group = context.train_step.group
    snapshot = group.broadcast(context.store.load() if group.is_rank_zero else None)
    if snapshot is None:
        return
    context.train_step.load_state_dict(snapshot["train_step"])
    state.load_state_dict(_to(snapshot["state"], context.train_step.device))
    # the saved sums are those of all ranks; rank 0 alone keeps them, since they are summed again
    if not group.is_rank_zero:
        state.losses.zero_()
        state.correct.zero_()
        return
    print(f"resumed at epoch {state.epoch}, step {state.step} (both from 0)", flush=True)
    if state.history:
        context.callbacks.history(state.history)


def _train_epoch(context: TrainContext, state: TrainState, consensus: StopConsensus) -> None:
    """Train on the rest of an epoch; save and stop in between if requested."""
    sharder, device = context.sharder, context.train_step.device
    plan = context.plan(state.epoch)
    _set_epoch(context.train_step.model, state.epoch)
    state.begin_epoch(context.steps_per_epoch)
    context.train_step.model.train()
    order = sharder.padded_order(plan.order)[state.step * sharder.size :]
    params = AugmentParams.from_plan(plan, order, device)
    batches = context.callbacks.steps(
        prefetch_to_device(context.train.batches(order), device),
        state.epoch,
        state.step,
        context.steps_per_epoch,
    )
    first = 0
    for batch in batches:
        images = len(batch.indices)
        _step(context, state, batch, params.narrow(first, images))
        first += images
        request = consensus.after_step(_request(context))
        if request.save or request.stop_signal:
            _save(context, state, _sum_over_ranks(context, state))
            _stop_if_requested(context, request)


def _step(context: TrainContext, state: TrainState, batch: Batch, params: AugmentParams) -> None:
    """Train on this rank's part of the next global batch."""
    settings, train_step = context.settings, context.train_step
    batch_size = context.sharder.batch_size
    # for dropout; rank 0 draws what a single process draws
    seed = torch_seed(settings.seed, RngStream.STEP, state.epoch, state.step, train_step.group.rank)
    torch.manual_seed(seed)
    loss, correct = train_step.step(
        batch,
        params,
        images=min(batch_size, context.train_count - state.step * batch_size),
        lr=learning_rate(
            settings.train, state.epoch + (state.step + 0.5) / context.steps_per_epoch
        ),
        image_size=image_size_at(settings.train, state.epoch),
    )
    state.add(loss, correct)


def _end_epoch(context: TrainContext, state: TrainState) -> None:
    """Validate, keep the weights if they are the best, report and save."""
    train_sums = _sum_over_ranks(context, state)
    plan = None if context.val_plan is None else context.val_plan(state.epoch)
    try:
        scores = validate(context.train_step, context.val, plan, context.interrupt)
    except InterruptedRun:  # the launcher asks all ranks, and rank 0 has the sums of all
        _save(context, state, train_sums)
        context.store.finish()
        raise
    val_loss, val_accuracy = scores
    state.check_validation(val_loss)
    losses, correct = train_sums
    record = EpochRecord(
        epoch=state.epoch,
        train_loss=losses.double().sum().item() / context.train_count,
        train_accuracy=correct.item() / context.train_count,
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        lr=learning_rate(context.settings.train, state.epoch + 1 - 0.5 / context.steps_per_epoch),
    )
    state.end_epoch(record, context.train_step.weights)
    context.callbacks.history(state.history)
    context.callbacks.epoch(state.history, context.train_step.model)
    _save(context, state, train_sums)


def _set_epoch(model: nn.Module, epoch: int) -> None:
    for layer in model.modules():
        if isinstance(layer, EpochAware):
            layer.set_epoch(epoch)


def _request(context: TrainContext) -> StepRequest:
    """Return what this rank wants after this step; only rank 0 asks to save."""
    is_saver = context.train_step.group.is_rank_zero
    return StepRequest(
        save=is_saver and context.store.should_save(),
        stop_signal=context.interrupt.signal,
    )


def _stop_if_requested(context: TrainContext, request: StepRequest) -> None:
    if request.stop_signal:
        context.store.finish()
        raise InterruptedRun(request.stop_signal)


def _sum_over_ranks(context: TrainContext, state: TrainState) -> tuple[Tensor, Tensor]:
    """Return the epoch's losses by step and correct images of all ranks (collective call).

    InputError if a loss is not finite.
    """
    losses, correct = state.losses.clone(), state.correct.clone()
    context.train_step.group.all_reduce(losses, correct)
    state.check_finite(losses)
    return losses, correct


def _save(context: TrainContext, state: TrainState, sums: tuple[Tensor, Tensor]) -> None:
    """Save a snapshot, with the losses and correct images of all ranks; rank 0 only."""
    if context.train_step.group.is_rank_zero:
        losses, correct = sums
        saved_state = state.state_dict() | {"losses": losses, "correct": correct}
        context.store.save({"train_step": context.train_step.state_dict(), "state": saved_state})


def _to(state: Any, device: torch.device) -> Any:
    """Move the tensors of a state to a device."""
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, dict):
        return {name: _to(value, device) for name, value in state.items()}
    return state

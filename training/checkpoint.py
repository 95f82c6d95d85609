"""Checkpoints: everything that a run needs to resume as if it had never been stopped."""

from pathlib import Path

import cloudpickle
import tensorflow as tf

from training.errors import TrainingError, first_line
from training.files import sync_tree
from training.trainer import Trainer

FOLDER = "checkpoints"  # in the run's folder
NAME = "update"
KEPT = 2
FORMAT = 5  # version of the stored format


class CheckpointError(TrainingError):
    """No checkpoint of a run can be restored; the message says why."""


class Checkpoints:
    """The checkpoints of a run, in a folder of their own.

    The learner's variables are stored as such; the rest of the trainer's state (random
    states, environments, counters, the best policy) as one pickled string beside them,
    because pickling is the only way to store Gymnasium's environments. Loading a pickle can
    run code: resume only runs that you trust.

    A checkpoint is synced to disk (fsync) before TensorFlow names it as the latest, and its
    parts have checksums, so that what a crash truncated is never restored.
    """

    def __init__(self, folder: Path, trainer: Trainer, *, with_environments: bool) -> None:
        self._folder = folder
        self._trainer = trainer
        self._with_environments = with_environments
        self._stored_update: int | None = None
        self._pickled_state = tf.Variable("", dtype=tf.string)
        self._checkpoint = tf.train.Checkpoint(
            learner=list(trainer.learner.state), state=self._pickled_state
        )
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, folder, max_to_keep=KEPT, checkpoint_name=NAME
        )

    def save(self) -> None:
        """Store the trainer's state, unless this update has been stored already.

        A kill while the only checkpoint is being overwritten would leave none.

        Raises:
            OSError, tf.errors.OpError: the folder cannot be written.
        """
        state = self._trainer.state
        if state.update == self._stored_update:
            return
        envs = self._trainer.envs.pickled() if self._with_environments else None
        self._pickled_state.assign(cloudpickle.dumps((FORMAT, state, envs)))
        sync_first = tf.train.CheckpointOptions(
            experimental_write_callbacks=[lambda: sync_tree(self._folder)]
        )
        self._manager.save(checkpoint_number=state.update, options=sync_first)
        sync_tree(self._folder)  # and now the file that names the latest
        self._stored_update = state.update

    def restore(self) -> list[str]:
        """Restore the trainer from the newest intact checkpoint, if there is any.

        Returns:
            Messages to report, such as that the newest checkpoint is damaged.

        Raises:
            CheckpointError: there are checkpoints, but none can be restored.
        """
        reasons: list[str] = []
        updates = [int(path.stem.rpartition("-")[2]) for path in self._folder.glob("*.index")]
        for update in sorted(updates, reverse=True):
            try:
                self._restore(update)
            # A damaged file can raise in TensorFlow, in pickle or in what is unpickled.
            except Exception as error:
                reasons.append(f"checkpoint {update} cannot be restored: {first_line(error)}")
                continue
            for damaged in (number for number in updates if number > update):
                for path in self._folder.glob(f"{NAME}-{damaged}.*"):
                    path.unlink()
            return reasons
        if reasons:
            raise CheckpointError(reasons[0])
        return []

    def _restore(self, update: int) -> None:
        path = str(self._folder / f"{NAME}-{update}")
        # Check the format first: the variables of another format do not match.
        pickled = tf.train.load_checkpoint(path).get_tensor("state/.ATTRIBUTES/VARIABLE_VALUE")
        form, state, envs = cloudpickle.loads(pickled)
        if form != FORMAT:
            raise CheckpointError(f"it has format {form}, this program reads {FORMAT}")
        self._checkpoint.restore(path).assert_existing_objects_matched()
        self._trainer.state = state
        self._stored_update = state.update
        if envs is not None:
            self._trainer.restore_environments(envs)
        else:
            self._trainer.restart_environments(seed=int(state.rng.integers(2**31)))

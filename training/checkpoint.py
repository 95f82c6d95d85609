"""Checkpoints: everything that a run needs to resume as if it had never been stopped."""

from pathlib import Path

import cloudpickle
import tensorflow as tf

from training.files import sync_tree
from training.trainer import Trainer


class Checkpoints:
    """The checkpoints of a run, in a folder of their own.

    The learner's variables are stored as such; the rest of the trainer's state (random
    states, environments, counters, the best policy) as one pickled string beside them,
    because Gymnasium's environments can be stored in no other way. Loading a pickle can
    run code: resume only runs that you trust.

    TensorFlow names a checkpoint as the latest once it is written. It is synced to disk
    (fsync) before that, so a checkpoint that a crash truncated is never restored.
    """

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self._folder = folder
        self._trainer = trainer
        self._stored_update: int | None = None
        self._pickled_state = tf.Variable("", dtype=tf.string)
        checkpoint = tf.train.Checkpoint(
            learner=trainer.learner.variables(), state=self._pickled_state
        )
        self._manager = tf.train.CheckpointManager(
            checkpoint, folder, max_to_keep=2, checkpoint_name="update"
        )

    def save(self) -> None:
        """Store the trainer's state, unless its latest checkpoint is of this update.

        A kill while the only checkpoint is overwritten would leave none.

        Raises:
            OSError: the folder cannot be written.
        """
        state = self._trainer.state
        if state.update == self._stored_update:
            return
        self._pickled_state.assign(cloudpickle.dumps(state))
        sync_first = tf.train.CheckpointOptions(
            experimental_write_callbacks=[lambda: sync_tree(self._folder)]
        )
        self._manager.save(checkpoint_number=state.update, options=sync_first)
        sync_tree(self._folder)  # and now the file that names the latest
        self._stored_update = state.update

    def restore(self) -> None:
        """Restore the trainer from the latest checkpoint, if there is one."""
        if self._manager.restore_or_initialize() is not None:
            self._trainer.state = cloudpickle.loads(self._pickled_state.numpy())
            self._stored_update = self._trainer.state.update

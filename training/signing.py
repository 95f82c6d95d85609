"""The signature of a version, in the OpenSSF model-signing format.

Imported only by the command `sign`: the library is in the extra `sign`, not in `train`.
"""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from model_signing import hashing, signing

from training.errors import TrainingError
from training.files import CARD, make_readable, sync
from training.versions import SIGNATURE, staging_folder


class SigningError(TrainingError):
    """The version or the key cannot be used; the message says why."""


def sign(model_dir: Path, private_key: Path) -> None:
    """Sign all files of a version, and write the signature into it, in place of an older one.

    Args:
        model_dir: the version, an absolute path.
        private_key: a file in PEM, of the curve P-256, P-384 or P-521, without a password.

    Raises:
        SigningError: the folder is not an exported version, or the key is not as required.
        OSError: a file cannot be read or written.
    """
    if not (model_dir / CARD).is_file():
        raise SigningError(f"{model_dir} is not an exported version: it has no {CARD}")
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=private_key)
    # TypeError: the key has a password; AttributeError: it is of another kind.
    except (ValueError, TypeError, AttributeError, UnsupportedAlgorithm) as error:
        needed = "a private key in PEM, of the curve P-256, P-384 or P-521, without a password"
        raise SigningError(f"{private_key} is not {needed}") from error
    # By default, git's own files, such as .gitignore, would not be signed.
    every_file = hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
    config.set_hashing_config(every_file)
    # Write beside the version: in it, a service would find a file that is not on the card.
    with staging_folder(model_dir.parent) as staging:
        written = staging / SIGNATURE
        try:
            config.sign(model_dir, written)
        except ValueError as error:  # such as a symbolic link
            raise SigningError(f"{model_dir} cannot be signed: {error}") from error
        make_readable(written)
        sync(written)
        written.replace(model_dir / SIGNATURE)
        sync(model_dir)

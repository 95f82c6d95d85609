"""TensorFlow Serving's answers about models, with its messages' names in JSON. No HTTP."""

from typing import Any

from serving.api.tfserving.prediction import find
from serving.errors import NotFoundError
from serving.registry.repository import Repository
from serving.schemas import VersionReport


class ServingModels:
    """Answers about models."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def status(self, name: str, version: int | None = None) -> dict[str, Any]:
        """The states of a model's versions, or of one.

        Raises:
            NotFoundError: there is none.
        """
        try:
            reports = self._repository.report(name).versions
        except NotFoundError:
            reports = []
        # Only versions that the service tried to load.
        listed = [
            _status(report)
            for report in reports
            if report.state != "waiting" and version in (None, report.version)
        ]
        if not listed:
            which = "any versions" if version is None else f"version {version}"
            raise NotFoundError(f"Could not find {which} of model {name}")
        return {"model_version_status": listed}

    def metadata(
        self, name: str, version: int | None = None, label: str | None = None
    ) -> dict[str, Any]:
        """The signatures of a version.

        Raises:
            ProblemError: as `find`.
        """
        policy = find(self._repository, name, version, label).policy
        model = {"name": policy.name, "signature_name": "", "version": str(policy.version)}
        signatures = {"signature_def": {"signature_def": policy.signatures}}
        return {"model_spec": model, "metadata": signatures}


def _status(report: VersionReport) -> dict[str, Any]:
    is_refused = report.state == "refused"
    state, code = ("END", "FAILED_PRECONDITION") if is_refused else ("AVAILABLE", "OK")
    status = {"error_code": code, "error_message": report.reason if is_refused else ""}
    return {"version": str(report.version), "state": state, "status": status}

"""Where a server is known to differ from a protocol's text: names, and the cases that find them."""

from typing import NamedTuple

_REFUSED = "test_it_is_told_as_an_error"
_CHECKED = "test_it_is_told_as_an_error_or_answered"
# FastAPI's answer to a request that is not of the schema.
_NOT_OF_THE_SCHEMA = [
    *(f"{_REFUSED}[{case}]" for case in ("no body", "cut off", "an array", "a number")),
    *(
        f"{_REFUSED}[{case}]"
        for case in ("no inputs", "inputs not an array", "input not an object")
    ),
    *(f"{_REFUSED}[{case}]" for case in ("no name", "name not a string", "no shape")),
    *(f"{_REFUSED}[{case}]" for case in ("no datatype", "datatype null", "no data")),
    *(f"{_REFUSED}[{case}]" for case in ("not an integer", "string")),
    *(f"{_CHECKED}[{case}]" for case in ("id a number", "parameters a number")),
    *(f"{_CHECKED}[{case}]" for case in ("outputs a string", "output without a name")),
]
_LISTED_OUTPUTS = [
    f"test_each_output_may_be_bytes_or_json[true-{of_output}]"
    for of_output in ("true", "false", "absent")
]

DIFFERENCES: dict[str, dict[str, list[str]]] = {
    "ours": {"observations have to be finite": ["test_numbers_need_not_be_finite"]},
    "triton": {
        "the platform is `python`": ["test_the_platform_has_a_project_and_a_format"],
        "`binary_data_output` does not count for listed outputs": _LISTED_OUTPUTS,
        "no body means no rows": [f"{_REFUSED}[no body]"],
        "JSON may hold `NaN`": [f"{_REFUSED}[NaN]"],
        "data may be half flat, half nested": [f"{_REFUSED}[flat and nested]"],
        "a shape whose size overflows ends the model": [
            "test_a_shape_whose_size_overflows_is_an_error"
        ],
    },
    "mlserver": {
        "no binary tensors": ["test_oip_binary"],
        "the platform is empty": ["test_the_platform_has_a_project_and_a_format"],
        "an `id` must fit into a header": [
            "test_the_id_comes_back[unicode]",
            "test_the_id_comes_back[escaped]",
        ],
        "errors of the schema are `detail`, not `error`": [
            *_NOT_OF_THE_SCHEMA,
            *(f"{_REFUSED}[{case}]" for case in ("NaN", "unknown datatype")),
            *(f"{_REFUSED}[{case}]" for case in ("datatype in another case", "more than 64 bits")),
        ],
    },
    "kserve": {
        "no versions (optional)": ["test_each_version_may_be_requested"],
        "the platform is empty": ["test_the_platform_has_a_project_and_a_format"],
        "`model_version` is null": ["test_all_outputs_are_returned_unless_some_are_requested"],
        "JSON may hold `NaN`": [f"{_REFUSED}[NaN]"],
        "datatypes match in any case": [f"{_REFUSED}[datatype in another case]"],
        "errors of the schema are `detail`, not `error`": [
            *_NOT_OF_THE_SCHEMA,
            *(f"{_REFUSED}[{case}]" for case in ("data null", "data a string")),
            "test_bytes_without_the_header_are_an_error",
        ],
        "binary tensors are not among the extensions": ["test_the_extension_is_reported"],
        "`binary_data_output` does not count for listed outputs": _LISTED_OUTPUTS,
        "binary answers have no Content-Length": ["test_the_length_of_the_whole_body_is_given"],
        "`binary_data_size` may be more than there is": [
            "test_bytes_that_do_not_fit_are_an_error[size too large]"
        ],
    },
}


class Case(NamedTuple):
    """A test of one server, and what DIFFERENCES may call it."""

    server: str
    names: set[str]

    def differences(self) -> list[str]:
        """The names of the differences that it finds."""
        known = DIFFERENCES[self.server].items()
        return [difference for difference, cases in known if not self.names.isdisjoint(cases)]


def case_of(node_id: str) -> Case:
    """The case of pytest's `folder/file.py::function[case]`: of a peer if its name is in there."""
    path, _, name = node_id.partition("::")
    function, _, case = name.removesuffix("]").partition("[")
    server = "ours"
    for other in DIFFERENCES:
        if case == other or case.startswith(f"{other}-") or case.endswith(f"-{other}"):
            server = other
            case = case.removeprefix(other).removesuffix(other).strip("-")
    file = path.rpartition("/")[2].removesuffix(".py")
    return Case(server, {file, function, f"{function}[{case}]"})

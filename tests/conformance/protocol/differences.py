"""Where a server is known to differ from a protocol's text: names, and the cases that find them."""

import pytest

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
    "ours": {},
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


def server_of(item: pytest.Item) -> str:
    """The server that a case tests."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    server: str = parameters.get("server") or parameters.get("fresh_server", "ours")
    return server


def names_of(item: pytest.Item) -> set[str]:
    """What DIFFERENCES may call a case: its file, its function, or the function with the case."""
    assert isinstance(item, pytest.Function)
    function = item.originalname
    server = server_of(item)
    case = item.name.removeprefix(function).strip("[]")
    case = case.removeprefix(server).removesuffix(server).strip("-")
    return {item.path.stem, function, f"{function}[{case}]" if case else function}

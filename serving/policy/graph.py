"""The graph of a SavedModel as data: what its signatures compute, and where its weights are.

TensorFlow's own loader runs operations that the file names, to restore, to initialise and to read
assets. Here, no part of a file runs before it is known to be pure.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError  # no stubs

from serving.policy import tensorflow_adapter
from serving.policy.artefact import ArtefactError

# Operations without effects: arithmetic, shapes, control flow, random numbers, reading weights.
PURE = frozenset(
    """
    Abs Acos Add AddN AddV2 All Any ArgMax ArgMin Asin Atan Atan2 AvgPool BatchMatMul BatchMatMulV2
    BatchMatMulV3 BiasAdd BroadcastArgs BroadcastTo Cast Ceil ClipByValue ConcatV2 Const Conv2D Cos
    Cosh Cumprod Cumsum DepthwiseConv2dNative Div DivNoNan Einsum Elu EnsureShape Equal Erf Exp
    ExpandDims Expm1 Fill Floor FloorDiv FloorMod FusedBatchNormV3 GatherNd GatherV2 Greater
    GreaterEqual Identity IdentityN If InvertPermutation IsFinite IsInf IsNan L2Loss LeakyRelu Less
    LessEqual LinSpace Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul Max MaxPool
    Maximum Mean Merge Min Minimum Mod Mul MulNoNan Multinomial Neg NoOp NotEqual OneHot OnesLike
    Pack Pad PadV2 PartitionedCall Placeholder PlaceholderWithDefault Pow PreventGradient Prod
    RandomStandardNormal RandomUniform RandomUniformInt Range Rank ReadVariableOp RealDiv
    Reciprocal Relu Relu6 Reshape ResourceGather ReverseV2 Rint Round Rsqrt Select SelectV2 Selu
    Shape ShapeN Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign Split SplitV Sqrt
    Square SquaredDifference Squeeze StatefulPartitionedCall StatelessIf StatelessMultinomial
    StatelessRandomGetKeyCounter StatelessRandomNormalV2 StatelessRandomUniformV2 StatelessWhile
    StopGradient StridedSlice Sub Sum Switch Tan Tanh Tile TopKV2 Transpose TruncatedNormal Unpack
    VarHandleOp Where While Xdivy Xlogy ZerosLike
    """.split()  # noqa: SIM905  # a list would take a line for each
)


def load(meta_graph: Any, signatures: Sequence[str], checkpoint: Path) -> Any:
    """A session with the part of a graph that signatures reach, and its weights from a checkpoint.

    A session calls a graph in a third of the time that eager TensorFlow takes. It computes in the
    calling thread only: TensorFlow's own threads flush subnormal numbers to zero and the calling
    thread does not, so a row's outputs would depend on the number of rows in its call. Idle
    threads would also take time from busy ones: docs/performance.md.

    Raises:
        ArtefactError: this part is not pure, or something in it or a weight is missing.
    """
    part = _pure_part(meta_graph, signatures)
    keys = _checkpoint_keys(meta_graph)
    # Unlike `load_checkpoint`, it never takes the path from a folder's file, which may lead away.
    weights = tf.compat.v1.train.NewCheckpointReader(str(checkpoint))
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(part, name="")
        assigned = {}
        for node in part.node:
            if node.op == "VarHandleOp":
                if node.name not in keys or not weights.has_tensor(keys[node.name]):
                    raise ArtefactError(f"the weights of {node.name} are not in its checkpoint")
                value = tf.compat.v1.placeholder(node.attr["dtype"].type)
                handle = graph.get_tensor_by_name(f"{node.name}:0")
                assign = tf.raw_ops.AssignVariableOp(resource=handle, value=value)
                assigned[value] = assign, weights.get_tensor(keys[node.name])
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=1, inter_op_parallelism_threads=1
        )
        session = tf.compat.v1.Session(graph=graph, config=config)
        for value, (assign, weight) in assigned.items():
            session.run(assign, {value: weight})
    return session


def read_meta_graph(model_dir: Path) -> Any:
    """The one `MetaGraphDef` of a SavedModel that has the tag `serve`.

    Raises:
        ArtefactError: the file is missing or damaged, or has none or several of them.
    """
    saved = tensorflow_adapter.SavedModel()
    try:
        saved.ParseFromString((model_dir / "saved_model.pb").read_bytes())
    except (OSError, DecodeError) as error:
        raise ArtefactError(f"saved_model.pb cannot be read: {error}") from error
    found = [graph for graph in saved.meta_graphs if "serve" in graph.meta_info_def.tags]
    if len(found) != 1:
        raise ArtefactError(f"saved_model.pb has {len(found)} graphs to serve, expected 1")
    return found[0]


def _pure_part(meta_graph: Any, signatures: Sequence[str]) -> Any:
    """The part of a graph that signatures reach, including all functions that they call.

    Args:
        meta_graph: of the SavedModel, as a `MetaGraphDef`.
        signatures: their names.

    Returns:
        A `GraphDef` of its own.

    Raises:
        ArtefactError: an operation in it is not in `PURE`, or something in it is missing.
    """
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    functions = {one.signature.name: one for one in meta_graph.graph_def.library.function}
    wanted = [
        tensor.name
        for signature in (meta_graph.signature_def[name] for name in signatures)
        for tensor in (*signature.inputs.values(), *signature.outputs.values())
    ]
    reached: dict[str, Any] = {}
    while wanted:
        name = wanted.pop().lstrip("^").partition(":")[0]
        if name in reached:
            continue
        if name not in nodes:
            raise ArtefactError(f"its graph has no node {name!r}")
        reached[name] = nodes[name]
        wanted += nodes[name].input
    called: dict[str, Any] = {}
    to_call = [name for node in reached.values() for name in _called_by(node, functions)]
    while to_call:
        name = to_call.pop()
        if name in called:
            continue
        if name not in functions:
            raise ArtefactError(f"its graph has no function {name!r}")
        called[name] = functions[name]
        for node in functions[name].node_def:
            to_call += _called_by(node, functions)
    part = tf.compat.v1.GraphDef(versions=meta_graph.graph_def.versions)
    part.node.extend(reached.values())
    part.library.function.extend(called.values())
    return part


def _called_by(node: Any, functions: dict[str, Any]) -> Iterator[str]:
    """The functions that an operation calls.

    Raises:
        ArtefactError: the operation is not pure.
    """
    if node.op in functions:
        yield node.op
    elif node.op not in PURE:
        raise ArtefactError(f"its signatures use the operation {node.op}, which is not allowed")
    for value in node.attr.values():
        for function in (value.func, *value.list.func):
            if function.name:
                yield function.name


def _checkpoint_keys(meta_graph: Any) -> dict[str, str]:
    """The checkpoint keys of the weights, by the name of their `VarHandleOp`.

    The keys are read from the file's function that restores the weights, which is never run.

    Raises:
        ArtefactError: there is no such function, or it is not like TensorFlow's.
    """
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    functions = {one.signature.name: one for one in meta_graph.graph_def.library.function}
    try:
        restore = nodes[meta_graph.saver_def.restore_op_name.partition(":")[0]]
        function = functions[restore.attr["f"].func.name]
        body = {node.name: node for node in function.node_def}
        arguments = [argument.name for argument in function.signature.input_arg]
        sources = [source for source in restore.input if not source.startswith("^")]
        handles = dict(zip(arguments, sources, strict=True))
        keys = {}
        for node in function.node_def:
            if node.op == "AssignVariableOp":
                # handle, value; through an Identity, the value is an output of RestoreV2
                handle, value = node.input[:2]
                producer = body[value.partition(":")[0]]
                if producer.op == "Identity":
                    value = producer.input[0]
                restored, _, output = value.split(":")
                names = body[body[restored].input[1].partition(":")[0]].attr["value"].tensor
                keys[handles[handle]] = tf.make_ndarray(names)[int(output)].decode()
    except (KeyError, ValueError, IndexError) as error:
        raise ArtefactError(f"its weights cannot be found: {error}") from error
    return keys

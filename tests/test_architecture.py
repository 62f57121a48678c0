"""The order of folders and files: each imports only from those above it."""

import ast
import itertools
import re

import pytest

from repository import ROOT, SOURCE

pytestmark = pytest.mark.without_keras

# A folder a line, its files in order. `docs/design.md` says what each is for.
ORDER = """
                        _registration
_core                   types by_identity table views processes
_core.numbers           presets series checks scale_blocks entropy k_means midpoints noise values
_core.numbers           short_name crossings fitting calibration knapsack scaled_steps
_core.tensors           torch_gradient backend distributed computed_once scalars
_core.tensors           constants plain_torch step_functions
_core.tensors           step_table pair_table blocks
_core.tensors           torch_inward torch_pull torch_scaled torch_rows scaled gradients
_core.tensors           cheapest_form row_steps gaps projection pull latent_units
_core.tensors           level_noise kept fused
_core.keras_internals   lock scopes variables layers allocation calls graph compiled running_fit
_core.keras_internals   interception
_core                   latent_name companion estimator effective_latent scale
_core                   scale_state weight_scope coordinates weight_computation parameter
_storage                atomic names codes radix rans packing container entries archive
_storage                record
                        schedules
objectives              problem groups
objectives._algorithms  losses solution symmetry quadratic_form compiling compiled_loop deltas
objectives._algorithms  relaxation_bound quadratic_steps sphere_decoding autocorrelation_steps
objectives._algorithms  minimax_program convex_hull largest_sum
objectives              objective quadratic sums minimax magnitude autocorrelation
estimators              _pace _steps _hardening _softmax
estimators.contrib      surrogates argmax_straight_through binary_relax residual
estimators              straight_through annealed settling element_wise_scaled gumbel_softmax
estimators              mean_field registry policy
                        regularizers
layers                  _channels _substitutes _dtypes _finalized _first_values _moments
layers                  _scoped_call _signature _attributes _weight_arrays _listed_count
layers                  _sharding _parameter_variables _discrete_layer _wrappers _weight_names
layers                  _first_latents _axes multiplier discrete
layers                  _compiled_loops _activation_fit _activation_scale activation
_models                 walk attribute_data layer_state loose_weights exchange kept_class parts
_models                 remake clone
_models                 inputs
_models.calibration     samples products watched_pass flow moments statistics calibrate
_models                 compile_like weight_decay finalize plain_activation bake
_models                 noise_evaluation rules
_models                 activation_rules
_models                 on_lists probe limits menu feature_plan table_features
_models                 discretize skeleton config_limits files
_models                 signs multiplications summary_row summary_table summary
_models                 typical_inputs batches named_metric compiled_loss model_loss
_optimize               budget incumbent checkpoint interruption autosave progress
_optimize               remembered_losses evaluator
_optimize               constraints linear_constraints moves
_optimize.methods       method population compiled_steps full_deltas tabu gradient_starts
_optimize.methods       enumeration restarts exact increasing magnitude_fit stand_in
_optimize.methods       quadratic_fit autocorrelation_fit surface pieces largest_fit
_optimize.methods       absolute_sum_fit piecewise_fit
_optimize.search        blas_threads user_loss negative task choice result search
_optimize.polish        report arguments ascending_lists ranked_loss curvature validation
_optimize.polish        continuous state annealing full_batch minibatch variables_alone resumption
_optimize.polish        polish
_optimize.assess        assessment agreement single_changes comparisons identifiability assess
callbacks               _parameters _averages freezing keeping lists pacing statistics
callbacks               _falling_rate _vector_polish finishing _records _failures watching
_export                 packages lists inputs finite conversion grid coded_tensor report target
_export                 precision folding fixed_point levels object_size operations
_export.graph           steps geometry weights builder activations linear pooling arranging
_export.graph           combining normalizing recurrent folding reader
_export.hls4ml          nodes weights activation layers
_export.qonnx           quantizers emitter products nodes write
_export.integer         multiples steps functions layer_steps meaning rounding staircase
_export.integer         normalizing program integer_weights combining refusal
_export.integer         grids sums nodes convert_activations convert_sums convert_combined
_export.integer         convert_numbers convert comparison keras_reference model to_integer
_export.c               text encoding unpacking definitions weights functions recurrent memory
_export.c               counting calls vectors program
_export.c_integer       definitions kernels memory encoding rounding products layers calls program
_export.c_integer       checking write
_export.verilog         refusal text trees module loops weights sums requantization rounding stages
_export.verilog         clocked simulation write
_export.onnx            graphs repairs convert shrink standard fast
_export                 arrays plain openvino litert litert_int8 registry runtimes running fidelity
_export                 export
runtime                 _layout _vector_code _chunks _table_kernel _block_kernels _kernels
runtime                 _machine_code _threads _matrices
runtime                 _functions _steps _window_steps _stored _machine _layer_config _layers
runtime                 _chain network loading
testing                 edge_cases _ledger _trace_jax _trace_tensorflow _trace_torch tracing
testing                 _activations
testing                 laws
plots                   _matplotlib _sources _histories _watched _drawing values choices
plots                   latents estimator training codes sizes beam
_report                 pictures measures sections report
_sweep                  plan data cell advice training claims journal progress result sweep
_command                errors backend options output reading columns encoding datasets scores
_command                table_model comparison results train predict summary discretize polish
_command                export report sweep search command
"""


def modules_in(order):
    """The full dotted names of all modules, in order; a package stands before its files."""
    names = []
    for line in order.splitlines():
        folder = line[:24].strip()
        for file in line[24:].split():
            parts = ["quantal", *filter(None, folder.split(".")), file]
            names.append(".".join(parts))
    return names


def top(folder):
    return folder.split(".")[0]


def without_repeats(names):
    """Names without those that only repeat the one before."""
    return [name for name, _ in itertools.groupby(names)]


MODULES = modules_in(ORDER)
FOLDERS = [line[:24].strip() for line in ORDER.splitlines() if line.strip()]
NUMPY_ONLY = [
    "_core.numbers",
    "_core.table",
    "_core.views",
    "_storage.atomic",
    "_storage.names",
    "_storage.codes",
    "_storage.radix",
    "_storage.rans",
    "_storage.packing",
    "_storage.container",
    "_storage.entries",
    "runtime",
    "schedules",
]
FRAMEWORKS = {"keras", "tensorflow", "jax", "torch"}


def path_of(module):
    return SOURCE.parent.joinpath(*module.split(".")).with_suffix(".py")


def imports_of(text):
    """Every dotted name that a source text imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def upward_only(module, text, modules=MODULES):
    """The imports of a module that do not stand above it."""
    below = set(modules[modules.index(module) :])
    packages = {name for name in imports_of(text) if any(m.startswith(f"{name}.") for m in below)}
    own_packages = {module.rsplit(".", depth)[0] for depth in range(1, module.count(".") + 1)}
    return sorted((imports_of(text) & below) | (packages - own_packages))


def floors_in(design):
    """The folders in the table of floors of docs/design.md, from top to bottom."""
    table = design.split("## The floors")[1].split("## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)
    return [folder for row in rows for folder in re.findall(r"`([\w.]+)`", row)]


def test_the_design_names_the_floors():
    if not (ROOT / "docs").exists():
        pytest.skip("docs is not beside the tests")
    floors = floors_in((ROOT / "docs" / "design.md").read_text())
    assert set(floors) == {line[:24].strip() for line in ORDER.splitlines()} - {""}
    assert len(floors) == len(set(floors))
    assert without_repeats(top(floor) for floor in floors) == [
        folder for folder in without_repeats(map(top, FOLDERS)) if folder
    ]


def test_a_folder_stands_above_or_below_another_one_as_a_whole():
    runs = [folder for folder in without_repeats(map(top, FOLDERS)) if folder]
    assert len(runs) == len(set(runs))


def test_every_file_has_its_place():
    files = {path for path in SOURCE.rglob("*.py") if path.name != "__init__.py"}
    assert files == {path_of(module) for module in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_files_import_only_from_files_above(module):
    assert upward_only(module, path_of(module).read_text()) == []


def package_of(path):
    return ".".join(path.parent.relative_to(SOURCE).parts)


PACKAGES = {package_of(path): path for path in SOURCE.rglob("__init__.py") if path.parent != SOURCE}
KERAS_FIRST = ["callbacks", "estimators", "layers", "testing"]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_hold_names_only(package):
    body = ast.parse(PACKAGES[package].read_text()).body
    imports = [node for node in body if not isinstance(node, ast.Expr)]
    if package in KERAS_FIRST:
        assert ast.unparse(imports.pop(0)) == "import keras"
    assert all(isinstance(node, ast.ImportFrom) for node in imports)
    assert all(isinstance(node.value, ast.Constant) for node in body if isinstance(node, ast.Expr))


def through_packages(text):
    """The names that a source text imports from a package and not from the file that has them."""
    packages = {"quantal", *(f"quantal.{package}" for package in PACKAGES)}
    return sorted(
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module in packages
        for alias in node.names
        if node.module == "quantal" or f"{node.module}.{alias.name}" not in MODULES
    )


@pytest.mark.parametrize("module", MODULES)
def test_imports_name_the_file(module):
    """Or an import could meet a package that is half imported: see quantal._registration."""
    assert through_packages(path_of(module).read_text()) == []


def test_that_check_of_packages_can_fail():
    assert through_packages("from quantal.layers import Discrete") == ["quantal.layers.Discrete"]
    assert through_packages("from quantal import schedules") == ["quantal.schedules"]
    assert through_packages("from quantal._export import runtimes") == []


def test_the_check_can_fail():
    """An import of a lower file is seen: a name, a module, within a function or a package."""
    for module, text, lower in [
        ("_core.numbers.values", "from quantal.layers import Discrete", "layers"),
        ("_core.numbers.values", "def f():\n    from quantal import plots", "plots"),
        ("_core.numbers.values", "import quantal._core.numbers.fitting", "_core.numbers.fitting"),
        ("_export.fidelity", "from quantal._export import export", "_export.export"),
        (
            "objectives.quadratic",
            "def f():\n    from quantal._optimize.methods import tabu",
            "_optimize.methods.tabu",
        ),
    ]:
        assert f"quantal.{lower}" in upward_only(f"quantal.{module}", text)
    above = "from quantal._core.numbers.values import Values"
    assert upward_only("quantal.layers.discrete", above) == []


def numpy_only():
    return [m for m in MODULES if any(m.startswith(f"quantal.{n}") for n in NUMPY_ONLY)]


@pytest.mark.parametrize("module", numpy_only())
def test_numbers_are_numpy_only(module):
    modules = {name.split(".")[0] for name in imports_of(path_of(module).read_text())}
    assert not modules & FRAMEWORKS

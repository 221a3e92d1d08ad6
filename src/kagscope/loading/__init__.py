"""Load user-supplied models, weights and inputs from names or files given on the command line."""

from kagscope.loading.checkpoints import Checkpoint, find_checkpoints
from kagscope.loading.fitting import load_into
from kagscope.loading.hubs import is_published, load_published
from kagscope.loading.inputs import LoadedInputs, load_inputs
from kagscope.loading.matrices import NamedMatrices, load_matrices
from kagscope.loading.models import load_model
from kagscope.loading.shapes import fit_inputs
from kagscope.loading.weights import load_state, save_weights

__all__ = [
    "Checkpoint",
    "LoadedInputs",
    "NamedMatrices",
    "find_checkpoints",
    "fit_inputs",
    "is_published",
    "load_inputs",
    "load_into",
    "load_matrices",
    "load_model",
    "load_published",
    "load_state",
    "save_weights",
]

"""Figures: a table or states in, a matplotlib Figure out; the caller writes `figure_bytes` where it likes."""

from analysis.figures.confusion import confusion, confusion_counts
from analysis.figures.curves import layer_curves, learning_curves, masking_curves
from analysis.figures.differences import difference_rows
from analysis.figures.heatmap import common_limits, heatmap
from analysis.figures.heatmaps import heatmaps
from analysis.figures.landscape import landscape
from analysis.figures.neuron_map import neuron_map, overlap_by_layer
from analysis.figures.projector_table import projector_table
from analysis.figures.prompt_map import coordinates, learned, prompt_map
from analysis.figures.scatter import scatter
from analysis.figures.style import FORMATS, figure_bytes, figure_style
from analysis.figures.sweep import sweep_curves
from analysis.figures.weights import weights_heatmap

__all__ = [
    "FORMATS",
    "common_limits",
    "confusion",
    "confusion_counts",
    "coordinates",
    "difference_rows",
    "figure_bytes",
    "figure_style",
    "heatmap",
    "heatmaps",
    "landscape",
    "layer_curves",
    "learned",
    "learning_curves",
    "masking_curves",
    "neuron_map",
    "overlap_by_layer",
    "projector_table",
    "prompt_map",
    "scatter",
    "sweep_curves",
    "weights_heatmap",
]

"""Projectors: from prompts of one backbone to prompts of another, fitted, controlled and kept.

architectures  the modules: the paper's flattened perceptron, per-token maps, a low-rank map, a constant
closed_form    maps from shared words: least squares, perceptron, combination, Procrustes
anchors        relative representation, searched in the target's space
fitting        the one loop, and what it minimises: distance, task loss, both; resumable
methods        all ways to come to a projector, behind one interface
controls       random sources, constant prompts, input sensitivity, the verdict
projector      the value, and `project`
artifacts      one folder a projector
lessons, gathering, report, experiment    from backbones, prompts and tasks to a judged projector
"""

"""Looking at transfer: tensors and tables in; numbers, tables, figures and HTML text out.

Nothing here touches a disk or a network: the command line and the studies read and write, this package computes.

matrices      tables with task names on both sides: reading, types, matching two of them
similarity    how alike prompts are, from their vectors alone (the four metrics of Su et al. 2022, and controls)
neurons       how alike prompts are, from the neurons they activate
statistics    rank correlation per target, bootstrap over tasks, permutation tests, Holm
choice        choosing a source by an indicator: what is lost against the best source
prediction    the question "does this indicator predict transfer?", answered with all of the above
figures       heatmap, map of prompts, scatter, curves, neuron map, projector table
report        one self-contained HTML page
"""

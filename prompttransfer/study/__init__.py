"""Studies: whole experiments as graphs of cells, made once, by as many processes and machines as there are.

cell.py says what a cell is; study/plan/naming.py by what each is named, study/plan/graph.py which there are and what they
are made from; study/engine/engine.py runs their graph; study/engine/store.py keeps what is finished; study/results/statistics.py and the report read it.
"""

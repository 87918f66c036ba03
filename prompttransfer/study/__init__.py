"""Studies: whole experiments as graphs of cells, made once, by as many processes and machines as there are.

cell.py says what a cell is; plan.py turns a study file into a graph of them; engine.py runs a graph; store.py keeps
what is finished; tables.py and the report read it.
"""

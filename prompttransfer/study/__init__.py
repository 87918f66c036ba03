"""Studies: whole experiments as graphs of cells, made once, by as many processes and machines as there are.

cell.py says what a cell is; naming.py by what each is named, wiring.py which there are and what they
are made from; engine.py runs their graph; store.py keeps what is finished; tables.py and the report read it.
"""

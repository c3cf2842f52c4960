"""Loops over elements that torch could only do in many steps, compiled by numba for the processor at hand.

They run where the library in C is not there, or does not know the dtypes, with the same results;
`tasks.arithmetic.loops` imports them.

A kernel is compiled when it is first called with float32 or float64 vectors, which takes about half a second once on
a machine; later processes load it. Other threads go on while it runs. Every operation is rounded by itself, in the
order in which it is written, so that results are the same on every processor: nothing is reordered, and numba never
fuses a product and a sum.
"""

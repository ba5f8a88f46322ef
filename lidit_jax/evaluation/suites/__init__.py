"""Benchmark suites with scorers of their own: their prompts, images, results and scores.

A suite (`suite.Suite`) is one small module: `geneval`, `compbench`, `dpg`, and `own_prompts` for
any other list of prompts. `drawing` draws what a suite asks for, `scores` and `score_report`
compare what its official scorer wrote with table 1 of the paper.
"""

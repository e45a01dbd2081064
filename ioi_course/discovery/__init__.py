"""Machines that look for circuits: a graph of edges, scores for each of them, circuits
run as such, and their scores."""

"""`holdfast check` and `holdfast replay`: what would become of runs under the code at hand."""

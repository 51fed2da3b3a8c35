"""Every test but those of the proof, which is `test_spanrel.py`: a file for each place that is tested."""

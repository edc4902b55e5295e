"""The patch points: one file for each subject, with the wrappers and what they bind. `points` lists them all."""

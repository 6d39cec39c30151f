"""From activities to tasks: which compound was measured in which assay, and was it active."""

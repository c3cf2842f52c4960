"""How it is done: a folder is a step of the pipeline, a file here is vocabulary shared by steps."""

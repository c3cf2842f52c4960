"""Workers: the process that holds a device, the lease that it holds, and the line to it."""

//! Ports, blocking driver loop, journal and VM registry for vmtask-core.

//! A deterministic world for vmtask-core: virtual time, faults at every step, invariants.

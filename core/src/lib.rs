//! A sans-IO state machine for one task in one virtual machine: lifecycle, checkpoints, restart.
